"""The sockets: a listening thread, a thread for each connection, and the ways in which a connection can end."""

from __future__ import annotations

import gzip
import os
import socket
import socketserver
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import orjson

from ragpair.testing.engines import Answer
from ragpair.testing.faults import Fault

_PIECES = 20
_BLANKS = b" " * 65536
_MOST_BLANKS = 2**30 // len(_BLANKS)
# Closing a socket that lingers for no time at all sends a reset.
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Request:
    """What arrived.

    Attributes:
        method: "GET" or "POST".
        path: With query string, if there was one.
        body: The JSON that was sent; None if there was none.
        headers: Names in lower case.
    """

    method: str
    path: str
    body: Any
    headers: Mapping[str, str]


class Listener(socketserver.ThreadingMixIn, HTTPServer):
    """A port that answers. It remembers its connections and their threads, so that none outlives it.

    Args:
        port: 0 is any that is free.
        answer: The answer to a request, and the fault that goes with it.
        idle: Seconds after which a connection that waits for a next request is closed.
        stopping: Set once the server is told to stop: whatever waits, waits on it.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        port: int,
        answer: Callable[[Request], tuple[Answer, Fault]],
        idle: float | None,
        stopping: threading.Event,
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer, self.idle, self.stopping = answer, idle, stopping
        self.working: set[socket.socket] = set()
        self._open: dict[threading.Thread, socket.socket] = {}
        self._loop = threading.Thread(target=self.serve_forever, args=(0.01,), name="FakeServer", daemon=True)
        self._loop.start()

    def server_bind(self) -> None:
        """Without looking the host's name up, as HTTPServer's own does."""
        socketserver.TCPServer.server_bind(self)

    @property
    def alive(self) -> bool:
        """Whether the port is open."""
        return self._loop.is_alive()

    def close_port(self) -> None:
        """Refuse connections from here on."""
        self.shutdown()
        self._loop.join()
        self.server_close()

    def hang_up(self, *, but: socket.socket | None = None) -> None:
        """Close the port and all connections, but for one; without one, wait for the threads."""
        self.close_port()
        for thread, connection in list(self._open.items()):
            if connection is not but:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            if but is None:
                thread.join()

    def drop_idle(self) -> None:
        """Close the connections that wait for a next request, and wait for their ends."""
        for thread, connection in list(self._open.items()):
            if connection not in self.working:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)  # the end of an answer that is on its way still arrives
                thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread that is remembered."""
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self._open[thread] = request
        thread.start()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The whole life of a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.pop(threading.current_thread(), None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up in the middle of things; that is their right."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave together
    server: Listener

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def handle_one_request(self) -> None:
        self.connection.settimeout(self.server.idle)
        super().handle_one_request()
        self.server.working.discard(self.connection)

    def parse_request(self) -> bool:
        self.server.working.add(self.connection)
        self.connection.settimeout(None)
        return super().parse_request()

    def do_GET(self) -> None:
        self._serve(None)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            self._serve(orjson.loads(data))
        except orjson.JSONDecodeError:
            self._serve(None)

    def _serve(self, body: Any) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer, fault = self.server.answer(Request(self.command, self.path, body, headers))
        if fault.dies:
            self.server.hang_up(but=self.connection)
        if fault.lost or fault.endless or fault.dies:
            self.close_connection = True
        if fault.lost != "before":
            self._send(answer, fault)
        if fault.reset:
            self._reset()

    def _send(self, answer: Answer, fault: Fault) -> None:
        data = answer.body.encode() if isinstance(answer.body, str) else answer.body
        data = data if isinstance(data, bytes) else orjson.dumps(data)
        headers = {"Content-Type": answer.content_type, **fault.headers}
        if fault.gzip:
            headers["Content-Encoding"] = "gzip"
        if fault.gzip and not fault.endless:
            data = gzip.compress(data, mtime=0)
        if fault.dies:
            headers["Connection"] = "close"  # else a client that is quick would find its end, not a closed port
        if not fault.endless:
            headers["Content-Length"] = str(len(data))
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if fault.lost == "half":
            data = data[: len(data) // 2]
        for piece in self._pieces(data, fault):
            self.wfile.write(piece)
            self.wfile.flush()

    def _pieces(self, data: bytes, fault: Fault) -> Iterator[bytes]:
        """The body in the pieces in which it is sent; the last of them ends the work."""
        if fault.spread:
            size = max(1, -(-len(data) // _PIECES))
            *pieces, data = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
            for piece in pieces:
                yield piece
                if self.server.stopping.wait(fault.spread / _PIECES):
                    return
        if fault.endless:
            packed = zlib.compressobj(wbits=31) if fault.gzip else None
            for piece in (data, *(_BLANKS for _ in range(_MOST_BLANKS))):
                yield packed.compress(piece) + packed.flush(zlib.Z_SYNC_FLUSH) if packed else piece
                if self.server.stopping.is_set():
                    break
            data = packed.flush() if packed else b""
        self.server.working.discard(self.connection)
        yield data

    def _reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        os.close(self.connection.detach())  # close() would wait for the files that read and write here
