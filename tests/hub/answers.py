"""Requests and answers of the test Hub without sockets, and the access rules."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store import Commit, Store


@dataclass(frozen=True, kw_only=True)
class Account:
    """The user of a token."""

    user: str
    organizations: tuple[str, ...] = ()
    write: bool = True

    def member(self, repo: str) -> bool:
        """Whether a repository "ORG/NAME" is the user's, or of one of the organizations."""
        return repo.split("/")[0] in (self.user, *self.organizations)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request; its body is not read yet."""

    method: str
    path: str  # quoted, without the query
    query: dict[str, list[str]]
    token: str | None
    pieces: Callable[[], Iterator[bytes]]  # the body as it arrives; a ConnectionError if it ends too early

    def json(self) -> Any:
        """The body, as JSON."""
        return json.loads(b"".join(self.pieces()))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response: a status, headers, and a body of bytes or of a whole file."""

    status: int = 200
    body: bytes | Path = b""
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):  # noqa: N818, the client makes the errors
    """A refusing answer; `code` selects the exception that the client raises."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        plain = message.encode("ascii", "backslashreplace").decode()  # the encoding of headers
        headers = {"X-Error-Message": plain} | ({"X-Error-Code": code} if code else {})
        self.answer = say({"error": message}, status, headers)


def say(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """An answer in JSON."""
    headers = {"Content-Type": "application/json; charset=utf-8"} | (headers or {})
    return Answer(status=status, body=json.dumps(value).encode(), headers=headers)


class Api:
    """The store and the users of its tokens. `url` and `cdn` are the server's two origins."""

    def __init__(self, store: Store, accounts: dict[str, Account], url: str, cdn: str) -> None:
        self.store, self.accounts, self.url, self.cdn = store, accounts, url, cdn

    def account(self, request: Request) -> Account | None:
        """The user of the request; refuses an unknown token."""
        if request.token and request.token not in self.accounts:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.accounts.get(request.token or "")

    def readable(self, request: Request, repo: str) -> None:
        """Refuse a missing repository, and in the same way one that is private and not the user's."""
        account = self.account(request)
        member = account is not None and account.member(repo)
        if not self.store.exists(repo) or (self.store.marked(repo, "private") and not member):
            if account is None:
                raise Refusal(401, "Invalid username or password.", "RepoNotFound")
            raise Refusal(404, "Repository not found", "RepoNotFound")

    def granted(self, request: Request, repo: str) -> None:
        """Refuse a repository that the user cannot read, or that is gated and not the user's."""
        self.readable(request, repo)
        account = self.account(request)
        if self.store.marked(repo, "gated") and not (account and account.member(repo)):
            message = f"Access to model {repo} is restricted."
            raise Refusal(403 if account else 401, message, "GatedRepo")

    def writable(self, request: Request, repo: str) -> None:
        """Refuse a missing repository, and one that the user must not write to."""
        self.readable(request, repo)
        self.own(request, repo)

    def own(self, request: Request, repo: str) -> None:
        """Refuse an ORG of "ORG/NAME" under which the user must not write."""
        account = self.account(request)
        if account is None:
            # The real Hub sends no code: the client knows this 401 by the Hub's https address, which this server lacks.
            raise Refusal(401, "Invalid username or password.", "RepoNotFound")
        if not account.write or not account.member(repo):
            namespace = repo.split("/")[0]
            raise Refusal(403, f"You don't have the rights to write under the namespace {namespace!r}")

    def commit(self, repo: str, revision: str) -> Commit:
        """The commit of a revision."""
        commit = self.store.find(repo, revision)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit
