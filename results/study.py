"""The networks that the figures compare, and what verification says about them, kept in `runs/` until it is needed."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qverify.console.output import say
from qverify.errors import UsageError
from qverify.runs.folder import read_record
from qverify.runs.given import Given
from qverify.runs.problem import FamilyProblem
from qverify.runs.question import Question
from qverify.runs.start import SolverUsed, Start
from qverify.runs.stored import RUN, record_faults
from qverify.runs.sweep import Axis, Study, SweepDirectory
from qverify.runs.verify import RunDirectory, VerifyWork

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from qverify.analysis.sweeps import SweepRow


CHECKOUT = Path(__file__).resolve().parents[1]
PUBLISHED = "QVERIFY_PUBLISHED"
"""The environment variable with the folder of the published networks; without it they are left out, unless they are in
`models/published`."""


@dataclass(frozen=True)
class Model:
    """One network. `bits`: those it was trained robustly for, None for a normally trained one."""

    name: str
    label: str
    bits: int | None = None
    published: bool = False


NORMAL = Model("mnist_4x256_normal", "normal 4x256")
SMALL = Model("mnist_3x64_normal", "normal 3x64")
ROBUST = tuple(Model(f"mnist_4x256_robust_{bits}bit", f"robust 4x256, {bits} bits", bits) for bits in (6, 8, 10))
CONV = Model("mnist_conv_robust_8bit", "robust convolution, 8 bits", 8)
PUBLISHED_NORMAL = Model("published_normal_4x256", "published normal 4x256", published=True)
PUBLISHED_SMALL = Model("published_normal_3x64", "published normal 3x64", published=True)
PUBLISHED_ROBUST = tuple(
    Model(f"published_robust_4x256_{bits}bit", f"published robust 4x256, {bits} bits", bits, published=True)
    for bits in (8, 10)
)

CONVENTIONS = (("paper", "any"), ("channel", "nearest"))
"""Schemes and roundings: the paper's, and what an integer quantiser that rounds to nearest gets."""


@dataclass(frozen=True, kw_only=True)
class StudyCase:
    """One verification of all samples."""

    model: Model
    bits: int
    scheme: str
    rounding: str
    method: str

    @property
    def convention(self) -> str:
        return f"scheme {self.scheme}, rounding {self.rounding}"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came out of a `StudyCase`, in the order of the columns of data.csv; counts as in report.py.

    `attack` is None if no failing member was looked for. `seconds`: the sum over the samples.
    """

    model: str
    bits: int
    scheme: str
    rounding: str
    method: str
    samples: int
    clean: int
    guaranteed: int
    attack: int | None
    unknown: int
    independent_positions: int
    seconds: float
    timeout: float


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Where the networks and samples are, where results go, and the time limits of the exact step, seconds a sample.

    Normally trained networks have a limit of their own: at 10 bits about every second sample needs the exact step, and
    many of them would use up any limit.
    """

    models: Path = CHECKOUT / "models"
    out: Path = CHECKOUT / "results"
    data: str = "mnist"
    samples: int | None = None
    timeout: float = 120.0
    timeout_normal: float = 5.0
    jobs: int = 0

    @property
    def published(self) -> Path:
        """The folder of the published networks, which may not exist."""
        named = os.environ.get(PUBLISHED)
        return Path(named) if named else self.models / "published"

    def path(self, model: Model) -> Path:
        return (self.published if model.published else self.models) / f"{model.name}.onnx"

    def here(self, models: Iterable[Model]) -> list[Model]:
        """The models without the published ones that are not at hand. Raises UsageError if one of ours is missing."""
        found = [model for model in models if not model.published or self.path(model).exists()]
        if missing := [model.name for model in found if not self.path(model).exists()]:
            raise UsageError(f"{self.models} has no {', '.join(f'{name}.onnx' for name in missing)}; train it first.")
        return found

    def limit(self, model: Model) -> float:
        """The time limit of the exact step of one sample."""
        return self.timeout_normal if model.bits is None else self.timeout

    def given(self, model: Model, **more: Any) -> Given:
        """What a verification of `model` asks."""
        samples = None if self.samples is None else f"0:{self.samples}"
        limit = self.limit(model)
        path = str(self.path(model))
        return Given(model=path, data=self.data, samples=samples, timeout=limit, jobs=self.jobs, **more)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The options that every script of this folder has, named as in `StudySettings`."""
    default = StudySettings()
    parser.add_argument("--samples", type=int, metavar="N", help="the first N samples only [default: all]")
    parser.add_argument("--data", default=default.data, help="the samples, as qverify names them [default: mnist]")
    parser.add_argument("--models", type=Path, default=default.models, metavar="DIR", help="[default: models]")
    parser.add_argument("--out", type=Path, default=default.out, metavar="DIR", help="[default: results]")
    parser.add_argument(
        "--timeout",
        type=float,
        default=default.timeout,
        metavar="S",
        help="seconds a sample, exact step [default: 120]",
    )


def decided(case: StudyCase, settings: StudySettings) -> Result:
    """The result of `case`, from its kept run as far as that goes, also where that had more time a sample.

    Raises KeyboardInterrupt after Ctrl-C.
    """
    given = settings.given(case.model, bits=case.bits, scheme=case.scheme, rounding=case.rounding, method=case.method)
    problem = FamilyProblem.load(given)
    options = replace(problem.options(), attack=case.method not in ("ibp", "bp"))
    question = replace(problem.question(), attack=options.attack)
    name = f"{case.model.name}-{case.bits}bit-{case.scheme}-{case.rounding}-{case.method}"
    folder = _folder(settings, name, question.to_json() | {"timeout": "any"})
    limit = _longer_limit(folder, options.seconds)
    options, question = replace(options, seconds=limit), replace(question, timeout=limit)
    start = Start(started=Start.now(), solver=SolverUsed.of(options), jobs=options.workers)
    say(f"{case.model.label}: {case.bits} bits, {case.convention}, method {case.method}")
    with RunDirectory.start(folder, question, start, resume=True) as directory:
        work = VerifyWork(problem, options, directory)
        work.verify()
    if work.missing:
        raise KeyboardInterrupt
    tally = work.tally
    return Result(
        model=case.model.name,
        bits=case.bits,
        scheme=case.scheme,
        rounding=case.rounding,
        method=case.method,
        samples=tally.samples,
        clean=tally.clean,
        guaranteed=tally.guaranteed,
        attack=tally.attack if options.attack else None,
        unknown=tally.statuses["unknown"],
        independent_positions=tally.independent,
        seconds=round(sum(tally.seconds.values()), 1),
        timeout=math.inf if limit is None else limit,
    )


def swept(models: Sequence[Model], values: Sequence[float], settings: StudySettings) -> list[SweepRow]:
    """The rows of a sweep by IBP, from its kept rows as far as these go. Raises KeyboardInterrupt after Ctrl-C."""
    given = [settings.given(model, method="ibp") for model in models]
    axis = Axis(values=tuple(float(f"{value:g}") for value in values))
    study = Study.load(given, axis)
    question = study.question()
    say(f"sweep by IBP: {len(study.cases)} points, {', '.join(model.label for model in models)}")
    folder = _folder(settings, "sweep", question.to_json())
    with SweepDirectory.start(folder, question, Start(started=Start.now()), True) as kept:
        rows = study.computed(kept)
    if len(rows) < len(study.cases):
        raise KeyboardInterrupt
    return rows


def _folder(settings: StudySettings, name: str, question: dict[str, Any]) -> str:
    """A folder that another question would not share, so that a network trained anew begins anew."""
    fixed = {key: value for key, value in question.items() if key not in ("model", "model_files", "data_source")}
    digest = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:10]
    return str(settings.out / "runs" / f"{name}-{digest}")


def _longer_limit(folder: str, seconds: float | None) -> float | None:
    """The longer time limit, None for none, of `seconds` and of the run in `folder`, if there is one."""
    try:
        kept = Question.from_json(read_record(Path(folder) / RUN, record_faults)).timeout
    except (FileNotFoundError, ValueError):  # a damaged one is refused when the run goes on
        return seconds
    return None if kept is None or seconds is None else max(kept, seconds)
