"""Plans assembled into cases and parcels."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from qverify.errors import UsageError
from qverify.onnx.reader import save
from qverify.runs.assembly import Assembly
from qverify.runs.plan import Plan
from tests.support import networks


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    for number in (1, 2):
        save(networks.mlp(rng, 4, 5, 3), tmp_path / f"m{number}.onnx")
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(10, 4)), y=rng.integers(3, size=10))
    return tmp_path


def assembled(folder: Path, text: str) -> Assembly:
    (folder / "plan.toml").write_text(text)
    return Assembly(Plan.read(str(folder / "plan.toml")), str(folder / "run"), 2**30)


PLAN = """
models = ["m1.onnx", "m2.onnx"]
data = "d.npz"
bits = [6, 8]
samples = "2:9"
methods = ["ibp", "bp"]
timeout = 7
"""


def test_every_case_of_the_product_has_its_parcels(folder: Path) -> None:
    work = assembled(folder, PLAN)
    asked = [(Path(c.question.model).name, c.question.radii.bits, c.question.method) for c in work.cases]
    assert sorted(asked) == [(m, b, k) for m in ("m1.onnx", "m2.onnx") for b in (6, 8) for k in ("bp", "ibp")]
    assert len({case.name for case in work.cases}) == 8
    assert len({case.task.network for case in work.cases}) == 2 and len({case.task.samples for case in work.cases}) == 1
    with np.load(folder / "d.npz") as file:
        x, y = file["x"], file["y"]
    for case in work.cases:
        first, own_x, own_y = pickle.loads(work.parcels[case.task.samples])
        assert first == 2 and np.array_equal(own_x, x[2:9]) and np.array_equal(own_y, y[2:9])
        setting = pickle.loads(work.parcels[case.task.setting])
        assert (setting.options.method, setting.options.jobs, setting.options.memory) == (
            case.question.method,
            1,
            2**30,
        )
        assert case.indices == range(2, 9) and np.array_equal(work.labels[case.name], y[2:9])
        assert case.timeout == 7 and case.task.limit is not None and case.task.limit > 7
        network = pickle.loads(work.parcels[case.task.network])
        assert network.input_size == 4 and network.source == Path(case.question.model).name


def test_keys_are_hashes_of_all_that_an_answer_depends_on(folder: Path) -> None:
    work = assembled(folder, PLAN)
    keys = {case.key(index) for case in work.cases for index in case.indices}
    assert len(keys) == 8 * 7
    case = work.cases[0]
    expected = hashlib.sha256(json.dumps([*case.identity, 5], sort_keys=True).encode()).hexdigest()
    again = assembled(folder, PLAN.replace("2:9", "5:6"))
    assert again.cases[0].key(5) == case.key(5) == expected


def test_two_cases_that_ask_the_same_are_refused(folder: Path) -> None:
    (folder / "copy.onnx").write_bytes((folder / "m1.onnx").read_bytes())
    with pytest.raises(UsageError, match=r"The plan asks the same twice: .* leave one out"):
        assembled(folder, PLAN.replace("m2", "copy"))


def test_the_solver_is_that_of_the_cases_with_an_exact_step(folder: Path) -> None:
    assert assembled(folder, PLAN).solver is None
    own = assembled(folder, PLAN.replace('"bp"', '"exact"') + 'solver = "highs"\n')
    assert own.solver is not None and own.solver.name == "highs"
