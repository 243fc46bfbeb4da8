"""docs/cluster.md: the commands of its last section, as processes on this machine, and its program as Python."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.batches import PLAN, kept, plan, undisturbed
from tests.support.commands import answer
from tests.support.paths import ROOT
from tests.support.processes import ENVIRONMENT

PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")


def test_the_program_is_python_with_the_words_of_the_command() -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (call,) = [
        node
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "subprocess.run"
    ]
    assert ast.unparse(call.args[0]) == "['qverify', 'batch', 'plan.toml', '--cluster', cluster.scheduler_address]"


@pytest.mark.slow
def test_the_commands_make_a_cluster(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    (block,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    scheduler, worker, command = map(shlex.split, block.splitlines())
    place, running = tmp_path / "scheduler.json", list[subprocess.Popen[bytes]]()
    try:
        for words, more in ((scheduler, ["--port", "0", "--no-dashboard"]), (worker, ["--no-dashboard"])):
            assert words[0] == "dask"
            words = ["2" if word == "16" else word for word in words[1:]]
            started = [sys.executable, "-m", "dask", *words, *more]
            running.append(subprocess.Popen(started, cwd=tmp_path, env=ENVIRONMENT, stdout=-3, stderr=-3))
            for _ in range(600):
                if place.exists() and place.stat().st_size:
                    break
                time.sleep(0.1)
        address = json.loads(place.read_text())["address"]
        assert command[:2] == ["qverify", "batch"] and command[-2] == "--cluster"
        found = answer("batch", plan(tmp_path), "--out", tmp_path / "out", "--cluster", address)
        assert found["missing"] == 0 and kept(tmp_path / "out") == undisturbed(PLAN)
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(60)
