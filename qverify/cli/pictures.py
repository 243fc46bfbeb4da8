"""Pictures beside rows: a picture that cannot be drawn costs nothing else."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from qverify.console.output import say
from qverify.text.shortened import first_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS = ("png", "svg")


def draw(stem: Path, figure: Callable[[Any], Any]) -> None:
    """Write STEM.png and STEM.svg, `figure` making the figure from the module `plots`.

    The rows are on disk when this is called. Whatever goes wrong is said in a sentence, and pictures of an earlier
    start, which show less, are removed.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its caches and fonts are not the user's business
    try:
        from qverify.report import plots

        plots.save_figure(figure(plots), stem)
    except Exception as error:
        for kind in KINDS:
            for place in (f"{stem.name}.{kind}", f"{stem.name}.{kind}.partial"):
                with contextlib.suppress(OSError):
                    stem.with_name(place).unlink(missing_ok=True)
        why = first_line(error).rstrip(".").partition("; ")[0]
        say(f"the picture {stem.name}.png is missing ({why}); the rows are kept, and --resume draws them again.")


def shown_by(stem: Path) -> str:
    """The end of a sentence about rows: which pictures show them, if there are any."""
    there = [f"{stem.name}.{kind}" for kind in KINDS if stem.with_name(f"{stem.name}.{kind}").exists()]
    return f", {' and '.join(there)} show them" if len(there) == len(KINDS) else ""
