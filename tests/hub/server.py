"""A Hugging Face Hub in one process, for tests: the real client talks to it, and it fails when it is told to.

    with Hub(folder) as hub:
        hub.push("zoo/model", {"config.json": b"{}"})
        hub.fault("cut", "GET .*model.safetensors")  # the next such body ends half way
        subprocess.run([...], env=hub.environment(home))

Clients run in processes of their own, as huggingface_hub reads HF_ENDPOINT when it is imported. By hand:
`python tests/hub/server.py FOLDER --port 8000 --token hf_write`.
"""

import argparse
import io
import os
import re
import socket
import struct
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

import routes
from answers import Account, Answer, Api, Request
from store import Commit, Store

PIECE = 1024**2  # bytes read at a time
STATUSES = {"500": 500, "502": 502, "503": 503, "504": 504, "429": 429}
KINDS = (*STATUSES, "reset", "lost", "cut", "flip", "stall")
TOKENS = {
    "hf_write": Account(user="ada", organizations=("zoo",)),
    "hf_read": Account(user="ada", organizations=("zoo",), write=False),
    "hf_other": Account(user="eve"),
}


@dataclass(kw_only=True)
class Fault:
    """What shall go wrong, and with which requests."""

    kind: str
    pattern: str
    times: int
    skip: int
    seconds: float


class Handler(BaseHTTPRequestHandler):
    """Reads requests off a connection and writes the answers, or does what a fault says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a small body right after its headers would wait for 40 ms
    server: "Server"

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002, its name in the base class
        """Say nothing: `Hub.requests` has it all."""

    def serve(self) -> None:
        """Answer one request."""
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

    def take(self, *kinds: str) -> Fault | None:
        return self.server.hub.take(kinds, f"{self.command} {self.route}")

    def answer(self) -> Answer:
        """The Hub's answer; 500 where this server has a defect, which `Hub.failures` then shows."""
        url = urlsplit(self.path)
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        request = Request(
            method=self.command, path=url.path, query=parse_qs(url.query), token=bearer, pieces=self.pieces
        )  # fmt: skip
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
        self.rfile.close()  # it holds the connection open
        self.connection.close()

    def send(self, answer: Answer) -> None:
        """Write an answer, or the part of a file that was asked for."""
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

    def send_content(self, file: BinaryIO, start: int, stop: int, fault: Fault | None) -> None:
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
        """Forget clients that hang up; remember our own defects."""
        error = traceback.format_exc()
        if "ConnectionResetError" not in error and "BrokenPipeError" not in error:
            self.hub.failures.append(error)

    def close(self) -> None:
        self.shutdown()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class Hub:
    """A Hub on this machine, with what is in a folder, while it is open as a context."""

    def __init__(self, folder: Path, *, port: int = 0, tokens: dict[str, Account] | None = None) -> None:
        self.folder, self.store = folder, Store(folder)
        self.requests: list[tuple[str, str, int]] = []  # method, path and status, or 0 where no answer was sent
        self.failures: list[str] = []  # defects of this server, as tracebacks
        self.faults: list[Fault] = []  # what is still to go wrong
        self.closing, self.lock = threading.Event(), threading.Lock()
        # Content is sent from another origin than the Hub's, as it really is: clients must not send it their token.
        self.servers = [Server(self, port), Server(self, 0)]
        self.url = self.servers[0].url
        self.api = Api(self.store, TOKENS if tokens is None else tokens, self.url, self.servers[1].url)

    def __enter__(self) -> "Hub":
        self.threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in self.servers]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        for server, thread in zip(self.servers, self.threads, strict=True):
            server.close()
            thread.join()

    def push(self, repo: str, files: dict[str, bytes], message: str = "push", delete: Iterable[str] = ()) -> str:
        """Commit files, and delete others, without a request; the commit's id. The repository is made if need be."""
        with self.store.lock:
            if not self.store.exists(repo):
                self.store.create(repo)
            kept = {path: self.store.keep(repo, path, content) for path, content in files.items()}
            return self.store.commit(repo, kept, message, delete)

    def head(self, repo: str) -> str | None:
        """The id of the last commit; None where there is no such repository."""
        return self.store.commits(repo)[0].id if self.store.exists(repo) else None

    def commits(self, repo: str) -> list[Commit]:
        """All commits, newest first; the last one is the repository's creation."""
        return self.store.commits(repo)

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """The content of every file, .gitattributes too."""
        commit = self.store.commits(repo, revision)[0]
        return {path: self.store.blob(file.key).read_bytes() for path, file in commit.files.items()}

    def tags(self, repo: str) -> dict[str, str]:
        """The id of the commit each tag stands for."""
        return self.store.tags(repo)

    def make_private(self, repo: str) -> None:
        """Hide a repository from all who are not of its organization."""
        self.store.mark(repo, "private")

    def gate(self, repo: str) -> None:
        """Keep the content of a repository from all who are not of its organization."""
        self.store.mark(repo, "gated")

    def fault(self, kind: str, pattern: str, times: int = 1, skip: int = 0, seconds: float = 1.0) -> None:
        """Let `times` requests go wrong, after `skip` others, whose "METHOD path" has a match of `pattern`.

        `kind` is a status ("500", "502", "503", "504", "429") or "reset": nothing is done, and that is the answer;
        "lost": it is done, but the connection is reset before the answer; "cut" or "flip": half of the content is
        sent, or one bit of it is wrong; "stall": it takes `seconds` longer, until the server closes.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown fault {kind!r}: one of {', '.join(KINDS)}")
        with self.lock:
            self.faults.append(Fault(kind=kind, pattern=pattern, times=times, skip=skip, seconds=seconds))

    def clear_faults(self) -> None:
        """Let everything go well again."""
        with self.lock:
            self.faults.clear()

    def environment(self, home: Path, token: str | None = "hf_write") -> dict[str, str]:
        """The variables of a process that knows this Hub alone, as the owner of a token, and keeps all in `home`."""
        alien = ("HF_", "HUGGING", "VTZOO_")
        found = {name: value for name, value in os.environ.items() if not name.startswith(alien)}
        found |= {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "VTZOO_CACHE": str(home / "vtzoo")}
        found |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
        return found | ({"HF_TOKEN": token} if token else {})

    def take(self, kinds: tuple[str, ...], request: str) -> Fault | None:
        """The fault of one of these kinds that a request is due, which is then one less."""
        with self.lock:
            for fault in self.faults:
                if fault.kind in kinds and re.search(fault.pattern, request):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    self.faults[:] = [one for one in self.faults if one.times > 0]
                    return fault
        return None


def main() -> None:
    """Serve a folder until interrupted."""
    parser = argparse.ArgumentParser(description="Serve a folder as a Hugging Face Hub.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--token", default="hf_write", help="may write under every organization named by --org")
    parser.add_argument("--org", default=["zoo"], nargs="*")
    chosen = parser.parse_args()
    accounts = {chosen.token: Account(user="ada", organizations=tuple(chosen.org))}
    with Hub(chosen.folder, port=chosen.port, tokens=accounts) as hub, suppress(KeyboardInterrupt):
        print(hub.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
