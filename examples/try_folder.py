"""Which ONNX and TFLite files of a folder does qverify read, and why not the others?

    python examples/try_folder.py FOLDER

Prints a line a file, then every reason with the number of files that it keeps out. What is read is compared with its
runtime first, so that a file that loads computes the same there.
"""

from __future__ import annotations

import re
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

import qverify
from qverify.errors import QVerifyError, QVerifyWarning, UnsupportedModel

SUFFIXES = (".onnx", ".onnx.gz", ".tflite")


def reasons(error: Exception) -> list[str]:
    """Why a file is not read: operators and what is said of them, without the names of nodes."""
    if isinstance(error, UnsupportedModel):
        return [re.sub(r"^.*?\((\w+)\)[^:]*: ", r"\1: ", problem) for problem in error.problems]
    return [str(error).split(": ", 1)[-1]]


def main(folder: Path) -> int:
    """Try every file below the folder; returns the exit status."""
    files = sorted(path for path in folder.rglob("*") if path.name.endswith(SUFFIXES))
    if not files:
        print(f"{folder} holds no {', '.join(SUFFIXES)} file; give another folder.", file=sys.stderr)
        return 2
    table = Table("file", "layers", "inputs", "outputs", "seconds", "why not", box=None, padding=(0, 2, 0, 0))
    why: Counter[str] = Counter()
    read = 0
    for path in files:
        began = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", QVerifyWarning)
                network = qverify.load(path)
            cells = [str(len(network.layers)), str(network.input_size), str(network.output_size)]
            read, reason = read + 1, ""
        except QVerifyError as error:
            found = reasons(error)
            why.update(set(found))
            cells, reason = ["", "", ""], found[0]
        seconds = f"{time.perf_counter() - began:.1f}"
        shown = reason if len(reason) < 100 else f"{reason[:97]}..."
        table.add_row(str(path.relative_to(folder)), *cells, seconds, shown)
    console = Console(width=200)
    console.print(table)
    console.print(f"\n{read} of {len(files)} files are read.")
    for reason, count in why.most_common():
        console.print(f"{count:>5}  {reason}", markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(main(Path(sys.argv[1])))
