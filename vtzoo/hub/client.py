"""Calls to the Hub, which retry temporary failures and turn permanent ones into sentences."""

import logging
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from vtzoo.errors import VtzooError

WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds between tries, plus or minus a fifth
AGAIN = "try again in a while; what has arrived is kept"

# Messages and hints: by class of the client's error, subclasses first, then by the status of the Hub's answer.
OFFLINE = (
    "the cache lacks files of {repo}, and HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE, or pull the model online",
)  # fmt: skip
UNREACHABLE = ("the Hub at {hub} cannot be reached", "check the network; cached models work without it")
GARBLED = ("the Hub at {hub} gives an answer that makes no sense", AGAIN)
PASSING = (OFFLINE, UNREACHABLE, GARBLED)
NONSENSE = ("GarbledError", "JSONDecodeError", "UnicodeDecodeError")
BY_KIND = {
    "OfflineModeIsEnabled": OFFLINE,
    "GatedRepoError": ("{repo} is gated", "ask for access at {hub}/{repo}, then: hf auth login"),
    "RevisionNotFoundError": ("{repo} has no such revision", "its branches and tags: {hub}/{repo}/tree/main"),
    "EntryNotFoundError": ("{repo} lacks a file that its commit lists", AGAIN),
    "RepositoryNotFoundError": (
        "the Hub has no model {repo}, or it is private", "check the name; for a private one: hf auth login",
    ),
    "HFValidationError": ("{repo!r} is not the name of a repository", "a repository is named ORG/NAME"),
    "TransportError": UNREACHABLE,
} | dict.fromkeys(NONSENSE, GARBLED)  # fmt: skip
BY_STATUS = {
    401: ("the Hub does not accept the token for {repo}", "log in again: hf auth login; or set HF_TOKEN"),
    403: ("the token does not allow this on {repo}", "take a token that may write there: hf auth login"),
}

Result = TypeVar("Result")
log = logging.getLogger("vtzoo.hub")


class UnreachableError(VtzooError):
    """The Hub cannot be reached or is overloaded: the cache must do."""


class GarbledError(Exception):
    """An answer of the Hub that makes no sense."""


@contextmanager
def understood() -> Iterator[None]:
    """Turn the client's KeyError for an incomplete answer into a GarbledError."""
    try:
        yield
    except KeyError as error:
        raise GarbledError(f"there is no {error}") from error


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids every request."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def api() -> Any:
    """huggingface_hub's client, which reads HF_TOKEN, HF_ENDPOINT and HF_HOME; no progress bars without a terminal."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as its

    watched = sys.stderr is not None and sys.stderr.isatty()
    if not watched and constants.HF_HUB_DISABLE_PROGRESS_BARS is None:  # the environment variable takes precedence
        disable_progress_bars()
    if "HF_HUB_VERBOSITY" not in os.environ:
        its.set_verbosity_error()  # its warnings hold signed addresses; vtzoo has sentences of its own
    return HfApi(library_name="vtzoo")


def require_token(repo: str) -> None:
    """Raise a VtzooError without a token; the Hub itself would call the repository unknown."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise VtzooError(f"the Hub does not know who publishes {repo}", "log in: hf auth login; or set HF_TOKEN")


def call(action: Callable[[], Result], repo: str, waits: tuple[float, ...] = WAITS) -> Result:
    """The result of `action`, retried after each of the waits while the failure is temporary.

    The last failure becomes a VtzooError about the repository `repo`: an UnreachableError if the Hub gave no answer.
    """
    for wait in (*waits, None):
        try:
            return action()
        except VtzooError:
            raise
        except Exception as error:  # the client's errors share no base: OSError, ValueError, its HTTP library's own
            cause = _cause(error)
            if wait is None or not passing(cause):
                raise explain(cause, repo) from error
        time.sleep(wait * random.uniform(0.8, 1.2))
    raise AssertionError("the last try returns or raises")


def passing(error: BaseException) -> bool:
    """Whether the failure is temporary: a broken connection, a failing server or a rate limit."""
    status = _status(error)
    cut = "Consistency check failed" in str(error)  # the client's OSError for a truncated download
    garbled = any(_kind(error, kind) for kind in NONSENSE)  # a failing server may answer without an error status
    return _kind(error, "TransportError") or status in (408, 429) or status >= 500 or cut or garbled


def explain(error: BaseException, repo: str) -> BaseException:
    """The error as a VtzooError about a repository; returns an error that does not come from the Hub unchanged."""
    status = _status(error)
    known = [sentence for kind, sentence in BY_KIND.items() if _kind(error, kind)] + [BY_STATUS.get(status)]
    if sentence := next(filter(None, known), None):
        kind = UnreachableError if sentence in PASSING else VtzooError
        return kind(*(part.format(repo=repo, hub=address()) for part in sentence))
    if status >= 500 or status in (408, 429):
        return UnreachableError(f"the Hub at {address()} answers {status}, again and again", AGAIN)
    foreign = isinstance(error, ValueError | OSError) and not getattr(error, "errno", None)
    if foreign or status or _kind(error, "HTTPError"):
        return VtzooError(f"the Hub refuses {repo}: {redacted(str(error))}")
    return error


def address() -> str:
    """The Hub's address, without any user name and password in HF_ENDPOINT."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def redacted(text: str) -> str:
    """The client's message in one line, without tokens, passwords and signatures."""
    from huggingface_hub import get_token

    line = " ".join(text.split())[:300]
    if token := get_token():
        line = line.replace(token, "***")
    line = re.sub(r"\bhf_\w+", "***", line)
    line = re.sub(r"//[^/@\s]*@", "//", line)
    return re.sub(r"\?[^\s'\")]*", "", line)


def _cause(error: BaseException) -> BaseException:
    """The first error in the chain, which the client hides behind its report of an empty cache."""
    wrapped = _kind(error, "LocalEntryNotFoundError") or "Force download failed" in str(error)
    return _cause(error.__cause__) if wrapped and error.__cause__ else error


def _kind(error: BaseException, name: str) -> bool:
    # By name, because releases of the client pass on the errors of different HTTP libraries.
    return any(base.__name__ == name for base in type(error).__mro__)


def _status(error: BaseException) -> int:
    """The status of the Hub's answer; 0 without an answer."""
    return getattr(getattr(error, "response", None), "status_code", 0)
