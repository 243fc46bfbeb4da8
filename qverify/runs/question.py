"""The question of a run, as run.json keeps it: what is asked of a network about which samples (formats.md, section 1).

A run goes on only under the question that it began with, and a row of a batch counts for every question with the same
`Question.identity`. Which fields may differ from one start to the next is said where each kind of run is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from qverify.choices import (
    ACTIVATIONS,
    FORMULATIONS,
    INPUTS,
    KERNELS,
    KINDS,
    POINTS,
    QUANTISER,
    RANGES,
    SOLVER_CHOICES,
    VERIFY_METHODS,
    Batchnorm,
    Rounding,
    Scheme,
)
from qverify.files.places import PLACES
from qverify.files.strict_json import (
    Fits,
    ascending,
    at_least_0,
    every,
    faults,
    mapping,
    number,
    optional,
    positive,
    text,
    truth,
    whole,
    word,
)
from qverify.runs.quantiser_words import QuantiserWords
from qverify.text.brief import Brief
from qverify.verification.verdict import SEMANTICS

PROPERTY = "the output of the label is the largest"

MAY_DIFFER = (
    "model",
    "data_source",
    "data_samples",
    "radii.file",
    "radii.convention",
    "radii.largest",
    PLACES,
    "runs",
)
"""Keys of run.json and radius.json that do not belong to the question: files may move (their hashes count), a run may
go on elsewhere, and numbers computed on another machine may differ in the last digit."""
_NULL = ("input_scale", "clip_input", "timeout")
"""Fields that stand in a question also where they are None."""


@dataclass(frozen=True, kw_only=True, repr=False)
class StatedRadii(Brief, QuantiserWords):
    """The radii of a question, as they were stated (formats.md, section 1.1).

    Either a scheme (`bits`, and what of `choices.QUANTISER` was said; `kernel`, `batchnorm` and `calibration` where
    ranges of activations count), or the `file` with its `sha256`, or the `rounding` of the runtimes of a quantised
    model; `convention` and `largest` say for people what that is. A sweep has neither of the last two: its points are
    `bits`, or `values`, and its curves `parts`.
    """

    convention: str = ""
    largest: Mapping[str, float] = field(default_factory=dict)
    file: str | None = None
    sha256: str | None = None
    bits: int | tuple[int, ...] | None = None
    values: tuple[float, ...] | None = None
    scheme: str | None = None
    rounding: str | None = None
    parts: tuple[str, ...] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    """Keys that this version does not know."""

    def to_json(self) -> dict[str, Any]:
        """The object under `radii`."""
        left_out = () if self.convention else ("convention", "largest")
        return _object(self, left_out)

    @staticmethod
    def from_json(stated: Mapping[str, Any]) -> StatedRadii:
        """The radii that a question states, which was checked."""
        return StatedRadii(**_fields(StatedRadii, stated))


@dataclass(frozen=True, kw_only=True, repr=False)
class Question(Brief):
    """The question of a run (formats.md, section 1); of which kind it is, verify, batch, sweep or radius, says what is
    there. A field that is None, or empty, is not in the file, except those of which null means something:
    `input_scale`, `clip_input`, `timeout`.
    """

    format: int | None = None
    models: Mapping[str, Mapping[str, str]] | None = None
    model_files: tuple[str, ...] | None = None
    qverify: str | None = None
    semantics: int | None = None
    model: str = ""
    output: str | None = None
    model_sha256: str | None = None
    network_sha256: str | None = None
    data: str
    data_source: str | None = None
    data_sha256: str | None = None
    data_samples: int | None = None
    input_scale: float | None = None
    samples: tuple[int, int]
    clip_input: tuple[float, float] | None = None
    method: str
    formulation: str
    solver: str | None = None
    timeout: float | None = None
    tolerance: float
    radii: StatedRadii
    witnesses: bool | None = None
    arrays_sha256: str | None = None
    max_factor: float | None = None
    precision: float | None = None
    attack: bool | None = None
    wanted: Mapping[str, str] | None = None
    places: Mapping[str, Any] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    """Keys that this version does not know."""

    def to_json(self) -> dict[str, Any]:
        """The object that is kept, its keys in the order of the fields."""
        return _object(self, () if self.model else ("model",))

    @staticmethod
    def from_json(asked: Any) -> Question:
        """The question that an object asks. Raises ValueError, which says in a few words what is wrong."""
        swept = isinstance(asked, dict) and "models" in asked
        if wrong := question_faults(asked, SWEPT, AXIS) if swept else question_faults(asked, REPORTED):
            raise ValueError(f"{', '.join(wrong)} missing or senseless")
        own = _fields(Question, asked) | {"radii": StatedRadii.from_json(asked["radii"])}
        places = own.get(PLACES)
        return Question(**own | {PLACES: places if isinstance(places, dict) else None})

    @staticmethod
    def of_summary(found: Mapping[str, Any]) -> Question:
        """The question in the `--json` object of a command, without its solver. Raises ValueError, as `from_json`."""
        names = [one.name for one in fields(Question) if one.name not in ("more", "samples", "solver")]
        asked = {name: found[name] for name in names if name in found}
        return Question.from_json(asked | {"samples": found.get("sample_range")})

    def summary(self) -> dict[str, Any]:
        """The question in the `--json` object of a command: there `samples` is how many, `sample_range` which."""
        found = {name: value for name, value in self.to_json().items() if name != "samples"}
        return found | {"sample_range": list(self.samples), "convention": self.radii.convention}

    def identity(self) -> list[Any]:
        """The values that two questions share if they ask the same of a sample, whichever samples they are about.

        In this order: SEMANTICS; sha256 of the network's layers and numbers; sha256 of the samples as arrays, since
        one file may be read in several ways; the radii as stated (bits, scheme and rounding, kernel and batchnorm, or
        the sha256 of the file; what activations were calibrated on); the range inputs are clipped to; the property;
        method, formulation and solver; the tolerance. Not the time limit: what was decided is so within any, and a row
        says which limit ended it.
        """
        radii = {name: getattr(self.radii, name) for name in _STATED}
        radii |= {name: value for name in _MORE_STATED if (value := getattr(self.radii, name)) is not None}
        method = [self.method, self.formulation, self.solver]
        clip = self.clip_input and list(self.clip_input)
        wanted = PROPERTY if self.wanted is None else [self.wanted.get(name) for name in ("statement", "of")]
        return [SEMANTICS, self.network_sha256, self.arrays_sha256, radii, clip, wanted, method, self.tolerance]


_STATED = ("bits", "scheme", "rounding", "kernel", "batchnorm", "sha256", "calibration")
_MORE_STATED = tuple(name for name in QUANTISER if name not in _STATED)
"""What counts where it is said."""


def case_id(name: str, identity: list[Any]) -> str:
    """A name for people, and enough of a hash to tell its question from others."""
    return f"{name}-{_sha256(identity)[:10]}"


def sample_key(identity: list[Any], index: int) -> str:
    """The key of a row: the sha256 of `identity` and the sample's index in the data set, as JSON."""
    return _sha256([*identity, index])


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def widened(kept: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The entries in which the question `now` asks for more than the one `kept`, and for all that that one asked.

    Both are objects as they are kept: more samples around those before, a longer time limit.
    """
    limit, samples, (start, stop) = kept.get("timeout"), kept.get("samples"), now["samples"]
    longer = limit is not None and (now["timeout"] is None or now["timeout"] > limit)
    more = samples is not None and start <= samples[0] and samples[1] <= stop
    wider = [*["timeout"] * longer, *["samples"] * more]
    return {key: now[key] for key in wider}


# -- objects and fields ---------------------------------------------------------------------------


_BEHIND = frozenset(one.name for one in fields(QuantiserWords)) | {"parts"}


def _object(value: Question | StatedRadii, left_out: Collection[str]) -> dict[str, Any]:
    """The object of a dataclass, in the order of its fields, what says more of a quantiser behind what it says more
    of; what is None is left out, but for `_NULL`."""
    names = [one.name for one in fields(value) if one.name not in ("more", *left_out)]
    found = {name: getattr(value, name) for name in sorted(names, key=_BEHIND.__contains__)}
    kept = {name: own for name, own in found.items() if own is not None or name in _NULL}
    return {name: _plain(own) for name, own in kept.items()} | dict(value.more)


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, StatedRadii):
        return value.to_json()
    if isinstance(value, Mapping):
        return {name: _plain(own) for name, own in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _fields(of: type[Question] | type[StatedRadii], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that an object has, lists as tuples; other keys under `more`."""
    names = {one.name for one in fields(of)} - {"more"}
    own = {name: tuple(value) if isinstance(value, list) else value for name, value in asked.items() if name in names}
    return own | {"more": {name: value for name, value in asked.items() if name not in names}}


# -- what may stand in an object ------------------------------------------------------------------

_ASKED: dict[str, Fits] = {
    "model": text,
    "output": text,
    "data": text,
    "samples": ascending(whole),
    "input_scale": optional(positive),
    "method": word(*VERIFY_METHODS),
    "formulation": word(*FORMULATIONS),
    "tolerance": at_least_0,
    "clip_input": optional(ascending(number)),
    "timeout": optional(positive),
    "solver": word(*SOLVER_CHOICES),
    "format": whole,
    "semantics": whole,
    **dict.fromkeys(("qverify", "model_sha256", "network_sha256", "data_source", "data_sha256", "arrays_sha256"), text),
    **dict.fromkeys(("witnesses", "attack"), truth),
    "data_samples": whole,
    "max_factor": positive,
    "precision": positive,
    "wanted": mapping(text),
    "models": mapping(mapping(text)),
    "model_files": every(text),
}
RADII: dict[str, Fits] = {
    "convention": text,
    "largest": mapping(at_least_0, *KINDS),
    "bits": whole,
    "scheme": word(*get_args(Scheme)),
    "rounding": word(*get_args(Rounding)),
    "kernel": word(*KERNELS),
    "batchnorm": word(*get_args(Batchnorm)),
    **dict.fromkeys(("weight_bits", "activation_bits", "input_bits", "bias_bits"), whole),
    "points": word(*POINTS),
    "input": word(*INPUTS),
    "activations": word(*ACTIVATIONS),
    "ranges": word(*RANGES),
    **dict.fromkeys(("calibration", "file", "sha256"), text),
}
AXIS = RADII | {"bits": every(whole), "values": every(at_least_0), "parts": every(text)}
"""The radii of a sweep."""

REPORTED = ("model", "data", "samples", "method", "formulation", "tolerance", "radii.convention", "radii.largest")
"""What the question of a verification has, whichever version asked it."""
SWEPT = ("models", "data", "samples", "method", "formulation", "tolerance", "radii.parts")
"""What that of a sweep has."""


def question_faults(asked: Any, needed: Collection[str] = (), radii: Mapping[str, Fits] = RADII) -> list[str]:
    """The keys of a question that are senseless, and those `needed` that are missing."""
    question: dict[str, Any] = asked if isinstance(asked, dict) else {}
    stated = question.get("radii", {})
    wrong = faults(question, _ASKED, needed)
    wrong += [f"radii.{key}" for key in faults(stated, radii, [name.removeprefix("radii.") for name in needed])]
    return wrong if isinstance(stated, dict) or len(wrong) else ["radii"]
