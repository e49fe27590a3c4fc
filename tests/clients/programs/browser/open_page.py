"""Run a page of this folder in a headless browser, and print the events that the page hands on.

    python open_page.py chromium|firefox PAGE.html [NODE_FOLDER]

The page comes from a server of this process, and so does the stream: `/browser/` is this folder,
`/node/` is NODE_FOLDER, where the npm packages are installed (without it `../node`, where none is),
and a GET of STREAM_URL's path is forwarded to its host byte for byte, a broken connection
included. So page and stream have one origin, as behind a reverse proxy, and the service need not
know the page's. Nothing of a client's behaviour belongs here: that is in the pages.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urlsplit

HERE = Path(__file__).resolve().parent
SERVED = {"/browser/": HERE, "/node/": HERE.parent / "node"}
STREAM = urlsplit(os.environ["STREAM_URL"])
CONNECT_TIMEOUT_S = 5.0
# A stream of `fetch` that breaks drops the bytes that its reader has not taken yet. They are given
# time, so that a break falls where it was made, and not where the page happened to be.
BREAK_AFTER_S = 0.5
STOP_TIMEOUT_S = 2.0
# A page's batch is 50 events, each of at most 400 KiB.
MAX_BODY_BYTES = 50 * 400 * 1024
# Linger on, zero seconds: close() sends RST.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

CHROMIUM = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--no-proxy-server", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip

printing = threading.Lock()


class PageHandler(http.server.SimpleHTTPRequestHandler):
    """Serves pages and libraries, takes what a page surfaced, forwards the rest."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        for prefix, folder in SERVED.items():
            if self.path.startswith(prefix):
                self.directory = str(folder)
                self.path = self.path[len(prefix) - 1 :]
                super().do_GET()
                return
        if urlsplit(self.path).path == STREAM.path:
            self._forward()
        else:
            self.send_error(404)  # favicon.ico

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        if length > MAX_BODY_BYTES:
            self.send_error(413)
            return
        body = self.rfile.read(length)
        with printing:
            if self.path == "/surfaced":
                for event in json.loads(body):
                    print(json.dumps(event), flush=True)
            else:
                print(body.decode(errors="replace"), file=sys.stderr, flush=True)
        self.send_response(204)
        self.end_headers()

    def translate_path(self, path: str) -> str:
        """Return the file; as a bundler does, `./parse` is found in `parse.js`."""
        found = super().translate_path(path)
        return found if Path(found).exists() else found + ".js"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing of each request."""

    def _forward(self) -> None:
        self.close_connection = True
        try:
            with socket.create_connection(_stream_address(), CONNECT_TIMEOUT_S) as far:
                far.settimeout(None)
                far.sendall(self._forwarded_head())
                try:
                    _pass_on(far, self.connection)
                except OSError:
                    time.sleep(BREAK_AFTER_S)
                    raise
        except OSError:
            # The far side broke, or the browser did: what is left of the connection breaks too.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self.rfile.close()
            self.connection.close()

    def _forwarded_head(self) -> bytes:
        lines = [self.requestline, f"Host: {STREAM.netloc}", "Connection: close"]
        lines += [
            f"{name}: {value}"
            for name, value in self.headers.items()
            if name.lower() not in ("host", "connection")
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _stream_address() -> tuple[str, int]:
    return STREAM.hostname or "", STREAM.port or 80


def _pass_on(far: socket.socket, near: socket.socket) -> None:
    """Copy the response until one side ends. Raises OSError when the far side breaks."""
    with selectors.DefaultSelector() as ready:
        ready.register(far, selectors.EVENT_READ)
        ready.register(near, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is near:
                    return  # the browser has nothing more to say: it went away
                data = far.recv(65_536)
                if not data:
                    return
                near.sendall(data)


@contextlib.contextmanager
def browser(name: str, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a browser in a fresh profile; end its process group and remove the profile."""
    # In the home that the suite gave, which is removed even if this process is killed.
    base = os.environ.get("HOME")
    with TemporaryDirectory(prefix="page-", dir=base, ignore_cleanup_errors=True) as home:
        process = subprocess.Popen(
            _command(name, Path(home), url), env=os.environ | {"HOME": home},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            process_group=0,
        )  # fmt: skip
        try:
            yield process
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_TIMEOUT_S)


def _command(name: str, home: Path, url: str) -> list[str]:
    profile = home / "profile"
    profile.mkdir()
    if name == "chromium":
        return ["chromium", *CHROMIUM, f"--user-data-dir={profile}", url]
    shutil.copy(HERE / "firefox_user.js", profile / "user.js")
    return ["firefox-esr", "--headless", "--no-remote", "--profile", str(profile), url]


def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait until the browser ends, or until the process that started this one has ended."""
    parent = os.getppid()
    while os.getppid() == parent:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(1)
    return 1


def main(name: str, page: str, node_folder: str = "") -> int:
    """Run until SIGTERM, or until the browser ends by itself."""
    if node_folder:
        SERVED["/node/"] = Path(node_folder).resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), PageHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stream = quote(f"{STREAM.path}?{STREAM.query}", safe="")
        url = f"http://127.0.0.1:{server.server_port}/browser/{page}?stream={stream}"
        with browser(name, url) as process:
            return ended(process)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
