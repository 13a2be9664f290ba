"""A Hugging Face Hub in one process, for tests with the real client, which fails on demand.

    with Hub(folder) as hub:
        hub.push("zoo/model", {"config.json": b"{}"})
        hub.fault("cut", "GET .*model.safetensors")  # the next such body ends half way
        subprocess.run([...], env=hub.environment(home))

Clients run in processes of their own, as huggingface_hub reads HF_ENDPOINT when it is imported. By hand:
`python tests/hub/server.py FOLDER --port 8000 --token hf_write`.
"""

import argparse
import os
import re
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from answers import Account, Api
from connections import STATUSES, Handler, Server
from store import Commit, Store

KINDS = (*STATUSES, "reset", "lost", "cut", "flip", "stall")
TOKENS = {
    "hf_write": Account(user="ada", organizations=("zoo",)),
    "hf_read": Account(user="ada", organizations=("zoo",), write=False),
    "hf_other": Account(user="eve"),
}


@dataclass(kw_only=True)
class Fault:
    """A kind of fault, and the requests that it affects."""

    kind: str
    pattern: str
    times: int
    skip: int
    seconds: float


class Hub:
    """A local Hub with the content of a folder; it serves while it is open as a context."""

    def __init__(self, folder: Path, *, port: int = 0, tokens: dict[str, Account] | None = None) -> None:
        self.folder, self.store = folder, Store(folder)
        self.requests: list[tuple[str, str, int]] = []  # method, path and status, or 0 where no answer was sent
        self.failures: list[str] = []  # defects of this server, as tracebacks
        self.faults: list[Fault] = []  # faults still to come
        self.serving: set[Handler] = set()  # connections whose request is not yet answered
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
        """Commit files and deletions without a request, and return the commit's id; creates a missing repository."""
        with self.store.lock:
            if not self.store.exists(repo):
                self.store.create(repo)
            kept = {path: self.store.keep(repo, path, content) for path, content in files.items()}
            return self.store.commit(repo, kept, message, delete)

    def head(self, repo: str) -> str | None:
        """The id of the last commit; None for a missing repository."""
        return self.store.commits(repo)[0].id if self.store.exists(repo) else None

    def commits(self, repo: str) -> list[Commit]:
        """All commits, newest first; the last one is the repository's creation."""
        return self.store.commits(repo)

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """The content of every file, including .gitattributes."""
        commit = self.store.commits(repo, revision)[0]
        return {path: self.store.blob(file.key).read_bytes() for path, file in commit.files.items()}

    def tags(self, repo: str) -> dict[str, str]:
        """The id of the commit each tag stands for."""
        return self.store.tags(repo)

    def make_private(self, repo: str) -> None:
        """Hide a repository from users outside its organization."""
        self.store.mark(repo, "private")

    def gate(self, repo: str) -> None:
        """Refuse a repository's content to users outside its organization."""
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
        """Remove all faults."""
        with self.lock:
            self.faults.clear()

    def environment(self, home: Path, token: str | None = "hf_write") -> dict[str, str]:
        """The environment of a process that uses only this Hub, with a token, and keeps its files in `home`."""
        alien = re.compile("HF_|HUGGING|VTZOO_|.*_proxy$", re.IGNORECASE)
        found = {name: value for name, value in os.environ.items() if not alien.match(name)}
        found |= {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "VTZOO_CACHE": str(home / "vtzoo")}
        found |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        return found | ({"HF_TOKEN": token} if token else {})

    def take(self, kinds: tuple[str, ...], request: str) -> Fault | None:
        """The fault of one of these kinds that is due for a request; counts it as done."""
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
