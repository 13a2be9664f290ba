"""Retries of the Hub's errors, and the messages about them."""

from collections.abc import Callable

import pytest

from vtzoo.errors import VtzooError
from vtzoo.hub import client


class AnswerError(Exception):
    """The client's error for an answer of the Hub."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status} Server Error for url: https://cdn/file?X-Signature=abc (hf_secretsecret)")
        self.response = type("Response", (), {"status_code": status})


def failing(times: int, error: Exception) -> Callable[[], int]:
    """A function that fails the given number of times, and then returns the number of its calls."""
    calls = 0

    def act() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise error
        return calls

    return act


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of all waits, which are skipped."""
    seconds: list[float] = []
    monkeypatch.setattr(client.time, "sleep", seconds.append)
    return seconds


def test_passing_trouble_is_tried_again_after_longer_and_longer_waits(waited: list[float]) -> None:
    assert client.call(failing(3, AnswerError(503)), "zoo/m") == 4
    assert [0.4 <= waited[0] <= 0.6, 0.8 <= waited[1] <= 1.2, 1.6 <= waited[2] <= 2.4] == [True] * 3


def test_trouble_that_does_not_pass_is_unreachable(waited: list[float]) -> None:
    with pytest.raises(client.UnreachableError, match="answers 503, again and again"):
        client.call(failing(9, AnswerError(503)), "zoo/m")
    assert len(waited) == len(client.WAITS)


@pytest.mark.parametrize(("status", "said"), [(401, "does not accept the token"), (403, "does not allow this")])
def test_a_refusal_is_said_at_once(status: int, said: str, waited: list[float]) -> None:
    with pytest.raises(VtzooError, match=said):
        client.call(failing(9, AnswerError(status)), "zoo/m")
    assert waited == []


def test_what_is_none_of_the_hubs_is_raised_as_it_is(waited: list[float]) -> None:
    for error in (OSError(28, "No space left on device"), KeyError("defect"), VtzooError("a sentence of ours")):
        with pytest.raises(type(error)) as caught:
            client.call(failing(9, error), "zoo/m")
        assert caught.value is error
    assert waited == []


def test_a_foreign_message_is_told_without_tokens_passwords_and_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "not-of-the-usual-form")
    told = client.redacted("for https://ada:pass@hub/x?sig=abc&y=1 with hf_AbC123 and\n not-of-the-usual-form; 418")
    assert told == "for https://hub/x with *** and ***; 418"
    error = client.explain(AnswerError(418), "zoo/m")
    assert str(error) == "the Hub refuses zoo/m: 418 Server Error for url: https://cdn/file (***)"
