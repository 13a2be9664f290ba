"""The card of a published model: the Hub accepts it, and its snippets run unchanged."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from vtzoo.cli import DEFAULT_MODEL
from vtzoo.publish import commit

REPO = f"zoo/{DEFAULT_MODEL}"
TESTS = Path(__file__).resolve().parents[1]
ROCKET = TESTS / "photos" / "rocket.jpg"

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def card(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The embedded model's card on the Hub, beside the files that `vtzoo publish` sends."""
    publication = commit.prepare(DEFAULT_MODEL, "zoo", tmp_path / "index.toml")
    hub.push(REPO, publication.files)
    shutil.copy(ROCKET, tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return hub.files(REPO)["README.md"].decode()


def done(finished: CompletedProcess[str]) -> str:
    """The stdout of a process, which must exit with 0."""
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_three_snippets_of_a_published_card_give_one_answer(card: str, run: Run) -> None:
    (command,) = re.findall(r"^```bash\n(vtzoo predict .*?)\n```$", card, re.MULTILINE)
    python, timms = re.findall(r"^```python\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)
    _, best, *_ = done(run("-m", *shlex.split(command))).splitlines()
    probability, label = best.split()
    assert f"%  {label}\n" in (TESTS.parent / "README.md").read_text(encoding="utf-8")
    for snippet in (python, timms):
        other, number = done(run(snippet)).split()
        assert other == label
        assert float(number) == pytest.approx(float(probability.rstrip("%")) / 100, abs=1e-3)


@pytest.mark.usefixtures("card")
def test_the_hubs_own_validation_accepts_the_card(run: Run) -> None:
    program = (
        f"from huggingface_hub import ModelCard; card = ModelCard.load({REPO!r}); card.validate(); print(card.data)"
    )
    assert "model-index" in done(run(program))


@pytest.mark.usefixtures("card")
def test_the_hubs_own_validation_sees_a_card_that_is_wrong(run: Run) -> None:
    """A proof that the test above can fail."""
    program = (
        f"from huggingface_hub import ModelCard; card = ModelCard.load({REPO!r}); card.data.license = 'mine'\n"
        "card.validate()"
    )
    finished = run(program)
    assert finished.returncode == 1
    assert '"license" must be one of' in finished.stderr
