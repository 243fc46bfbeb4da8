"""Sizes of memory, deadlines, pieces and shares; the machine itself is replaced."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qverify import budget
from qverify.budget import (
    LEAST,
    OPERATIONS,
    Deadline,
    machine_memory,
    parse_memory,
    part_of,
    pieces,
    resident,
    share_of,
    working_memory,
)
from qverify.errors import UsageError

GIB, MIB = 1024**3, 1024**2


# --- sizes ---


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4", 4 * GIB),
        ("4G", 4 * GIB),
        ("4g", 4 * GIB),
        (" 4 GiB ", 4 * GIB),
        ("4gb", 4 * GIB),
        ("800M", 800 * MIB),
        ("800mib", 800 * MIB),
        ("1.5G", 1536 * MIB),
        ("0.375", 384 * MIB),
        ("384M", 384 * MIB),
        ("393216K", 384 * MIB),
        ("2T", 2048 * GIB),
        ("2.125T", 2176 * GIB),
    ],
)
def test_sizes_of_memory(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *("", "G", "4X", "4 4", "-4G", "4G 4G", "+4", "four", "inf", "nan", "1e3", "4,5G", "0x4G", "4GG", "4iG"),
        *("0", "0G", "383M", "0.374", "1K", "4B", "4iB", "1234567", "1.2345G", "٤G", "4G\0", "M4", "4PB"),
    ],
)
def test_what_is_no_size_or_too_small_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_memory(text)
    sentence = str(refusal.value)
    assert repr(text) in sentence and "4G" in sentence and "384M" in sentence and "\n" not in sentence
    assert sentence.endswith(".") and len(sentence) < 200


@given(st.integers(1, 999_999), st.sampled_from("KMGT"), st.sampled_from(["", "b", "B", "iB"]), st.booleans())
def test_a_size_is_a_number_times_its_unit(number: int, unit: str, suffix: str, lower: bool) -> None:
    size = number * 1024 ** ("KMGT".index(unit) + 1)
    text = f"{number}{unit.lower() if lower else unit}{suffix}"
    if size >= 384 * MIB:
        assert parse_memory(text) == size
    else:
        with pytest.raises(UsageError):
            parse_memory(text)


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_refused(text: Any) -> None:
    try:
        assert parse_memory(text) >= LEAST
    except UsageError as refusal:
        assert "\n" not in str(refusal)  # noqa: PT017


# --- deadlines ---


def test_a_deadline_counts_down_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stop = threading.Event()
    deadline = Deadline.after(5.0, stop)
    assert deadline.left == 5.0 and not deadline.passed()
    now[0] = 104.5
    assert deadline.left == 0.5 and not deadline.passed()
    now[0] = 105.0
    assert deadline.left == 0.0 and deadline.passed()
    now[0] = 1000.0
    assert deadline.left == 0.0 and deadline.passed() and not stop.is_set()


def test_a_deadline_without_a_time_only_hears_the_stop() -> None:
    stop = threading.Event()
    deadline = Deadline.after(None, stop)
    assert deadline.left == float("inf") and not deadline.passed()
    stop.set()
    assert deadline.passed() and deadline.left == float("inf")


def test_a_stop_ends_before_the_time_is_up() -> None:
    stop = threading.Event()
    deadline = Deadline.after(1e6, stop)
    assert not deadline.passed()
    stop.set()
    assert deadline.passed() and deadline.left > 0
    assert Deadline().left == float("inf") and not Deadline().passed()


# --- pieces ---


@given(st.floats(0, 1e12), st.floats(0, 1e15), st.integers(0, 2**45))
def test_a_piece_fits_memory_and_operations_and_is_no_smaller_than_it_must_be(
    floats: float, operations: float, memory: int
) -> None:
    count = pieces(floats, operations, memory)
    assert isinstance(count, int) and 1 <= count <= 2**31

    def fits(n: int) -> bool:
        return n * 8 * max(1.0, floats) <= memory * (1 + 1e-9) and n * max(1.0, operations) <= OPERATIONS * (1 + 1e-9)

    assert count == 1 or fits(count)
    assert count == 2**31 or not fits(count + 1 + count // 10**6)


# --- shares ---


def test_the_shares_of_what_was_said() -> None:
    assert share_of(4 * GIB, 1) == 4 * GIB
    assert share_of(4 * GIB, 4) == GIB
    assert share_of(4 * LEAST, 4) == LEAST
    assert share_of(4 * GIB, 0) == 4 * GIB


def test_too_little_for_so_many_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError) as refusal:
        share_of(4 * LEAST - 4, 4)
    assert str(refusal.value) == (
        "--memory leaves 383M to each of 4 processes, and each needs 384M; give fewer --jobs or more --memory."
    )


def test_without_a_word_it_is_half_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "machine_memory", lambda: 64 * GIB)
    assert share_of(None, 1) == 32 * GIB and share_of(None, 8) == 4 * GIB
    monkeypatch.setattr(budget, "machine_memory", lambda: 256 * MIB)  # nobody asked: it has to do
    assert share_of(None, 8) == LEAST


def test_what_is_held_already_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "resident", lambda: 300 * MIB)
    assert working_memory(GIB, 100 * MIB) == (1024 - 300 - 100) * MIB
    monkeypatch.setattr(budget, "machine_memory", lambda: 4 * GIB)
    assert working_memory(None, 0) == (2048 - 300) * MIB


def test_small_networks_always_find_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has grown is no reason to refuse what fits into little."""
    monkeypatch.setattr(budget, "resident", lambda: 3 * GIB)
    assert working_memory(LEAST, 10 * MIB) == 64 * MIB


def test_a_network_larger_than_the_memory_is_refused_with_the_size_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "resident", lambda: 300 * MIB)
    with pytest.raises(UsageError) as refusal:
        working_memory(GIB, 2 * GIB)
    sentence = str(refusal.value)
    assert sentence.startswith("The network and its radii take about 2 GiB, more than is left of the 1 GiB")
    assert sentence.endswith("; give --memory 2.4G or more, or fewer --jobs.") and "\n" not in sentence
    assert working_memory(parse_memory("2.4G"), 2 * GIB) >= 64 * MIB  # what it says helps


@given(st.integers(0, 2**38), st.integers(0, 2**38), st.integers(LEAST, 2**38))
def test_the_size_that_a_refusal_names_is_enough(needed: int, held: int, memory: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "resident", lambda: held)
        try:
            assert working_memory(memory, needed) >= 64 * MIB
        except UsageError as refusal:
            named = str(refusal).split("give --memory ")[1].split(" or more")[0]
            assert working_memory(parse_memory(named), needed) >= 64 * MIB


def test_parts_of_one_process_take_together_what_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "resident", lambda: 300 * MIB)
    each = working_memory(part_of(4 * GIB, 4), 0)
    assert 4 * each == pytest.approx((4096 - 300) * MIB, rel=1e-6)
    assert part_of(4 * GIB, 1) == 4 * GIB and part_of(LEAST, 100) == LEAST


# --- the machine ---


def test_what_a_container_allows_counts_if_it_is_less(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Here:
        """/sys/fs/cgroup, moved."""

        def __new__(cls, *parts: str) -> Path:  # type: ignore[misc]
            return tmp_path.joinpath(*parts[1:])

    built_in = machine_memory()
    monkeypatch.setattr(budget, "Path", Here)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PHYS_PAGES": 2**20, "SC_PAGE_SIZE": 4096}[name])
    assert machine_memory() == 4 * GIB
    (tmp_path / "memory.max").write_text("max\n")
    assert machine_memory() == 4 * GIB
    (tmp_path / "memory.max").write_text(f"{GIB}\n")
    assert machine_memory() == GIB
    (tmp_path / "memory.max").write_text("9223372036854771712\n")
    assert machine_memory() == 4 * GIB and built_in > 0


def test_a_system_that_does_not_say_is_taken_for_a_small_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(budget, "Path", lambda *parts: tmp_path / "none")
    monkeypatch.setattr(os, "sysconf", unknown)
    assert machine_memory() == 4 * GIB and resident() == 0


def test_what_this_process_holds_grows_with_it() -> None:
    before = resident()
    if not before:
        pytest.skip("the system does not say")
    block = b"x" * (64 * MIB)
    assert 48 * MIB < resident() - before < 200 * MIB and len(block) == 64 * MIB
