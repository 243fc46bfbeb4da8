"""The cap on memory: smaller pieces give the same answers, what does not fit is unknown, too little is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.analysis import factors as radius
from qverify.analysis.discrepancies import worst_case_discrepancy
from qverify.analysis.factors import largest_factors
from qverify.analysis.grid import Grid
from qverify.analysis.unstable import unstable_neurons
from qverify.budget import resident, working_memory
from qverify.errors import UsageError
from qverify.family.radii import Radii
from qverify.verification import cascade, setup
from qverify.verification.cascade import verify
from qverify.verification.setup import Setup
from qverify.verification.verdict import Options, Status
from tests.support.commands import qverify
from tests.support.networks import NETWORKS, inputs, mlp, random_radii, samples
from tests.support.paths import DIGITS

TINY, AMPLE = 1500, 1 << 33
"""Bytes: not enough for two rows of the smallest network here; and enough for all."""


def capped(size: int, function: Any, *given: Any) -> Any:
    """What a function returns under a cap on what it may take beyond what is held already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "working_memory", lambda memory, needed: size)
        return function(*given)


# --- smaller pieces, the same answers ---


@pytest.mark.parametrize("method", ["ibp", "bp", "auto"])
@pytest.mark.parametrize("name", ["signed_hidden", "conv_conv", "conv_pool", "residual"])
def test_verdicts_do_not_depend_on_the_memory(name: str, method: str, rng: np.random.Generator) -> None:
    network = NETWORKS[name](rng)
    x, labels = samples(network, rng, 14)
    radii = random_radii(network, rng, 0.04)
    ways = Options(method=method, jobs=1, isolated=False)
    assert capped(TINY, Setup, network, radii, ways).chunk == 1
    assert capped(AMPLE, Setup, network, radii, ways).chunk > len(x)
    small, large = (capped(size, verify, network, x, labels, radii, ways) for size in (TINY, AMPLE))
    for found, other in zip(small, large, strict=True):
        assert (found.index, found.status, found.method) == (other.index, other.status, other.method)
        assert found.margin_lower == pytest.approx(other.margin_lower, abs=1e-7 if other.method == "exact" else 1e-11)
        if other.method != "exact":
            assert found.margin_upper == pytest.approx(other.margin_upper, abs=1e-9)


@pytest.mark.parametrize("method", ["ibp", "bp"])
def test_discrepancies_and_counts_do_not_depend_on_the_memory(method: str, rng: np.random.Generator) -> None:
    network = NETWORKS["conv_conv"](rng)
    x, radii = inputs(network, rng), random_radii(network, rng, 0.05)
    ways = Options(method=method)
    small, large = (capped(size, worst_case_discrepancy, network, x, radii, ways) for size in (TINY, AMPLE))
    for found, other in zip(small, large, strict=True):
        assert found.lower == pytest.approx(other.lower, abs=1e-11)
        assert found.upper == pytest.approx(other.upper, abs=1e-11)
    counts = [capped(size, unstable_neurons, network, radii, x, ways) for size in (TINY, AMPLE)]
    assert counts[0] == counts[1] and counts[0].samples == len(x)


# --- programs that do not fit ---


@pytest.mark.parametrize("isolated", [True, False])
def test_a_program_beyond_its_share_is_not_begun(
    isolated: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = mlp(rng, 5, 8, 6, 3)
    x, labels = samples(network, rng, 12)
    radii = Radii(0.02, 0.02, 0.02, 0.02)
    bounds = verify(network, x, labels, radii, Options(method="bp", attack=False))
    whole = verify(network, x, labels, radii, Options(jobs=1, attack=False, isolated=False))
    monkeypatch.setattr(setup, "program_memory", lambda options, memory: 1 << 14)
    found = verify(network, x, labels, radii, Options(jobs=1, attack=False, isolated=isolated))
    lost = [v for v in found if v.status is Status.UNKNOWN]
    assert lost and {v.index for v in lost} == {v.index for v in whole if v.method == "exact"}
    for verdict in lost:
        assert verdict.detail.startswith("the program needs about ") and verdict.limit is None
        assert "its share of the memory is " in verdict.detail
        assert "; more: --memory, fewer --jobs" in verdict.detail
        assert bounds[verdict.index].margin_lower - 1e-12 <= verdict.margin_lower
        assert verdict.margin_lower <= whole[verdict.index].margin_upper + 1e-9
    for verdict, other in zip(found, whole, strict=True):
        assert verdict in lost or verdict.status is other.status
    for one in worst_case_discrepancy(network, x[:2], radii, Options("exact", jobs=1, isolated=isolated)):
        assert not one.complete and np.isfinite(one.worst)


def test_the_programs_of_all_jobs_together_keep_to_the_cap() -> None:
    for jobs in (1, 2, 7):
        each = setup.program_memory(Options(jobs=jobs), 8 << 30)
        assert jobs * (each + (47 << 20)) <= 0.65 * (8 << 30)  # with what a process takes before it has a program


def test_a_network_that_cannot_be_held_is_refused(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "_held", lambda network: 1 << 50)
    with pytest.raises(UsageError, match=r"give --memory \d+\.\dG or more, or fewer --jobs\.$"):
        verify(mlp(rng, 3, 4, 2), np.zeros((1, 3)), np.zeros(1, int), Radii())


@pytest.mark.parametrize("size", [0, -1, 1, (384 << 20) - 1, 1e9, "4G"])
def test_sizes_from_python(size: float | str) -> None:
    with pytest.raises(UsageError, match=r"give at least 402653184 of them \(384M\)"):
        Options(memory=size)  # type: ignore[arg-type]
    assert Options(memory=384 << 20).memory == 402653184


# --- the command line ---

DATA = ("--data", "digits", "--bits", 8, "--samples", 4)
COMMANDS = {
    "verify": ("verify", DIGITS, *DATA),
    "sweep": ("sweep", DIGITS, "--data", "digits", "--values", "0.001", "--parts", "weight", "--samples", 4),
    "radius": ("radius", DIGITS, *DATA, "--max-factor", 1, "--precision", 1),
    "discrepancy": ("discrepancy", DIGITS, *DATA),
    "inspect": ("inspect", DIGITS, *DATA),
}
PLAN = f'models = ["{DIGITS}"]\ndata = "digits"\nbits = [8]\nmethods = ["bp"]\nsamples = "0:4"\n'


def command(name: str, folder: Any) -> tuple[Any, ...]:
    if name != "batch":
        out = () if name == "inspect" else ("--out", folder / "out")
        return (*COMMANDS[name], *out)
    (folder / "plan.toml").write_text(PLAN)
    return ("batch", folder / "plan.toml", "--out", folder / "out", "--jobs", 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*COMMANDS, "batch"])
def test_every_command_that_computes_takes_a_cap(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int | None] = []
    before = working_memory

    def told(size: Any, needed: int) -> int:
        heard.append(size)
        return before(size, needed)

    monkeypatch.setattr(setup, "working_memory", told)
    result = qverify(*command(name, tmp_path), "--memory", "1.5G")
    assert result.exit_code == 0, result.stderr
    if name != "batch":  # whose work is done elsewhere
        assert heard and set(heard) <= {1536 << 20, None} and heard.count(1536 << 20) >= len(heard) - 1


@pytest.mark.parametrize("name", [*COMMANDS, "batch"])
def test_too_little_memory_is_one_sentence_before_any_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qverify.verification.setup.Setup.__init__", None)
    for size in ("100M", "4X"):
        result = qverify(*command(name, tmp_path), "--memory", size)
        said = [line for line in result.stderr.splitlines() if not line.startswith("qverify: note: ")]
        assert (result.exit_code, result.stdout) == (2, "") and not (tmp_path / "out").exists()
        assert said == [f"qverify: --memory '{size}' is no size of at least 384M; write for example 4G or 800M."]


def test_too_little_memory_for_so_many_processes(tmp_path: Path) -> None:
    result = qverify(*command("batch", tmp_path), "--memory", "2G", "--jobs", 64)
    assert (result.exit_code, result.stdout) == (2, "") and not (tmp_path / "out").exists()
    (said,) = [line for line in result.stderr.splitlines() if not line.startswith("qverify: note: ")]
    assert said.startswith("qverify: --memory leaves ") and said.endswith("give fewer --jobs or more --memory.")
    assert "to each of 64 processes, and each needs 384M" in said


def test_inspect_without_samples_refuses_it_too() -> None:
    result = qverify("inspect", DIGITS, "--memory", "1M")
    assert result.exit_code == 2 and "is no size of at least 384M" in result.stderr


@pytest.mark.slow
def test_factors_that_are_searched_at_once_share_the_cap(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = mlp(rng, 5, 8, 6, 3)
    x, labels = samples(network, rng, 18)
    heard: list[tuple[str, int | None]] = []
    before = cascade.verdicts

    def hear(*given: Any) -> Any:
        heard.append((given[4].method, given[4].memory))
        return before(*given)

    monkeypatch.setattr(radius, "verdicts", hear)
    ways = Options(jobs=3, memory=4 << 30, isolated=False, attack=False)
    largest_factors(network, x, labels, Radii(0.02, 0.02, 0.02, 0.02), Grid(4.0, 0.2), ways)
    assert {size for method, size in heard if method != "auto"} == {4 << 30}
    held = resident()
    least = min(size for method, size in heard if method == "auto" and size is not None)
    assert 3 * (least - held) == pytest.approx((4 << 30) - held, rel=0.1)
