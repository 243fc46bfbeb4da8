"""Makes the three figures of this folder: data.csv, plot and page of text each. `make figures` runs it.

Every verification is kept in `runs/`, so what was interrupted goes on where it stopped, and a figure whose runs are
all there is drawn again in seconds.
"""

from __future__ import annotations

import argparse
import sys

import methods
import normal_robust
import radius
from study import StudySettings, add_settings

from qverify.console.output import say, stdout_kept_clean
from qverify.errors import QVerifyError, UsageError

FIGURES = {"1": radius.make, "2": normal_robust.make, "3": methods.make}


def main() -> int:
    """Make the figures asked for; the exit status."""
    default = StudySettings()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=FIGURES, action="append", help="this figure only [default: all]")
    add_settings(parser)
    parser.add_argument(
        "--timeout-normal",
        type=float,
        default=default.timeout_normal,
        metavar="S",
        help="the same for normally trained networks [default: 5]",
    )
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="samples at once [default: one a core]")
    given = vars(parser.parse_args())
    only = given.pop("only") or FIGURES
    try:
        if given["samples"] is not None and given["samples"] < 1:
            raise UsageError("--samples takes a number of at least 1.")
        settings = StudySettings(**given)
        with stdout_kept_clean():
            for number in only:
                say(f"figure {number}")
                say(f"figure {number} is in {FIGURES[number](settings)}")
    except QVerifyError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted; what is decided is kept, and the same command goes on from there.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
