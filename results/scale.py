"""Measures and checks `qverify batch` and `qverify report` at scale: scale/data.csv and a page of text.

Four parts: the speed on all test images, runs that are killed, runs on a Dask cluster, and the page in a browser.
Every run starts from an empty folder in `runs/`. What a part measured is kept there, so that with `--only` the page
still has the other parts, as long as networks, samples, seed and the like are the same.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from typing import TYPE_CHECKING, Any

import scale_browser
import scale_checks
import scale_page
from scale_runs import ScaleBench
from study import StudySettings, add_settings

from qverify.console.output import say
from qverify.errors import QVerifyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PARTS: dict[str, Callable[[ScaleBench], dict[str, Any]]] = {
    "speed": scale_checks.speed,
    "kills": scale_checks.kills,
    "dask": scale_checks.dask,
    "page": scale_browser.page,
}
FOLDER = "scale"


def main() -> int:
    """Measure the parts asked for and write the folder; the exit status."""
    given = _parser().parse_args()
    try:
        for name in ("samples", "kills"):
            if getattr(given, name) is not None and getattr(given, name) < 1:
                raise UsageError(f"--{name} takes a number of at least 1.")
        settings = StudySettings(
            models=given.models, out=given.out, data=given.data, samples=given.samples, timeout=given.timeout
        )
        bench = ScaleBench(settings, given.seed, given.kills)
        for part in given.only or PARTS:
            say(f"part {part}")
            measured = PARTS[part](bench)
            (bench.folder / f"{part}.json").write_text(json.dumps(measured, indent=1))
        say(f"the page is in {_written(bench)}")
    except QVerifyError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted; the parts that were measured are kept, begin again with --only for the others.")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="this part only [default: all]")
    add_settings(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="for the moments of kills [default: 0]")
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="how many [default: 10]")
    return parser


def _written(bench: ScaleBench) -> Path:
    """Write data.csv and the page from what is kept of all parts."""
    found = {}
    for part in PARTS:
        file = bench.folder / f"{part}.json"
        if file.exists():
            found[part] = json.loads(file.read_text())
    folder = bench.settings.out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("part", "quantity", "value"))
    writer.writerows((part, name, value) for part, measured in found.items() for name, value in _flat(measured))
    (folder / "data.csv").write_text(text.getvalue())
    (folder / "README.md").write_text(scale_page.text(bench, found))
    return folder


def _flat(measured: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values; places in lists count from 1."""
    if isinstance(measured, (dict, list)):
        pairs = measured.items() if isinstance(measured, dict) else enumerate(measured, start=1)
        for name, value in pairs:
            yield from _flat(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, round(measured, 6) if isinstance(measured, float) else measured


if __name__ == "__main__":
    sys.exit(main())
