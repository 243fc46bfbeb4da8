"""Runs over parts of one data set, added up: cases that ask the same about samples 0:20 and 20:40 are one case.

They ask the same if model, data, family, method and limits are the same, by hashes where there are files. Where two
ranges overlap, each sample counts once, and both runs must have the same verdict on it. Ranges with a gap between them
stay apart, and so do runs that were asked about the very same samples: those are there to be compared.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from qverify.errors import UsageError
from qverify.files.names import file_name
from qverify.runs.reading import StoredCase, StoredRun, not_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qverify.runs.question import Question
    from qverify.verification.row import Row


def added_up(cases: Sequence[StoredCase]) -> list[StoredCase]:
    """The cases, those that are parts of one added up, in the order in which the first of each comes.

    Raises UsageError where two runs have different verdicts on the same sample.
    """
    groups: dict[str, list[StoredCase]] = {}
    for number, case in enumerate(cases):
        groups.setdefault(_identity(case.question) or str(number), []).append(case)
    found = [whole for group in groups.values() for whole in _chains(group)]
    place = {id(case): number for number, case in enumerate(cases)}
    return sorted(found, key=lambda case: min(place[id(one)] for one in case.sources))


def _identity(question: Question) -> str:
    """What two questions share if they differ by their samples alone; empty where an old run does not say enough."""
    hashes = (question.model_sha256, question.network_sha256, question.data_sha256)
    if None in hashes:
        return ""
    _, network, _, *rest = question.identity()
    names = [file_name(question.model), file_name(question.data)]
    asked = [question.semantics, network, *hashes, *names, question.input_scale, *rest, question.timeout]
    return json.dumps(asked, sort_keys=True)


def _chains(group: list[StoredCase]) -> list[StoredCase]:
    """The cases of one question, those whose ranges touch or overlap added up."""
    if len({case.question.samples for case in group}) == 1:
        return group
    chains: list[list[StoredCase]] = []
    end = 0
    for case in sorted(group, key=lambda case: case.question.samples):
        start, stop = case.question.samples
        if chains and start <= end:
            chains[-1].append(case)
        else:
            chains.append([case])
        end = max(end, stop)
    return [chain[0] if len(chain) == 1 else _sum(chain) for chain in chains]


def _answer(row: Row) -> str:
    return f"{row.status.value} with label {row.label}"


def _sum(parts: list[StoredCase]) -> StoredCase:
    """One case of several whose ranges have no gap between them."""
    rows: dict[int, tuple[Row, StoredCase]] = {}
    twice = 0
    for part in parts:
        for row in part.rows:
            before, other = rows.setdefault(row.index, (row, part))
            twice += other is not part
            if before.status is not row.status or before.label != row.label:
                raise UsageError(
                    f"{other.title} and {part.title} both have sample {row.index}, {_answer(before)} and"
                    f" {_answer(row)}; report on one of them, or on ranges that do not overlap."
                )
    first = parts[0]
    samples = (first.question.samples[0], max(part.question.samples[1] for part in parts))
    title = " + ".join(part.title for part in parts)
    said = f"{title}: added up, samples {samples[0]}:{samples[1]} of one question"
    said += f"; {twice} that two of them have count once." if twice else "."
    own = {note for part in parts for note in not_all(part.title, len(part.rows), part.asked)}  # true of parts alone
    kept = [note for part in parts for note in part.notes if note not in own]
    run = StoredRun(
        first.run.folder,
        " + ".join(dict.fromkeys(part.run.name for part in parts)),
        [start for part in parts for start in part.run.starts],
    )
    return StoredCase(
        run=run,
        name=first.name if len({part.name for part in parts}) == 1 else "",
        title=title,
        question=replace(first.question, samples=samples),
        rows=[rows[index][0] for index in sorted(rows)],
        notes=tuple(dict.fromkeys([said, *kept, *not_all(title, len(rows), samples[1] - samples[0])])),
        parts=tuple(parts),
    )
