"""Killed publishers and pullers, and a Hub that fails in every way: the stored models are whole and true.

A seed, which a failure names, draws the moments and the faults. The suite takes three of each; `pytest -m stress
tests/hub` takes fifty, and requires that a good share of the kills fall into the transfer itself.
"""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import routes
from answers import Answer
from folders import NAME, make_run, pixels, sign
from safetensors.numpy import save_file
from server import KINDS, Hub

from vtzoo.publish.commit import prepare

REPO = f"zoo/{NAME}"
FEW, MANY = range(3), range(3, 53)
ROOT = Path(__file__).resolve().parents[2]
STALLS = 0.15  # seconds, by which the requests that matter take longer: that is where half of the kills shall fall
# Requests that a fault may meet: the commit, its listing, a file's whereabouts, small and large content, any.
REQUESTS = ("GET .*/revision/", "GET .*/tree/", "HEAD ", "GET .*/resolve/", "GET .*/cdn/", "GET ", "config.json", "")


@dataclass(frozen=True, kw_only=True)
class World:
    """Two versions of a model, the published files and predictions of each, and the durations of a publisher and a
    puller.
    """

    folders: tuple[Path, Path]
    files: tuple[dict[str, bytes], dict[str, bytes]]
    answers: tuple[str, str]
    photo: Path
    publishing: tuple[float, float]  # seconds: the whole process, and from its first request on
    pulling: tuple[float, float]


def environment(hub: Hub, home: Path) -> dict[str, str]:
    return hub.environment(home) | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def vtzoo(*arguments: object, **variables: str) -> tuple[int, str, str]:
    """How `vtzoo` ends, and what it prints; never a traceback."""
    command = [sys.executable, "-m", "vtzoo", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 1), done.stderr
    assert (done.returncode == 0) == (not done.stderr.startswith("Error: ")), done.stderr
    return done.returncode, done.stdout, done.stderr


def killed(hub: Hub, moment: tuple[bool, float], *arguments: object, **variables: str) -> int:
    """How `vtzoo` ends that is killed after so many seconds of its life, or of its talk with the Hub."""
    talking, seconds = moment
    command = [sys.executable, "-m", "vtzoo", *map(str, arguments)]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while talking and not hub.requests and process.poll() is None:
            time.sleep(0.002)
        try:
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    deadline = time.monotonic() + 20
    while hub.serving and time.monotonic() < deadline:  # the server still executes a complete request
        time.sleep(0.01)
    return process.returncode


def draw(generator: random.Random, span: tuple[float, float]) -> tuple[bool, float]:
    """A moment for a kill: in half of the cases anywhere in the process's life, in the others during its requests."""
    talking = generator.random() < 0.5
    return talking, generator.random() * span[talking]


def slow(hub: Hub) -> None:
    """Make the requests that change or transfer something slow."""
    hub.fault("stall", "PUT |POST .*/(commit|tag|preupload)/|GET .*/(cdn|tree)/", times=1000, seconds=STALLS)


def timed(hub: Hub, *arguments: object, **variables: str) -> tuple[float, float]:
    """Seconds of a whole process, and from its first request on."""
    hub.requests.clear()
    command = [sys.executable, "-m", "vtzoo", *map(str, arguments)]
    began, first = time.monotonic(), 0.0
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            first = first or (time.monotonic() if hub.requests else 0)
            time.sleep(0.002)
    assert process.returncode == 0
    return time.monotonic() - began, time.monotonic() - first


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    place = tmp_path_factory.mktemp("world")
    folders = tuple(make_run(place / version / NAME, seed) for seed, version in enumerate(("old", "new")))
    for seed, folder in enumerate(folders):  # a file that takes its time
        noise = np.random.default_rng(seed).random(2_000_000, np.float32)
        save_file({"head.weight": noise}, folder / "localizer.safetensors", {"format": "pt"})
        sign(folder)
    photo = place / "photo.png"
    pixels(0).save(photo)
    with Hub(place / "hub") as hub:
        slow(hub)
        variables = environment(hub, place / "home")
        answers = [vtzoo("predict", photo, "--model", folder, "--json", **variables)[1] for folder in folders]
        publishing = timed(hub, "publish", folders[0], "--org", "zoo", "--index", place / "index.toml", **variables)
        pulling = timed(hub, "pull", REPO, "--local-dir", place / "own", **variables)
    assert answers[0] != answers[1]
    return World(
        folders=folders, files=tuple(prepare(folder, "zoo").files for folder in folders), answers=tuple(answers),
        photo=photo, publishing=publishing, pulling=pulling,
    )  # fmt: skip


@contextmanager
def named(seed: int) -> Iterator[random.Random]:
    """What is drawn by a seed; a failure names the seed."""
    try:
        yield random.Random(seed)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


def state(hub: Hub) -> dict[str, bytes]:
    """The files at the head without .gitattributes; empty for a missing repository."""
    files = hub.files(REPO) if hub.head(REPO) else {}
    return {path: content for path, content in files.items() if path != ".gitattributes"}


def kill_publisher(seed: int, world: World, place: Path) -> str:
    """Kill a publisher, look at the Hub, and publish again; where the kill fell. Every second one has predecessors."""
    with named(seed) as generator, Hub(place / "hub") as hub:
        before = world.files[0] if generator.random() < 0.5 else {}
        if before:
            hub.push(REPO, before)
        old = len(hub.commits(REPO)) if before else 1  # including the repository's first commit
        command = ["publish", world.folders[1], "--org", "zoo", "--index", place / "index.toml"]
        slow(hub)
        status = killed(hub, draw(generator, world.publishing), *command, **environment(hub, place / "home"))
        found, tagged, told = state(hub), hub.head(REPO) and hub.tags(REPO), (place / "index.toml").exists()
        assert found in (before, world.files[1])
        assert not tagged or found == world.files[1]
        assert not told or tagged
        assert list((hub.folder / "blobs").glob(".*")) == []
        talked = len(hub.requests)
        hub.clear_faults()
        code, _, errors = vtzoo(*command, **environment(hub, place / "home"))
        assert code == 0, errors
        assert state(hub) == world.files[1]
        assert len(hub.commits(REPO)) == old + 1
        assert hub.tags(REPO) == {"v1.0": hub.head(REPO)}
        assert f'revision = "{hub.head(REPO)}"' in (place / "index.toml").read_text()
        assert hub.failures == []
    if status == 0:
        return "too late"
    return "before" if not talked else "after the commit" if found == world.files[1] else "in the transfer"


def kill_puller(seed: int, world: World, place: Path) -> str:
    """Kill a puller, ask what is there, and pull again; where the kill fell. Every second one had an older version."""
    with named(seed) as generator, Hub(place / "hub") as hub:
        variables, own = environment(hub, place / "home"), place / "own"
        command = ["pull", REPO, "--local-dir", own]
        hub.push(REPO, world.files[0])
        if generator.random() < 0.5:
            assert vtzoo(*command, **variables)[0] == 0
        hub.push(REPO, world.files[1])
        hub.requests.clear()
        slow(hub)
        status, talked = killed(hub, draw(generator, world.pulling), *command, **variables), len(hub.requests)
        hub.clear_faults()
        (commit, *_), arrived = hub.commits(REPO), place / "home" / "hub" / f"models--{REPO.replace('/', '--')}"
        whole = all((arrived / "snapshots" / commit.id / path).exists() for path in world.files[1])
        for model in (REPO, own):  # the copy may still be the older one; so may what an absent Hub is said to have
            code, told, errors = vtzoo(
                "predict", world.photo, "--model", model, "--json", **variables | {"HF_HUB_OFFLINE": "1"}
            )
            assert told in world.answers if code == 0 else told == "", errors
        code, _, errors = vtzoo(*command, **variables)
        assert code == 0, errors
        (snapshot,) = (place / "home" / "hub").glob(f"models--*/snapshots/{hub.head(REPO)}")
        for folder in (snapshot, own):
            assert {path: (folder / path).read_bytes() for path in world.files[1]} == world.files[1]
        assert vtzoo("predict", world.photo, "--model", own, "--json", **variables)[1] == world.answers[1]
    if status == 0:
        return "too late"
    return "before" if not talked else "after the transfer" if whole else "in the transfer"


def fail(seed: int, world: World, place: Path) -> str:
    """Use a model while the Hub fails, in one to four ways at once, then while it does not; how the first use ended."""
    with named(seed) as generator, Hub(place / "hub") as hub:
        # A bit is flipped in the middle of an answer: another file's name moves that through the listing.
        commit = hub.push(REPO, world.files[1] | {f"{'x' * generator.randrange(400)}.txt": b""})
        for _ in range(generator.randint(1, 4)):
            hub.fault(
                generator.choice(KINDS), generator.choice(REQUESTS), times=generator.randint(1, 4),
                skip=generator.randint(0, 2), seconds=generator.random(),
            )  # fmt: skip
        name = generator.choice((REPO, f"{REPO}@{commit}"))
        backend = ["--model", name, "--json"]
        command = generator.choice((["pull", name, "--json"], ["predict", world.photo, *backend]))
        faults, variables = [vars(fault).copy() for fault in hub.faults], environment(hub, place / "home")
        code, told, errors = vtzoo(*command, **variables)
        context = f"{command} with {faults}: {errors}"
        if code == 1:
            assert told == "", context
        elif command[0] == "predict":
            assert told == world.answers[1], context
        else:
            assert sorted(json.loads(told)["files"]) == sorted(world.files[1]), context
        hub.clear_faults()
        code, told, errors = vtzoo("pull", name, "--json", **variables)
        assert code == 0, f"{context}; then: {errors}"
        folder = Path(json.loads(told)["folder"])
        assert {path: (folder / path).read_bytes() for path in world.files[1]} == world.files[1], context
        assert vtzoo("predict", world.photo, *backend, **variables)[1] == world.answers[1], context
        assert hub.failures == []
    return "a sentence" if errors else "answered"


@pytest.mark.parametrize("seed", FEW)
@pytest.mark.parametrize("trial", [kill_publisher, kill_puller, fail])
def test_a_model_is_whole_and_true_after_a_kill_and_under_faults(
    trial: Callable[[int, World, Path], str], seed: int, world: World, tmp_path: Path
) -> None:
    trial(seed, world, tmp_path)


@pytest.mark.stress
@pytest.mark.parametrize("trial", [kill_publisher, kill_puller])
def test_a_model_is_whole_and_true_after_fifty_kills(
    trial: Callable[[int, World, Path], str], world: World, tmp_path: Path
) -> None:
    fell = Counter(trial(seed, world, tmp_path / str(seed)) for seed in MANY)
    print(trial.__name__, dict(fell))
    assert fell["in the transfer"] >= 10
    assert fell["before"] >= 5


@pytest.mark.stress
@pytest.mark.parametrize("seed", MANY)
def test_a_model_is_whole_and_true_under_fifty_faults(seed: int, world: World, tmp_path: Path) -> None:
    print(fail(seed, world, tmp_path))


def test_of_two_publishers_at_once_one_is_published_whole_and_the_other_is_told(world: World, tmp_path: Path) -> None:
    with Hub(tmp_path / "hub") as hub:
        hub.fault("stall", "POST .*/commit/", times=2, seconds=1.0)
        publish, index = [sys.executable, "-m", "vtzoo", "publish", "--org", "zoo"], tmp_path / "index.toml"
        commands = [[*publish, str(run), "--index", f"{index}{number}"] for number, run in enumerate(world.folders)]
        known = environment(hub, tmp_path / "home")
        running = [subprocess.Popen(one, env=known, stderr=subprocess.PIPE, text=True) for one in commands]
        errors = [process.communicate(timeout=120)[1] for process in running]
        codes = [process.returncode for process in running]
        assert sorted(codes) == [0, 1], errors
        loser = errors[codes.index(1)]
        assert "another commit has just changed" in loser or "stands for other files" in loser
        assert "Traceback" not in loser
        winner = world.files[codes.index(0)]
        assert state(hub) == winner
        assert hub.tags(REPO) == {"v1.0": hub.head(REPO)}
        assert len(hub.commits(REPO)) == 2


@pytest.mark.parametrize("word", ["sha", "id", "path", "oid", "size", "type", "file"])
def test_an_answer_of_the_hub_with_a_garbled_word_is_asked_for_again(
    word: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault flips a bit in the middle of an answer, which is seldom in such a word: here it is, once each."""
    say, left = routes.say, {"info", "tree"}

    def garbled(value: Any, *arguments: Any) -> Answer:
        answer, kind = say(value, *arguments), "tree" if isinstance(value, list) else "info"
        if kind not in left:
            return answer
        left.remove(kind)
        return replace(answer, body=answer.body.replace(f'"{word}"'.encode(), f'"{word[:-1]}~"'.encode()))

    monkeypatch.setattr(routes, "say", garbled)
    with Hub(tmp_path / "hub") as hub:
        hub.push(REPO, world.files[1])
        code, told, errors = vtzoo("pull", REPO, "--json", **environment(hub, tmp_path / "home"))
        assert code == 0, errors
        assert json.loads(told)["files"].keys() == world.files[1].keys()
    assert not left
