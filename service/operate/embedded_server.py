"""A server as a child process: its data folder, address, start and stop.

The common part of the embedded servers; what is specific to Postgres or Redis is in `embedded.py`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path
from types import TracebackType
from typing import Self

from service.operate import launching, private_files

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 20.0


class EmbeddedError(Exception):
    """An embedded server is not available or did not start."""


# Below the ephemeral ports (from 32,768 on Linux, from 49,152 elsewhere): an outgoing connection
# could take such a port before the server binds it.
_FIRST_PORT, _PORTS = 10_000, 20_000
# Each process counts from a different start, also processes with consecutive ids, so that processes
# that start servers at the same time choose different ports.
_next_port = count(os.getpid() * 6007)


def free_port() -> int:
    """Return a loopback TCP port that nobody listened on a moment ago."""
    for number in islice(_next_port, _PORTS):
        port = _FIRST_PORT + number % _PORTS
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise EmbeddedError("no loopback port is free")


class EmbeddedServer:
    """A child process with its data folder, on one loopback port or on one Unix socket.

    The port and its password are kept beside the data folder, so that the address survives a
    restart. `ends_with_parent`: the server ends when the thread that started it ends (Linux).
    """

    name: str
    _socket_name: str

    def __init__(
        self, data_dir: Path, port: int | None, *, on_socket: bool, ends_with_parent: bool
    ) -> None:
        self.data_dir = data_dir.resolve()
        private_files.make_private(self.data_dir)
        self._process: subprocess.Popen[bytes] | None = None
        self._on_socket = on_socket
        self._ends_with_parent = ends_with_parent
        self._socket_dir: Path | None = None
        self._port = 0 if on_socket else port or self._remembered_port()
        self._password = "" if on_socket else private_files.kept_secret(self._beside("password"))

    def _beside(self, kind: str) -> Path:
        return self.data_dir.parent / f"{self.data_dir.name}.{kind}"

    def _remembered_port(self) -> int:
        note = self._beside("port")
        if note.exists():
            port = int(note.read_text())
            with socket.socket() as probe:
                # Without this, our own port would count as taken while in TIME_WAIT.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    pass
                else:
                    return port
        port = free_port()
        note.write_text(str(port))
        return port

    @property
    def port(self) -> int:
        """The loopback port."""
        if self._on_socket:
            raise EmbeddedError(f"{self.name} listens on no port")
        return self._port

    @property
    def socket_path(self) -> Path:
        """The Unix socket; available once the server was started."""
        if self._socket_dir is None:
            raise EmbeddedError(f"{self.name} listens on no socket")
        return self._socket_dir / self._socket_name

    def _make_socket_dir(self) -> None:
        if self._on_socket and self._socket_dir is None:
            self._socket_dir = private_files.socket_folder(self.data_dir, self._socket_name)

    def _remove_socket_dir(self) -> None:
        if self._socket_dir not in (None, self.data_dir):
            shutil.rmtree(str(self._socket_dir), ignore_errors=True)
        self._socket_dir = None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise EmbeddedError(f"{self.name} is not running")
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """The file of the server's log."""
        return self._beside("log")

    def is_running(self) -> bool:
        """Return whether the child process is alive."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End the server with SIGKILL, like a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_TIMEOUT_S)
            self._process = None
        self._remove_socket_dir()

    def _launch(
        self, command: Sequence[str], *, end: signal.Signals, stdin: bytes | None = None
    ) -> None:
        """Start the child in its own session, write `stdin` to it, and wait until it is ready."""
        prefix = launching.with_parent(end) if self._ends_with_parent else []
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._launcher(), *prefix, *command], stdout=log, stderr=log,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        if stdin is not None:
            assert self._process.stdin is not None
            # Fits into the pipe's buffer: does not block.
            with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
                pipe.write(stdin)
        self._await_ready()

    def _launcher(self) -> Sequence[str]:
        return ()

    def _end(self, signal_number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            # A stopped process (SIGSTOP) would not handle the signal.
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signal_number)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_STOP_TIMEOUT_S)
        self._process = None
        self._remove_socket_dir()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._is_ready():
            if self._process is None or self._process.poll() is not None:
                raise EmbeddedError(f"{self.name} ended at start:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self.name} was not ready in time:\n{self._log_tail()}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def _log_tail(self) -> str:
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-15:])

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            EmbeddedError: it ended, or was not ready in time.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Stop the server, with SIGKILL if it does not end in time."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
