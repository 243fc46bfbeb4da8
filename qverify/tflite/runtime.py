"""LiteRT in a process of its own: where a damaged file breaks what its kernels take for granted, they end the process.

`answers` is the side of the reader. The other side runs this file as a script and imports nothing of qverify, so it
starts quickly. One message goes there, (content, tensor of the input, inputs, tensors wanted), and for every input one
comes back: what those tensors hold, or a sentence on why LiteRT did not run.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

_START = "import sys, runpy; sys.path[:] = filter(None, sys.path); runpy.run_path({!r}, run_name='__main__')"
"""Not from the working directory, where a file of the user's could have the name of a module."""


def installed() -> bool:
    """Whether LiteRT can be found."""
    from importlib.util import find_spec

    try:
        return find_spec("ai_edge_litert.interpreter") is not None
    except ImportError:
        return False


def answers(content: bytes, given: int, inputs: list[np.ndarray], wanted: list[int]) -> Iterator[dict[int, np.ndarray]]:
    """What tensors of a file hold in LiteRT's reference kernels, for every input in turn, by their indices.

    Raises RuntimeError with what LiteRT says, or how its process ended.
    """
    import subprocess

    from qverify.processes import ended, environment

    command = [sys.executable, "-c", _START.format(__file__)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        pickle.dump((content, given, inputs, wanted), process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
        process.stdin.close()
        for _ in inputs:
            answer = pickle.load(process.stdout)
            if isinstance(answer, str):
                raise RuntimeError(answer)
            yield answer
    except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
        raise RuntimeError(f"its process {ended(process.wait())}") from error
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def _serve() -> None:
    """The other side: answer the one message on stdin; what libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        for answer in _run(*pickle.load(sys.stdin.buffer)):
            pickle.dump(answer, out, protocol=pickle.HIGHEST_PROTOCOL)
            out.flush()
    except Exception as error:
        pickle.dump(str(error) or type(error).__name__, out)
        out.flush()


def _run(content: bytes, given: int, inputs: list[Any], wanted: list[int]) -> Iterator[dict[int, Any]]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
        num_threads=1,
    )
    interpreter.allocate_tensors()
    for values in inputs:
        interpreter.set_tensor(given, values)
        interpreter.invoke()
        yield {index: interpreter.get_tensor(index) for index in wanted}


if __name__ == "__main__":
    _serve()
