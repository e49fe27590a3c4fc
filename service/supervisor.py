"""Several service processes behind one listening socket, each restarted when it dies."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
import time

_log = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 12.0
_QUICK_DEATH_S = 2.0
_BACKOFF_S = 1.0


def run_workers(*, host: str, port: int, workers: int) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

    A worker that ends by itself is started again, after a pause if it lived only briefly.
    """
    with socket.create_server((host, port), backlog=4096, reuse_port=False) as listening:
        listening.set_inheritable(True)
        # Each process keeps its metrics in files there, so that any of them can add all up.
        with tempfile.TemporaryDirectory(prefix="seqstream-metrics-") as folder:
            return asyncio.run(_Supervisor(listening, workers, folder).run())


class _Supervisor:
    def __init__(self, listening: socket.socket, workers: int, metrics_folder: str) -> None:
        self._fd = listening.fileno()
        self._workers = workers
        self._environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": metrics_folder}
        self._stopping = asyncio.Event()
        self._processes: set[asyncio.subprocess.Process] = set()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep()) for _ in range(self._workers)]
            await self._stopping.wait()
            for process in self._processes:
                process.terminate()
            await asyncio.wait(keepers, timeout=_STOP_TIMEOUT_S)
            for process in self._processes:
                _log.warning("worker killed at shutdown", extra={"pid": process.pid})
                process.kill()
        return 0

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            started = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "service.cli", "serve", "--fd", str(self._fd),
                env=self._environ, pass_fds=[self._fd],
            )  # fmt: skip
            self._processes.add(process)
            if self._stopping.is_set():
                process.terminate()
            status = await process.wait()
            self._processes.discard(process)
            if self._stopping.is_set():
                return
            _log.warning("worker ended", extra={"pid": process.pid, "status": status})
            if time.monotonic() - started < _QUICK_DEATH_S:
                try:
                    async with asyncio.timeout(_BACKOFF_S):
                        await self._stopping.wait()
                except TimeoutError:
                    pass
