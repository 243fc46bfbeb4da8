"""The tally of rows: how many samples have which status, decided by which stage, in what time.

Accuracies (mathematics.md, section 1), relative to the samples decided: *clean*, the network itself is right;
*guaranteed*, every member of the family is; *attack*, no failing member is known. guaranteed <= attack <= clean.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qverify.choices import PROVING, STAGES
from qverify.verification.row import STATUSES, Row, Status

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass
class Tally:
    """Counts over rows of `samples.jsonl`: by status, and by the stage that decided.

    `independent`: positions of convolutions were taken as independent; `limited`: the time limit ended the sample;
    `reasons`: why samples are unknown, in the words of their rows.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    decided: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    independent: int = 0
    limited: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @staticmethod
    def of(rows: Iterable[Row]) -> Tally:
        """The tally of some rows."""
        tally = Tally()
        for row in rows:
            tally.add(row)
        return tally

    def add(self, row: Row) -> None:
        """Take one row in."""
        status = row.status.value
        self.statuses[status] += 1
        self.decided[row.method, status] += 1
        self.seconds[row.method] += row.seconds
        self.independent += row.scope not in ("", "exact")
        self.limited += row.limit is not None
        if row.status is Status.UNKNOWN:
            self.reasons[row.detail] += 1

    @property
    def samples(self) -> int:
        return sum(self.statuses.values())

    @property
    def clean(self) -> int:
        return self.samples - self.statuses["misclassified"]

    @property
    def ibp(self) -> int:
        """Verified by interval bounds."""
        return self.decided["ibp", "verified"]

    @property
    def bp(self) -> int:
        """Verified by bounds alone."""
        return sum(self.decided[stage, "verified"] for stage in PROVING)

    @property
    def guaranteed(self) -> int:
        return self.statuses["verified"]

    @property
    def attack(self) -> int:
        return self.statuses["verified"] + self.statuses["unknown"]

    def stages(self) -> list[tuple[str, Counter[str], float]]:
        """The stages that decided something, in order: name, counts by status, seconds."""
        known = [name for name in STAGES if name in self.seconds]
        names = known + sorted(set(self.seconds) - set(known))
        return [(n, Counter({s: self.decided[n, s] for s in STATUSES}), float(self.seconds[n])) for n in names]

    def as_dict(self) -> dict[str, Any]:
        """The part of the `--json` object that comes from the rows; accuracies are null without samples."""
        total = self.samples
        accuracies = {
            f"{name}_accuracy": getattr(self, name) / total if total else None
            for name in ("clean", "guaranteed", "attack")
        }
        counts = {status: self.statuses[status] for status in STATUSES}
        by_method = {
            name: {**{s: n for s, n in found.items() if n}, "seconds": round(seconds, 6)}
            for name, found, seconds in self.stages()
        }
        return {
            "samples": total,
            **accuracies,
            **counts,
            "by_method": by_method,
            "unknown_reasons": dict(self.reasons.most_common()),
            "independent_positions": self.independent,
        }

    def lines(self) -> list[str]:
        """Where a run stands, in a few words: how many of each status, and which stages decided how many."""
        counts = ", ".join(f"{self.statuses[status]} {status}" for status in STATUSES)
        stages = ", ".join(f"{name} {sum(found.values())}" for name, found, _ in self.stages())
        return [counts, f"decided by {stages}"] if stages else [counts]
