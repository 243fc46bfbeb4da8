"""Work in several threads at once, whose results are taken in one: samples of the exact step, factors of a search."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Generator, Iterable

    from qverify.verification.verdict import Options

T = TypeVar("T")
Item = TypeVar("Item")


def as_they_come(
    work: Callable[[Item], T], items: Iterable[Item], workers: int, stop: threading.Event
) -> Generator[tuple[Item, T], None, None]:
    """Each item with the result of `work(item)`, in the order in which they are done, by `workers` threads at once.

    A single worker is this thread itself. Whatever ends the loop early, Ctrl-C too, sets `stop`, so that solves under
    way end, drops what was not begun, and is let through. Close the generator where the loop may be left.
    """
    if workers <= 1:
        for item in items:
            yield item, work(item)
        return
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(work, item): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def in_threads(
    options: Options, stop: threading.Event, work: Callable[[int], T | None], count: int, tell: Callable[[T], None]
) -> None:
    """Tell the results of `work(0)` to `work(count - 1)`, in this thread and as they come; None is passed over.

    `options.workers` at once; `stop` as in `as_they_come`.
    """
    with contextlib.closing(as_they_come(work, range(count), options.workers, stop)) as found:
        for _, result in found:
            if result is not None:
                tell(result)
