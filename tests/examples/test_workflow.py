"""examples/github-actions.yml: it parses, and what its steps run does what it should, on the model that ships."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from pathlib import Path

import pytest
from click.testing import Result

from tests.support.commands import qverify
from tests.support.paths import EXAMPLES, MODELS

TEXT = (EXAMPLES / "github-actions.yml").read_text(encoding="utf-8")


def steps() -> dict[str, str]:
    """The scripts of the steps that have a name, without a YAML reader."""
    found = re.findall(r"^ {6}- name: (\w+)\n(?: {8}if: .*\n)? {8}run: \|\n((?: {10}.*\n)+)", TEXT, re.MULTILINE)
    return {name: textwrap.dedent(script) for name, script in found}


def variables() -> dict[str, str]:
    block = re.search(r"^env:\n((?:  .*\n)+)", TEXT, re.MULTILINE)
    assert block is not None
    return dict(re.findall(r'^  (\w+): "?([^"#\n]*?)"?(?: #.*)?$', block[1], re.MULTILINE))


def test_it_is_yaml_with_these_steps() -> None:
    yaml = pytest.importorskip("yaml")
    read = yaml.safe_load(TEXT)
    assert read["env"] == variables()
    (job,) = read["jobs"].values()
    assert {one["name"]: one["run"] for one in job["steps"] if "run" in one} == steps()
    assert [one["uses"].partition("@")[0] for one in job["steps"] if "uses" in one] == [
        *("actions/checkout", "actions/setup-python", "actions/upload-artifact"),
    ]
    assert read[True].keys() == {"pull_request", "push"}  # YAML takes `on` for a truth value, and GitHub does not mind
    (upload,) = [one for one in job["steps"] if one.get("uses", "").startswith("actions/upload-artifact")]
    assert upload["if"] == "always()" and upload["with"]["path"].split() == ["certificate.html", "run"]


def test_the_gate_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a runner does it: bash, in a checkout with the model and perhaps a baseline. `qverify` ends each script, so
    what it is called with there is run here."""
    (tmp_path / "models").symlink_to(MODELS)
    (tmp_path / "qverify").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > words\n')
    (tmp_path / "qverify").chmod(0o755)
    environment = {**os.environ, **variables(), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))

    def step(name: str, **changes: str) -> Result:
        lines = steps()[name].replace("\\\n", " ").splitlines()
        assert [line for line in lines if line.startswith("qverify ")] == lines[-1:]
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", steps()[name]]
        subprocess.run(command, env=environment | changes, timeout=60, check=True)
        return qverify(*Path("words").read_text().splitlines())

    first = step("Gate")
    assert first.exit_code == 0, first.stderr
    page = step("Page")
    assert page.exit_code == 0, page.stderr
    assert '<p class="passed">' in Path("certificate.html").read_text()
    assert Path("step.md").read_text().count("**Passed.**") == 1
    Path("run").rename("baseline")
    assert step("Gate").exit_code == 0
    Path("run").rename("again")
    worse = step("Gate", MODEL="models/digits_normal.onnx", AT_LEAST="0")
    assert worse.exit_code == 1 and "--baseline baseline: " in worse.stderr and "--fail-under" not in worse.stderr
    assert Path("step.md").read_text().count("**Failed:**") == 1
    assert step("Page", AT_LEAST="99").exit_code == 1
