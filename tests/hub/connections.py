"""The HTTP of the test server: reads requests, writes answers, and produces faults."""

import io
import re
import socket
import struct
import traceback
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

import routes
from answers import Answer, Request

if TYPE_CHECKING:
    from server import Fault, Hub

PIECE = 1024**2  # bytes read at a time
STATUSES = {"500": 500, "502": 502, "503": 503, "504": 504, "429": 429}


class Handler(BaseHTTPRequestHandler):
    """Reads requests from a connection and writes the answers, or the fault that is due."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # without it, a small body after its headers waits for 40 ms
    server: "Server"

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)
        if self.server.hub.closing.is_set():  # the server is already closing its connections
            self.connection.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002, its name in the base class
        """Print nothing: `Hub.requests` records the requests."""

    def handle_one_request(self) -> None:
        """Wait for a request and answer it."""
        try:
            super().handle_one_request()
        finally:
            self.server.hub.serving.discard(self)

    def serve(self) -> None:
        """Answer one request."""
        self.server.hub.serving.add(self)
        hub, self.route = self.server.hub, unquote(urlsplit(self.path).path)
        self.remaining = int(self.headers.get("Content-Length") or 0)  # bytes of the body
        if stall := self.take("stall"):
            hub.closing.wait(stall.seconds)
        instead = self.take("reset", *STATUSES)
        answer = self.answer() if instead is None else Answer(status=STATUSES.get(instead.kind, 0))
        if (instead and instead.kind == "reset") or (instead is None and self.take("lost")):
            hub.requests.append((self.command, self.route, 0))
            self.reset()
            return
        for _ in self.pieces():  # what the answer did not need
            pass
        self.send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve  # noqa: N815, their names in the base class

    def take(self, *kinds: str) -> "Fault | None":
        return self.server.hub.take(kinds, f"{self.command} {self.route}")

    def answer(self) -> Answer:
        """The Hub's answer, or a 500 for a defect of this server, which `Hub.failures` then holds."""
        url = urlsplit(self.path)
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        query = parse_qs(url.query)
        request = Request(method=self.command, path=url.path, query=query, token=bearer, pieces=self.pieces)
        try:
            return routes.answer(self.server.hub.api, request)
        except ConnectionError:
            raise
        except Exception:
            self.server.hub.failures.append(traceback.format_exc())
            return Answer(status=500)

    def pieces(self) -> Iterator[bytes]:
        """The rest of the request's body."""
        while self.remaining:
            piece = self.rfile.read(min(PIECE, self.remaining))
            if not piece:
                raise ConnectionResetError("the client hung up in the middle of a body")
            self.remaining -= len(piece)
            yield piece

    def reset(self) -> None:
        """Close the connection as a crashed peer does."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()  # an open file keeps the connection open
        self.connection.close()

    def send(self, answer: Answer) -> None:
        """Write an answer, or the requested range of a file."""
        size = len(answer.body) if isinstance(answer.body, bytes) else answer.body.stat().st_size
        status, start, stop, headers = answer.status, 0, size, answer.headers
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and status == 200:
            start, stop = int(wanted[1]), min(int(wanted[2] or size - 1) + 1, size)
            status, part = (206, f"{start}-{stop - 1}") if start < stop else (416, "*")
            headers = headers | {"Content-Range": f"bytes {part}/{size}"}
        self.server.hub.requests.append((self.command, self.route, status))
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(max(stop - start, 0))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or start >= stop:
            return
        with io.BytesIO(answer.body) if isinstance(answer.body, bytes) else answer.body.open("rb") as file:
            self.send_content(file, start, stop, self.take("cut", "flip") if status in (200, 206) else None)

    def send_content(self, file: BinaryIO, start: int, stop: int, fault: "Fault | None") -> None:
        middle = (start + stop) // 2
        if middle > start:
            self.connection.sendfile(file, start, middle - start)
        if fault and fault.kind == "cut":
            self.close_connection = True
            return
        if fault:
            file.seek(middle)
            self.connection.sendall(bytes([file.read(1)[0] ^ 1]))
            middle += 1
        if stop > middle:
            self.connection.sendfile(file, middle, stop - middle)


class Server(ThreadingMixIn, TCPServer):
    """One of the two origins of a Hub."""

    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, hub: "Hub", port: int) -> None:
        self.hub, self.connections = hub, set[socket.socket]()
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that close the connection; record defects of this server."""
        error = traceback.format_exc()
        if "ConnectionResetError" not in error and "BrokenPipeError" not in error:
            self.hub.failures.append(error)

    def close(self) -> None:
        self.shutdown()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
