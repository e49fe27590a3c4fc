"""Several service processes behind one listening socket, each restarted when it dies.

Starts and ends processes, and removes the gauges of dead ones. Serves no request itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import time

from prometheus_client.multiprocess import mark_process_dead

from service.operate import private_environ

_log = logging.getLogger(__name__)

_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_STOP_TIMEOUT_S = 12.0
_BRIEF_LIFE_S = 5.0
# Pause between restarts of a worker that ends at once; each leaves two small metrics files.
_MIN_PAUSE_S = 1.0
_MAX_PAUSE_S = 30.0


def run_workers(*, host: str, port: int, workers: int) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

    A worker that ends by itself is started again, after a growing pause if it lived only briefly.
    """
    try:
        listening = socket.create_server((host, port), backlog=4096, reuse_port=False)
    except OSError as error:
        _log.error("cannot listen", extra={"host": host, "port": port, "reason": error.strerror})
        return 1
    with listening:
        listening.set_inheritable(True)
        # Every process writes its metrics to files there, so that any of them can report all.
        with tempfile.TemporaryDirectory(prefix="seqstream-metrics-") as folder:
            return asyncio.run(_Supervisor(listening, workers, folder).run())


class _Supervisor:
    def __init__(self, listening: socket.socket, workers: int, metrics_folder: str) -> None:
        self._fd = listening.fileno()
        self._workers = workers
        self._metrics_folder = metrics_folder
        self._environ = {**os.environ, _METRICS_FOLDER: metrics_folder}
        self._stopping = asyncio.Event()
        self._processes: set[asyncio.subprocess.Process] = set()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep()) for _ in range(self._workers)]
            await self._stopping.wait()
            for process in list(self._processes):
                _signal(process, signal.SIGTERM)
            await asyncio.wait(keepers, timeout=_STOP_TIMEOUT_S)
            for process in list(self._processes):
                _log.warning("worker killed at shutdown", extra={"pid": process.pid})
                _signal(process, signal.SIGKILL)
        return 0

    async def _keep(self) -> None:
        """Keep one worker running until the supervisor stops."""
        pause_s = _MIN_PAUSE_S
        while not self._stopping.is_set():
            started_s = time.monotonic()
            await self._run_one()
            if self._stopping.is_set():
                return
            if time.monotonic() - started_s >= _BRIEF_LIFE_S:
                pause_s = _MIN_PAUSE_S
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    async def _run_one(self) -> None:
        """Start a worker and wait for its end."""
        try:
            # A build may run as this user: no worker's initial environment has a secret.
            with private_environ.handed(self._environ) as (shown, descriptors):
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "service", "--parent", str(os.getpid()),
                    "serve", "--fd", str(self._fd),
                    # prometheus_client reads this variable at import.
                    env={**shown, _METRICS_FOLDER: self._metrics_folder},
                    pass_fds=[self._fd, *descriptors],
                )  # fmt: skip
        except OSError as error:
            # Out of processes, memory or descriptors: the other workers keep running.
            _log.error("worker cannot be started", extra={"reason": error.strerror})
            return
        self._processes.add(process)
        try:
            if self._stopping.is_set():
                _signal(process, signal.SIGTERM)
            status = await process.wait()
        finally:
            self._processes.discard(process)
            # Otherwise its gauges would stay in sums and minima.
            mark_process_dead(process.pid, self._metrics_folder)  # type: ignore[no-untyped-call]
        if not self._stopping.is_set():
            _log.warning("worker ended", extra={"pid": process.pid, "status": status})


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # It may have ended a moment ago.
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
