"""Calls to the Hub: patient where trouble may pass by itself, and a sentence where it does not."""

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

WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds between tries, give or take a fifth
AGAIN = "try again in a while; what has arrived is kept"

# What to say of the client's errors, by their class, the narrower first, and of the Hub's other answers, by status.
OFFLINE = (
    "{repo} is not in the cache as it is wanted, and HF_HUB_OFFLINE is set",
    "unset HF_HUB_OFFLINE, or pull it where there is a network",
)
UNREACHABLE = ("the Hub at {hub} cannot be reached", "check the network; what is cached works without")
GARBLED = ("the Hub at {hub} gives an answer that makes no sense", AGAIN)
PASSING = (OFFLINE, UNREACHABLE, GARBLED)
NONSENSE = ("GarbledError", "JSONDecodeError", "UnicodeDecodeError")
BY_KIND = {
    "OfflineModeIsEnabled": OFFLINE,
    "GatedRepoError": ("{repo} is gated", "ask for access at {hub}/{repo}, then: hf auth login"),
    "RevisionNotFoundError": ("{repo} has no such revision", "its branches and tags: {hub}/{repo}/tree/main"),
    "EntryNotFoundError": ("{repo} lacks a file that its commit lists", AGAIN),
    "RepositoryNotFoundError": (
        "the Hub has no model {repo}, or it is private",
        "check the name; for a private one: hf auth login",
    ),
    "HFValidationError": ("{repo!r} is not the name of a repository", "a repository is named ORG/NAME"),
    "TransportError": UNREACHABLE,
} | dict.fromkeys(NONSENSE, GARBLED)
BY_STATUS = {
    401: ("the Hub does not accept the token for {repo}", "log in again: hf auth login; or set HF_TOKEN"),
    403: ("the token does not allow this on {repo}", "take a token that may write there: hf auth login"),
}

Result = TypeVar("Result")
log = logging.getLogger("vtzoo.hub")


class UnreachableError(VtzooError):
    """The Hub gives no answer, or none but "not now": what is cached must do."""


class GarbledError(Exception):
    """An answer of the Hub's that is none."""


@contextmanager
def understood() -> Iterator[None]:
    """What the client makes of an answer that lacks a key is a GarbledError."""
    try:
        yield
    except KeyError as error:
        raise GarbledError(f"there is no {error}") from error


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids every request."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def api() -> Any:
    """The Hub's own client, which reads HF_TOKEN, HF_ENDPOINT and HF_HOME; no bars where there is no terminal."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as its

    watched = sys.stderr is not None and sys.stderr.isatty()
    if not watched and constants.HF_HUB_DISABLE_PROGRESS_BARS is None:  # a set variable has the last word
        disable_progress_bars()
    if "HF_HUB_VERBOSITY" not in os.environ:
        its.set_verbosity_error()  # what it warns of is said here in sentences, without addresses that hold signatures
    return HfApi(library_name="vtzoo")


def require_token(repo: str) -> None:
    """A VtzooError where nobody is logged in; the Hub would say that there is no such repository."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise VtzooError(f"the Hub does not know who publishes {repo}", "log in: hf auth login; or set HF_TOKEN")


def call(action: Callable[[], Result], repo: str, waits: tuple[float, ...] = WAITS) -> Result:
    """What `action` returns, tried again after each of the waits while the trouble may pass by itself.

    What the Hub answers in the end is a VtzooError about the repository `repo`; UnreachableError where that is nothing.
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
    """Whether the trouble may pass by itself: a broken connection, a failure of the server's, a request too many."""
    status = _status(error)
    cut = "Consistency check failed" in str(error)  # the client's OSError for fewer bytes than were promised
    garbled = any(_kind(error, kind) for kind in NONSENSE)  # of a server that fails before it can say so
    return _kind(error, "TransportError") or status in (408, 429) or status >= 500 or cut or garbled


def explain(error: BaseException, repo: str) -> BaseException:
    """The error as a sentence about a repository; one that is none of the Hub's is given back as it is."""
    status = _status(error)
    known = [sentence for kind, sentence in BY_KIND.items() if _kind(error, kind)] + [BY_STATUS.get(status)]
    told = next(filter(None, known), None)
    if told:
        kind = UnreachableError if told in PASSING else VtzooError
        return kind(*(part.format(repo=repo, hub=address()) for part in told))
    if status >= 500 or status in (408, 429):
        return UnreachableError(f"the Hub at {address()} answers {status}, again and again", AGAIN)
    foreign = isinstance(error, ValueError | OSError) and not getattr(error, "errno", None)
    if foreign or status or _kind(error, "HTTPError"):
        return VtzooError(f"the Hub refuses {repo}: {redacted(str(error))}")
    return error


def address() -> str:
    """The Hub's address, without a name and password that HF_ENDPOINT may hold."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def redacted(text: str) -> str:
    """A foreign message in one line, without tokens, passwords and signatures."""
    from huggingface_hub import get_token

    line = " ".join(text.split())[:300]
    if token := get_token():
        line = line.replace(token, "***")
    line = re.sub(r"\bhf_\w+", "***", line)
    line = re.sub(r"//[^/@\s]*@", "//", line)
    return re.sub(r"\?[^\s'\")]*", "", line)


def _cause(error: BaseException) -> BaseException:
    """What really went wrong where the client says that it found nothing in its cache either."""
    wrapped = _kind(error, "LocalEntryNotFoundError") or "Force download failed" in str(error)
    return _cause(error.__cause__) if wrapped and error.__cause__ else error


def _kind(error: BaseException, name: str) -> bool:
    # By name: the client's HTTP library, whose errors it passes on, has not always been the same one.
    return any(base.__name__ == name for base in type(error).__mro__)


def _status(error: BaseException) -> int:
    """The status of the Hub's answer; 0 where there is none."""
    return getattr(getattr(error, "response", None), "status_code", 0)
