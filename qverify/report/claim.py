"""What a case proves, as one sentence that claims no more; and whether it is enough for whoever requires a share.

Numbers are rounded towards less: radii and shares downwards.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from typing import TYPE_CHECKING

from qverify.choices import QUANTISER
from qverify.files.names import file_name
from qverify.report.numbers import outward, trust
from qverify.runs.gate import below, share
from qverify.runs.given import option
from qverify.verification.row import STATUSES
from qverify.verification.verdict import SEMANTICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from qverify.report.table import Line
    from qverify.runs.question import Question
    from qverify.runs.reading import StoredCase
    from qverify.runs.start import Start
    from qverify.verification.row import Row

_DIGITS = 4


def claim(line: Line) -> str:
    """One sentence: model, samples, family, result, what it rests on, when, by what, on which bytes, and what not."""
    case, question = line.case, line.case.question
    start, stop = question.samples
    asked, verified = case.asked, line.tally.guaranteed
    decided = "" if line.tally.samples == asked else f", {line.tally.samples} of them decided"
    family = family_words(question)
    exact = line.tally.decided["exact", "verified"]
    rests = f" ({exact} of them by the exact step, {trust(question, case.run.solvers)})" if exact else ""
    return case.bare(
        f"Of the {asked} {_what(question)} {start}:{stop} of {case.data}{_all(question)}{decided}, {verified}"
        f" ({share(verified, asked)}) are proved {_proved(question)} every network of the family"
        f" of {file_name(question.model)} [{family}]{rests}; {_origin(case)}; command: {command(case)};"
        f" {_hashes(case)}; not covered: {_not_covered(asked - verified, _others(line), _what(question))}."
    )


def _what(question: Question) -> str:
    """Samples or boxes."""
    return "boxes of inputs" if question.wanted is not None and question.wanted.get("of") == "boxes" else "samples"


def _proved(question: Question) -> str:
    """What is proved of a sample that is verified, up to the networks that it holds for."""
    if question.wanted is None:
        return "to be classified as they are labelled by"
    every = " at every input of the box" if _what(question) != "samples" else ""
    return f'to have the property "{question.wanted.get("words", "not recorded")}"{every} in'


def _all(question: Question) -> str:
    return "" if question.data_samples is None else f", which has {question.data_samples}"


def family_words(question: Question) -> str:
    """The family in words: what a quantiser is taken to do, and no more than the radii that follow."""
    stated = question.radii
    return f"{stated.convention}; radii {_radii(stated.largest)}{_clip(question)}"


def _radii(largest: Mapping[str, float]) -> str:
    """The largest radius of each kind, rounded downwards."""
    ends = (f"{kind} {outward(radius, _DIGITS, up=False)}" for kind, radius in largest.items())
    return f"at most {', '.join(ends)}"


def _clip(question: Question) -> str:
    if question.clip_input is None:
        return ""
    low, high = question.clip_input
    return f"; quantised inputs within {low:g} to {high:g}"


def _origin(case: StoredCase) -> str:
    """The dates of the starts, and the versions that asked."""
    return origin([one.question for one in case.sources], case.run.starts)


def origin(questions: Sequence[Question], starts: Sequence[Start]) -> str:
    """By which versions of qverify questions were asked, and when runs that answer them were started."""
    versions = dict.fromkeys(one.qverify for one in questions if one.qverify)
    days = sorted({start.started[:10] for start in starts if start.started})
    when = f" on {days[0]}" if len(days) == 1 else f" from {days[0]} to {days[-1]}" if days else ""
    semantics = questions[0].semantics
    older = f" in rows of semantics {semantics}, which may mean something else than those of today"
    older = "" if semantics == SEMANTICS else older
    return f"decided by qverify {' and '.join(versions) or 'of an unknown version'}{when}{older}"


def _hashes(case: StoredCase) -> str:
    question = case.question
    hashes = {"model": question.model_sha256, "data": question.data_sha256, "rows": rows_sha256(case.rows)}
    return "sha256 of " + ", ".join(f"{name} {value or 'not recorded'}" for name, value in hashes.items())


def _others(line: Line) -> str:
    """What became of the samples that are not verified, in words."""
    counts = {status: line.tally.statuses[status] for status in STATUSES if status != "verified"}
    counts["not decided"] = line.case.asked - line.tally.samples
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def _not_covered(left: int, others: str, what: str) -> str:
    one = {"samples": "sample"}.get(what, "box of inputs")
    others = "" if not left else f"the other {one if left == 1 else f'{left} {what}'} ({others}), "
    return f"{others}inputs beyond these radii around the {what}, and quantisers that leave these radii"


def rows_sha256(rows: Iterable[Row]) -> str:
    """The sha256 of the rows that count, in the order of their indices, each as its line of JSON."""
    digest = hashlib.sha256()
    for row in sorted(rows, key=lambda row: row.index):
        digest.update(json.dumps(row.to_json(), allow_nan=False).encode() + b"\n")
    return digest.hexdigest()


def command(case: StoredCase) -> str:
    """The command that asks the same, whichever command asked it; files by their names alone."""
    question, stated = case.question, case.question.radii
    start, stop = question.samples
    words, wanted = (
        ["qverify", "verify", file_name(question.model), "--data", file_name(question.data)],
        question.wanted,
    )
    if wanted is not None:
        words[1], own = "property", file_name(wanted.get("file", "FILE.toml"))
        words[3:] = ["--property", own] if own == file_name(question.data) else [*words[3:], "--property", own]
    words += ["--samples", f"{start}:{stop}"]
    calibration = stated.calibration or "all samples"
    given: list[tuple[str, object]] = [("output", question.output), ("input_scale", question.input_scale)]
    given += [("bits", stated.bits)]
    given += [(name, getattr(stated, name)) for name in QUANTISER]
    given += [("calibration", None if calibration.startswith("all ") else file_name(calibration))]
    given += [("radii", None if stated.file is None else file_name(stated.file))]
    for name, value in given:
        words += [] if value is None else [option(name), str(value)]
    if question.clip_input is not None:
        words += ["--clip-input", *(f"{end:g}" for end in question.clip_input)]
    for name, usually in (("method", "auto"), ("formulation", "relational"), ("solver", "auto")):
        words += [] if getattr(question, name) in (None, usually) else [option(name), str(getattr(question, name))]
    if question.timeout != _USUAL_TIMEOUT:
        words += ["--timeout", "inf" if question.timeout is None else f"{question.timeout:g}"]
    return shlex.join(words)


_USUAL_TIMEOUT = 300.0


# -- what is required ------------------------------------------------------------------------------


def required(lines: Sequence[Line], names: Sequence[str], percent: float) -> tuple[bool, list[str]]:
    """Whether on every line `percent` % of the samples asked about are verified, and a sentence a line on that."""
    said, failing = [], 0
    for line, name in zip(lines, names, strict=True):
        asked, verified = line.case.asked, line.tally.guaranteed
        short = below(verified, asked, percent)
        failing += short
        word, than = ("FAILED", "less than") if short else ("passed", "at least")
        said.append(
            f"{word}: {name}: {share(verified, asked)} ({verified} of {asked} samples) guaranteed, {than} the"
            f" {percent:g} % required."
        )
    return not failing, said
