"""A small HTTP server on loopback for the download tests: files by path, Range, and connections that break off."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """What is served and what was asked.

    files: path -> content; headers: path -> more headers; status: path -> an answer other than 200; cuts: path -> the
    lengths after which the next replies break off; ranges: False ignores Range. asked: (method, path, range) in order.
    """

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}"
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.status: dict[str, int] = {}
        self.cuts: dict[str, list[int]] = {}
        self.ranges = True
        self.asked: list[tuple[str, str, str | None]] = []


class _Handler(BaseHTTPRequestHandler):
    timeout = 30  # seconds
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        state, path, asked = self.server.state, self.path, self.headers.get("Range")
        state.asked.append((self.command, path, asked))
        content, status, first = state.files.get(path), state.status.get(path, 200), 0
        if content is None and status == 200:
            status = 404
        content = content or b""
        if asked and state.ranges and status == 200:
            first, status = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]), 206
            if first >= len(content):
                status, first = 416, len(content)
        cut = state.cuts[path].pop(0) if body and state.cuts.get(path) else len(content)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) - first))
        self.send_header("Connection", "close")  # else a client may ask again on what is just being closed
        for name, value in state.headers.get(path, {}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[first:][:cut])
        self.close_connection = True

    def log_message(self, *_):
        pass


@contextmanager
def serve() -> Iterator[Server]:
    """A running server, which stops when the block ends."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    httpd.daemon_threads = True
    httpd.state = Server(httpd.server_address[1])
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield httpd.state
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join(5)
