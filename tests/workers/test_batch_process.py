"""`qverify batch` with real processes: the same rows whatever happens to them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qverify.runs import assembly
from qverify.workers import local as workers
from tests.support.batches import EXACT, PLAN, Rows, alive, gone, kept, linux, plan, started, undisturbed, workers_of
from tests.support.commands import answer, qverify, read_rows
from tests.support.processes import COMMAND, ENVIRONMENT, run


def worker(code: str) -> list[str]:
    """The command of a worker process in which some code ran first."""
    return [sys.executable, "-c", f"{code}\nfrom qverify.workers.worker import main; main()"]


AT_SAMPLE = """
from qverify.exact.search import Search
before = Search.decide
def margins(search):
    if search.case.label == {label}:
        {what}
    return before(search)
Search.decide = margins
"""


def labelled(rows: Rows, label: int) -> list[str]:
    """The keys of the samples with this label that the exact step decides; at least one, and not all."""
    found = [key for key, row in rows.items() if row["label"] == label and row["method"] == "exact"]
    assert 0 < len(found) < len(rows)
    return found


# --- workers that hang or die ---


@pytest.mark.slow
def test_a_sample_over_its_limit_is_killed_even_where_python_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(EXACT)
    hang = AT_SAMPLE.format(label=9, what="__import__('ctypes').PyDLL(None).sleep(1000)")
    monkeypatch.setattr(workers, "COMMAND", worker(hang))
    monkeypatch.setattr(assembly, "GRACE", 0.5)
    hung = labelled(expected, 9)
    found = answer("batch", plan(tmp_path, EXACT + "timeout = 3\n"), "--out", tmp_path / "out", "--jobs", 2)
    rows = {row["index"]: row for row in kept(tmp_path / "out").values()}
    (case,) = found["cases"].values()
    assert found["missing"] == 0 and len(rows) == len(expected) and case["unknown"] == len(hung)
    for key, other in expected.items():
        row = rows[other["index"]]
        if key in hung:
            assert row["status"] == "unknown" and row["predicted"] == other["predicted"]
            assert row["detail"] == "time limit: killed after 3.5 s, as it did not end by itself"
            assert row["limit"] == 3.0
            assert row["margin_lower"] <= other["margin_lower"] + 1e-9
            assert row["margin_upper"] >= other["margin_upper"] - 1e-9
        else:
            assert row["status"] == other["status"]


@pytest.mark.slow
def test_a_worker_that_dies_once_is_not_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, mark = undisturbed(EXACT), str(tmp_path / "died")
    once = f"import os, sys; os.path.exists({mark!r}) or (open({mark!r}, 'w').close(), os.kill(os.getpid(), 9))"
    monkeypatch.setattr(workers, "COMMAND", worker(AT_SAMPLE.format(label=9, what=once)))
    answer("batch", plan(tmp_path, EXACT), "--out", tmp_path / "out", "--jobs", 1)
    assert Path(mark).exists() and kept(tmp_path / "out") == expected


@pytest.mark.slow
def test_a_sample_that_kills_its_worker_twice_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = undisturbed(EXACT)
    monkeypatch.setattr(workers, "COMMAND", worker(AT_SAMPLE.format(label=9, what="__import__('os').abort()")))
    answer("batch", plan(tmp_path, EXACT), "--out", tmp_path / "out", "--jobs", 1)
    dead = labelled(expected, 9)
    for key, row in kept(tmp_path / "out").items():
        if key in dead:
            assert (row["status"], row["detail"]) == ("unknown", "the process was ended by SIGABRT")
        else:
            assert row == expected[key]


def test_a_worker_that_cannot_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "COMMAND", ["false"])
    result = qverify("batch", plan(tmp_path), "--out", tmp_path / "out", "--jobs", 2)
    assert result.exit_code == 2 and "A worker process ended with status 1 before it could work" in result.stderr


@pytest.mark.slow
def test_files_in_the_working_directory_are_not_taken_for_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('not this one')\n")
    monkeypatch.chdir(tmp_path)
    answer("batch", plan(tmp_path, EXACT), "--out", "out", "--jobs", 1)
    assert kept(tmp_path / "out") == undisturbed(EXACT)


@pytest.mark.slow
def test_an_internal_error_in_a_worker_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    what = "raise __import__('qverify.errors').errors.InternalError('bounds cross')"
    monkeypatch.setattr(workers, "COMMAND", worker(AT_SAMPLE.format(label=9, what=what)))
    result = qverify("batch", plan(tmp_path, EXACT), "--out", tmp_path / "out", "--jobs", 1)
    assert result.exit_code == 4 and "bounds cross" in result.stderr
    assert "unknown" not in {row["status"] for row in read_rows(tmp_path / "out")}


# --- a batch that ends before its time ---


@pytest.mark.slow
@linux
def test_kill_9_loses_no_row_and_leaves_no_process(tmp_path: Path) -> None:
    expected = undisturbed(EXACT)
    with started(tmp_path, 3, "--jobs", 2) as process:  # at other moments under `slow`
        children = [child for child, _ in workers_of(process.pid)]
        process.send_signal(signal.SIGKILL)
        process.communicate()
    gone(children)
    content = (tmp_path / "out" / "samples.jsonl").read_bytes()
    assert len(children) == 2 and 3 <= content.count(b"\n") < len(expected)
    before = content[: content.rfind(b"\n") + 1]
    (tmp_path / "out" / "samples.jsonl").write_bytes(before + b'{"index": 125, "label"')  # as if torn
    answer("batch", plan(tmp_path, EXACT), "--out", tmp_path / "out", "--jobs", 2)
    assert kept(tmp_path / "out") == expected
    assert (tmp_path / "out" / "samples.jsonl").read_bytes().startswith(before)


@pytest.mark.slow
@linux
def test_ctrl_c_keeps_the_rows_and_leaves_no_process(tmp_path: Path) -> None:
    with started(tmp_path, 3, "--jobs", 2, "--json") as process:
        children = [child for child, _ in workers_of(process.pid)]
        second = qverify("batch", plan(tmp_path, EXACT), "--out", tmp_path / "out")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert second.exit_code == 2 and "Another process is writing to" in second.stderr
    rows = kept(tmp_path / "out")
    assert process.returncode == 130 and "Traceback" not in stderr and not any(map(alive, children))
    assert f"interrupted: {len(rows)} of 12 samples are decided and kept in {tmp_path / 'out'}" in stderr
    found = json.loads(stdout)
    assert found["interrupted"] is True and found["samples"] == len(rows) == 12 - found["missing"]
    assert rows.items() <= undisturbed(EXACT).items()


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_the_rows_so_far_are_kept(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    found = run("batch", plan(tmp_path, EXACT), "--out", tmp_path / "out", "--jobs", 1, preexec_fn=limit)
    content = (tmp_path / "out" / "samples.jsonl").read_bytes()
    assert found.returncode == 2 and found.stdout == "" and "Traceback" not in found.stderr
    assert len(content) == 3000 and content.count(b"\n") > 3
    assert f"(File too large); {content.count(10)} samples are kept, go on later with the same command" in found.stderr
    answer("batch", plan(tmp_path, EXACT), "--out", tmp_path / "out", "--jobs", 1)
    assert kept(tmp_path / "out") == undisturbed(EXACT)


@pytest.mark.slow
@linux
@pytest.mark.parametrize("seed", range(4))
def test_kill_9_at_any_moment(tmp_path: Path, seed: int) -> None:
    for moment in (0.5 + seed, 1.3 + seed, 2.1 + seed, 3.7 + seed):
        with started(tmp_path, 0, "--jobs", 2) as process:
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
    answer("batch", plan(tmp_path, EXACT), "--out", tmp_path / "out", "--jobs", 2)
    assert kept(tmp_path / "out") == undisturbed(EXACT)


@pytest.mark.slow
@linux
def test_workers_killed_at_any_moment_are_not_noticed(tmp_path: Path) -> None:
    with started(tmp_path, 1, "--jobs", 2) as process:
        for child, _ in workers_of(process.pid):
            os.kill(child, signal.SIGKILL)
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert kept(tmp_path / "out") == undisturbed(EXACT)


# --- clusters ---


@linux
@pytest.mark.slow
def test_ctrl_c_while_a_cluster_starts_is_heard_by_the_parent_alone(tmp_path: Path) -> None:
    """As a terminal sends it, to all processes; the scheduler is not there yet."""
    pytest.importorskip("distributed")
    command = [*COMMAND, "batch", plan(tmp_path), "--out", str(tmp_path / "out"), "--cluster", "local:2"]
    process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=ENVIRONMENT, start_new_session=True)
    while not (tmp_path / "out" / "batch.json").exists():  # the cluster comes next
        time.sleep(0.05)
    time.sleep(1.5)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted: 0 of 80 samples are decided" in stderr
    assert "Traceback" not in stdout + stderr and "Unexpected" not in stderr


@pytest.mark.slow
@linux
def test_a_cluster_that_loses_a_worker_gives_the_same_rows(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with started(tmp_path, 2, "--cluster", "local:2", "--json") as process:
        children = workers_of(process.pid)
        os.kill(children[0][1], signal.SIGKILL)  # the worker of the cluster
        stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert children[0][1] != process.pid and len(children) == 2 and len({parent for _, parent in children}) == 2
    assert json.loads(stdout)["missing"] == 0 and kept(tmp_path / "out") == undisturbed(EXACT)
    gone([child for child, _ in children])


@pytest.mark.slow
@linux
def test_a_cluster_that_loses_all_its_workers_and_their_data_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with started(tmp_path, 2, "--cluster", "local:1") as process:
        ((_, parent),) = workers_of(process.pid)
        os.kill(parent, signal.SIGKILL)
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert kept(tmp_path / "out") == undisturbed(EXACT)


@pytest.mark.slow
def test_a_cluster_by_its_address(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        answer("batch", plan(tmp_path), "--out", tmp_path / "out", "--cluster", address)
    assert kept(tmp_path / "out") == undisturbed(PLAN)


@pytest.mark.slow
def test_a_sample_over_its_limit_is_killed_on_a_cluster_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    expected = undisturbed(EXACT)
    hang = worker(AT_SAMPLE.format(label=9, what="__import__('ctypes').PyDLL(None).sleep(1000)"))
    monkeypatch.setattr(assembly, "GRACE", 0.5)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster:
        with distributed.Client(cluster, set_as_default=False) as client:
            client.run(setattr, workers, "COMMAND", hang)
        given = ("--out", tmp_path / "out", "--cluster", cluster.scheduler_address)
        answer("batch", plan(tmp_path, EXACT + "timeout = 3\n"), *given)
    unknown = [row for row in kept(tmp_path / "out").values() if row["status"] == "unknown"]
    assert len(kept(tmp_path / "out")) == len(expected) and len(unknown) == len(labelled(expected, 9))
    assert {row["detail"] for row in unknown} == {"time limit: killed after 3.5 s, as it did not end by itself"}


@pytest.mark.slow
def test_a_scheduler_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    given = ("batch", plan(tmp_path), "--out", tmp_path / "out", "--cluster", "tcp://127.0.0.1:9")
    result = qverify(*given)
    assert result.exit_code == 2 and "There is no Dask scheduler at tcp://127.0.0.1:9" in result.stderr
