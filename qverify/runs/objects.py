"""The objects that `discrepancy`, `property`, `compare`, `covers` and `runtimes` print with `--json`, read strictly.

What contradicts itself is refused: rows with other samples or outputs than the object says, ends that cross, counts and
statuses that do not follow from the rows (formats.md, section 12). Every reader raises ValueError, which says in a few
words what is wrong.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, get_args

from qverify.choices import RUNTIME_RULES, Rounding
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
from qverify.runs.found import (
    About,
    Comparison,
    Coverage,
    Discrepancies,
    Named,
    PartFound,
    Properties,
    Runtimes,
    SampleFound,
    TensorFound,
)
from qverify.runs.question import Question

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_CROSSED = 1e-6
"""By how much, relative to its size, an end that is met may lie beyond the one proved: both are rounded."""


AnyObject = Discrepancies | Properties | Comparison | Coverage | Runtimes


def object_of(found: dict[str, Any]) -> AnyObject:
    """What an object of `--json` says, told by its keys. Raises ValueError."""
    for keys, read in _KINDS:
        if found.keys() >= keys:
            return read(found)
    raise ValueError("it is no object of discrepancy, property, compare, covers or runtimes")


# -- the objects ----------------------------------------------------------------------------------

_ENDS = ("lower", "upper", "attained_lower", "attained_upper")
_NUMBERS = every(number)
_INDEX: dict[str, Fits] = {"index": whole}
_PROVED: dict[str, Fits] = {"lower": _NUMBERS, "upper": _NUMBERS}
_MET: dict[str, Fits] = {"attained_lower": _NUMBERS, "attained_upper": _NUMBERS}
_NAMED: dict[str, Fits] = {"model": text, "model_sha256": text}
_CLASS: dict[str, Fits] = {"predicted": whole}
_ABOUT: dict[str, Fits] = {
    **dict.fromkeys(("qverify", "data", "data_sha256"), text),
    "sample_range": ascending(whole),
    "input_scale": optional(positive),
}


def _discrepancies(found: dict[str, Any]) -> Discrepancies:
    table = _INDEX | _PROVED | {name: optional(_NUMBERS) for name in _MET} | {"complete": truth}
    question = Question.of_summary(found)
    rows = _rows(found, question.samples, table, {"detail": text})
    solver = found.get("solver")
    named = () if solver is None else tuple(_checked(solver, {"name": text, "version": text}).values())
    return Discrepancies(question=question, solvers=(" ".join(named),) if named else (), rows=rows)


def _properties(found: dict[str, Any]) -> Properties:
    table = _INDEX | {"label": whole, "status": word("holds", "violated", "unknown")}
    question, words = Question.of_summary(found), _checked(found, {"property": text})["property"]
    rows = _rows(found, question.samples, table, {"detail": text})
    _counted(found, rows, ("holds", "violated", "unknown"))
    return Properties(question=question, property=words, rows=rows)


def _comparison(found: dict[str, Any]) -> Comparison:
    own = {
        "input": word("rounded", "exact"),
        "clip_input": optional(ascending(number)),
        "epsilon": optional(at_least_0),
        **dict.fromkeys(("float_right", "file_right", "same_class"), optional(whole)),
    }
    named = _checked(found, own)
    about = _about(found)
    within = {} if named["epsilon"] is None else {"status": word("within", "exceeds", "unknown")}
    rows = _rows(found, about.sample_range, _INDEX | _PROVED | _MET | within)
    epsilon, asked = named["epsilon"], about.sample_range[1] - about.sample_range[0]
    if epsilon is not None:
        for row in rows:
            status = "within" if row.worst <= epsilon else "exceeds" if row.met > epsilon else "unknown"
            if row.status != status:
                raise ValueError(f"sample {row.index} is {row.status}, but its gap says {status}")
        _counted(found, rows, ("within", "exceeds", "unknown"))
    counts = {name: named[name] for name in ("float_right", "file_right", "same_class")}
    if any(count is not None and count > asked for count in counts.values()):
        raise ValueError("more samples are right, or alike, than there are")
    tensors = {"name": text, "float": text, "snr_db": optional(number), "largest": at_least_0}
    return Comparison(
        about=about,
        trained=_named(found, "float"),
        file=_named(found, "file"),
        **_checked(found, {"rounding": word(*get_args(Rounding)), "input_radius": at_least_0}),
        on_grid=named["input"] == "exact",
        clip=_pair(named, "clip_input"),
        epsilon=epsilon,
        **counts,
        tensors=tuple(TensorFound(**_renamed(_checked(one, tensors))) for one in _list(found, "tensors")),
        rows=rows,
    )


def _coverage(found: dict[str, Any]) -> Coverage:
    table = {
        **dict.fromkeys(("kind", "float", "file", "detail"), text),
        "covered": truth,
        "share": optional(at_least_0),
    }
    parts = tuple(PartFound(**_renamed(_checked(one, table))) for one in _list(found, "parts"))
    if not parts or _checked(found, {"covered": truth})["covered"] is not all(part.covered for part in parts):
        raise ValueError("covered is not what its parts say")
    for part in parts:
        if part.covered and part.share is not None and part.share > 1:
            raise ValueError(f"{part.kind} of {part.trained or part.file} is covered, but beyond its radius")
    own = _checked(found, {"convention": text, "rule": word(*get_args(Rounding))})
    version = found.get("qverify", "")
    return Coverage(
        qverify=version if text(version) else "",
        trained=_named(found, "float"),
        file=_named(found, "file"),
        **own,
        parts=parts,
    )


def _runtimes(found: dict[str, Any]) -> Runtimes:
    statuses = ("same", "differs", "unknown")
    own = _checked(found, {"rules": mapping(text, *RUNTIME_RULES), "timeout": optional(positive)})
    about = _about(found)
    table = _INDEX | _PROVED | _MET | {"label": whole, "predicted": whole, "status": word(*statuses)}
    table["witness"] = lambda value: value is None or isinstance(value, list)
    rows = _rows(found, about.sample_range, table)
    for row in rows:
        if (row.status == "differs") is not (len(set(row.witness)) == 2):
            raise ValueError(f"sample {row.index} is {row.status}, but has not the witness of that")
    _counted(found, rows, statuses)
    return Runtimes(about=about, file=Named(**_checked(found, _NAMED)), **own, rows=rows)


_KINDS: Sequence[tuple[set[str], Callable[[dict[str, Any]], AnyObject]]] = (
    ({"float", "file", "parts", "covered"}, _coverage),
    ({"float", "file", "tensors", "rows"}, _comparison),
    ({"rules", "same", "differs", "rows"}, _runtimes),
    ({"property", "holds", "violated", "rows"}, _properties),
    ({"complete", "largest", "radii", "rows"}, _discrepancies),
)
"""Keys that an object has, and the reader of it; the first that fits."""


# -- their parts ----------------------------------------------------------------------------------


def _about(found: dict[str, Any]) -> About:
    own = _checked(found, _ABOUT)
    return About(**own | {"sample_range": (own["sample_range"][0], own["sample_range"][1])})


def _named(found: dict[str, Any], key: str) -> Named:
    return Named(**_checked(found[key], _NAMED))


def _pair(own: dict[str, Any], key: str) -> tuple[float, float] | None:
    return None if own[key] is None else (own[key][0], own[key][1])


def _renamed(own: dict[str, Any]) -> dict[str, Any]:
    """`float`, the name of a layer of the network, under a name that a field may have."""
    return {"trained" if name == "float" else name: value for name, value in own.items()}


def _list(found: dict[str, Any], key: str) -> list[dict[str, Any]]:
    own = found[key]
    if not isinstance(own, list) or not all(isinstance(one, dict) for one in own):
        raise ValueError(f"{key} is senseless")
    return own


def _checked(found: Any, table: Mapping[str, Fits]) -> dict[str, Any]:
    """The values under the keys of `table`, of what should be an object."""
    if not isinstance(found, dict):
        raise ValueError("something that should be an object is none")
    if missing := [key for key in table if key not in found]:
        raise ValueError(f"{missing[0]} is missing")
    if wrong := faults(found, table):
        raise ValueError(f"{wrong[0]} is senseless")
    return {key: found[key] for key in table}


def _rows(
    found: dict[str, Any], samples: tuple[int, int], table: dict[str, Fits], more: Mapping[str, Fits] | None = None
) -> tuple[SampleFound, ...]:
    """The rows in the order of their indices, each about another one of the samples."""
    rows = [_row(one, table, more or {}) for one in _list(found, "rows")]
    indices = [row.index for row in rows]
    if len(set(indices)) < len(rows) or any(not samples[0] <= index < samples[1] for index in indices):
        raise ValueError("rows are about the same sample, or about others than those asked for")
    if _checked(found, {"samples": whole})["samples"] != len(rows):
        raise ValueError("samples is not the number of rows")
    if len({len(row.lower) for row in rows}) > 1:
        raise ValueError("rows differ in their outputs")
    return tuple(sorted(rows, key=lambda row: row.index))


def _row(line: dict[str, Any], table: Mapping[str, Fits], more: Mapping[str, Fits]) -> SampleFound:
    own = _checked(line, table) | _checked(line, {key: fits for key, fits in more.items() if key in line})
    own |= {name: tuple(own[name]) for name in _ENDS if own.get(name) is not None}
    if "witness" in own:
        own["witness"] = tuple(only for one in own["witness"] or () for only in _checked(one, _CLASS).values())
    row = SampleFound(**own)
    ends = [getattr(row, name) for name in _ENDS if getattr(row, name) is not None]
    if "lower" in own and (not row.lower or len({len(one) for one in ends}) > 1):
        raise ValueError(f"sample {row.index} differs in the outputs of its ends")
    lower, upper = row.lower, row.upper
    crossed = any(low > high for low, high in zip(lower, upper, strict=True))
    slack = [_CROSSED * (1.0 + abs(low) + abs(high)) for low, high in zip(lower, upper, strict=True)]
    for met in (row.attained_lower, row.attained_upper):
        if met is not None:
            crossed |= any(
                not low - own <= value <= high + own
                for low, value, high, own in zip(lower, met, upper, slack, strict=True)
            )
    if crossed:
        raise ValueError(f"the ends of sample {row.index} cross")
    return row


def _counted(found: dict[str, Any], rows: Sequence[SampleFound], statuses: Sequence[str]) -> None:
    """Compare the counts of an object with its rows."""
    counts = Counter(row.status for row in rows)
    if any(found.get(status) != counts[status] for status in statuses):
        raise ValueError("its counts are not those of its rows")
