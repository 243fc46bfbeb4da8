"""Tasks on the workers of a Dask cluster.

Each thread of a cluster's worker has a process of its own do its tasks (`local.Child`): so a sample over its limit
can be killed, and every number is computed as it is locally. Dask reruns the tasks of workers that it loses; parcels
that went with the last worker that had them are sent anew.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import signal
import time
import uuid
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from qverify.errors import ClusterError, QVerifyError
from qverify.version import __version__
from qverify.workers.local import Child, Parcel
from qverify.workers.tasks import Found, Lost, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONNECT = 10.0
"""Seconds to wait for the scheduler, at the start and when the connection breaks."""
_COUNT = 5.0
"""Seconds between two counts of the workers."""
_SENDINGS = 5
"""How often a task is sent that the cluster loses together with its data."""

# -- on the workers -------------------------------------------------------------------------------

_idle: queue.SimpleQueue[Child] = queue.SimpleQueue()
_busy: dict[str, set[Child]] = {}
_ended: set[str] = set()


def _perform(task: Task, version: str, token: str, *contents: bytes) -> Found | Lost:
    """Do a task in a worker of the cluster; `version`: of qverify that asks, `token`: a name for its run."""
    if version != __version__:
        raise ClusterError(f"A worker of the cluster has qverify {__version__}, but {version} asks; install the same.")
    parcel = dict(zip(task.parcels, contents, strict=True)).__getitem__
    while True:
        try:
            child = _idle.get_nowait()
        except queue.Empty:
            child = Child(os.cpu_count() or 1)  # a machine should not have more of them than cores
        working = _busy.setdefault(token, set())
        working.add(child)
        try:
            found = child.perform(task, parcel)
        finally:
            working.discard(child)
        if not child.closed:
            _idle.put(child)
        if not child.closed or token in _ended:
            return found  # else it was closed for another run that had it just before


def _abandon(token: str) -> None:
    """End what a worker of the cluster is doing for a run."""
    _ended.add(token)
    for child in _busy.pop(token, set()).copy():
        child.close()


# -- on the side that asks ------------------------------------------------------------------------


class Cluster:
    """A Dask cluster, by its scheduler's address or as `local:N`; a context manager. See `dispatch.Engine`."""

    def __init__(self, address: str, parcel: Parcel):
        """Raises ClusterError if Dask is missing or there is no scheduler."""
        self._parcel, self._token = parcel, uuid.uuid4().hex
        self._sent: dict[str, Any] = {}
        self._flying: dict[Any, tuple[Task, Any, int]] = {}
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._slots, self._counted = 0, -_COUNT
        self._local, self._client = _connected(address)

    @property
    def slots(self) -> int:
        """The threads of all workers; 0 while there are none."""
        if time.monotonic() - self._counted >= _COUNT or not self._slots:
            try:
                self._slots = sum(self._client.nthreads().values())
            except Exception as error:  # Dask has no common class for a connection that broke
                raise _broken(error) from error
            self._counted = time.monotonic()
        return self._slots

    @property
    def window(self) -> int:
        """The tasks that are sent at once: two a thread."""
        return 2 * self.slots  # the next task is there when one is done

    def submit(self, task: Task) -> None:
        """Have a task done as soon as a worker is free."""
        self._send(task, 1)

    def get(self, seconds: float) -> tuple[Task, Found | Lost] | None:
        """An answer, None if there is none within some seconds. Raises what a task raised, and ClusterError."""
        try:
            key = self._answers.get(timeout=seconds)
        except queue.Empty:
            return self._lost()
        return self._answer(key)

    def _send(self, task: Task, sending: int) -> None:
        try:
            for name in set(task.parcels) - self._sent.keys():
                self._sent[name] = self._client.scatter(self._parcel(name), broadcast=True, hash=False)
            contents = [self._sent[name] for name in task.parcels]
            key = f"qverify-{self._token}-{uuid.uuid4().hex}"
            future = self._client.submit(_perform, task, __version__, self._token, *contents, key=key, pure=False)
        except Exception as error:
            raise _broken(error) from error
        self._flying[key] = (task, future, sending)
        future.add_done_callback(lambda future: self._answers.put(future.key))

    def _answer(self, key: Any) -> tuple[Task, Found | Lost] | None:
        """The answer to a task; None if it was sent anew. Raises what the task raised."""
        if key not in self._flying:
            return None
        task, future, sending = self._flying[key]
        if future.status == "finished":
            del self._flying[key]
            return task, future.result()
        error = None if future.status in ("lost", "cancelled") else future.exception()
        if type(error).__name__ == "KilledWorker":
            del self._flying[key]
            return task, Lost("workers of the cluster died of it again and again", 0.0)
        if isinstance(error, QVerifyError):
            raise error
        if isinstance(error, ImportError):
            raise ClusterError(f"The workers of the cluster cannot load qverify ({error}); install it there.")
        if error is not None and sending >= _SENDINGS:
            reason = f"{type(error).__name__}: {error}"
            raise ClusterError(f"The cluster fails again and again ({reason}); look at its logs.") from error
        return self._again(key)  # as a rule its data went with a worker

    def _again(self, key: Any) -> tuple[Task, Found | Lost] | None:
        """Send a task once more, and its parcels too."""
        task, _, sending = self._flying.pop(key)
        if sending >= _SENDINGS:
            return task, Lost("the cluster lost the worker it was on again and again", 0.0)
        for name in task.parcels:
            self._sent.pop(name, None)
        self._send(task, sending + 1)
        return None

    def _lost(self) -> tuple[Task, Found | Lost] | None:
        """Look after tasks that Dask has given up without saying so."""
        if self._client.status in ("closed", "closing"):
            raise _broken(ConnectionError("the client was closed"))
        for key, (_, future, _) in list(self._flying.items()):
            if future.status in ("lost", "cancelled"):
                return self._again(key)
        return None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        # Whatever ended the run is the news, and what nobody needs ends by itself: failures in here are passed over.
        with contextlib.suppress(Exception):
            futures = [future for _, future, _ in self._flying.values()]
            if futures and self._client.status == "running":
                self._client.cancel(futures, force=True)
                self._client.run(_abandon, self._token, on_error="ignore")
        self._sent.clear()
        self._flying.clear()
        for each in filter(None, (self._client, self._local)):
            with contextlib.suppress(Exception):  # a busy machine may take longer than this
                each.close(_CONNECT)


def _connected(address: str) -> tuple[Any, Any]:
    """A cluster if one was started, and the client. Raises ClusterError."""
    try:
        import distributed
    except ImportError as error:
        raise ClusterError(
            f"--cluster needs Dask ({error}); install it with `pip install 'qverify[cluster]'`."
        ) from None
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is raised
    local = None
    if not re.fullmatch(r"(local|(\w+://)?\S+):\d{1,5}", address):
        raise ClusterError(f"{address!r} is no address of a Dask scheduler; write tcp://HOST:PORT, or local:N.")
    if match := re.fullmatch(r"local:(\d{1,4})", address):
        if not int(match[1]):
            raise ClusterError("--cluster local:0 has no worker; write local:1 or more.")
        with _deaf_children():
            local = distributed.LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=int(match[1]),
                threads_per_worker=1,
                processes=True,
                memory_limit=0,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
    try:
        client = distributed.Client(  # type: ignore[no-untyped-call]
            local or address, timeout=_CONNECT, set_as_default=False
        )
        return local, client
    except (OSError, ValueError, OverflowError, TimeoutError) as error:  # OverflowError: ports end at 65535
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ClusterError(f"There is no Dask scheduler at {address} ({reason}); check the address.") from None


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Keep Ctrl-C from processes and threads that are started meanwhile: it is for the parent, which hears it after."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it later would make that thread hear again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _broken(error: BaseException) -> ClusterError:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return ClusterError(f"The connection to the cluster is lost ({reason}); the rows are kept, start again later.")
