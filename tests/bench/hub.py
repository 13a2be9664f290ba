"""How long publishing and pulling take beside the Hub's own client: `python tests/bench/hub.py [--rounds N] [--save]`.

Three models of the embedded model's size are published to a local Hub and pulled into an empty cache: by one `vtzoo
publish` and one `vtzoo pull`, and by `hf upload` and `hf download`, which take one model per call. The latter transfer
the same files, but verify no content and have neither tag nor index. The rows "one by one" use one process per model
for both. The variants run in turns, each with a new Hub; the first turn is not timed. The output has medians over the
rounds: the seconds for all three models, and the ratio within a round, which other load on the machine affects least.
"""

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from figures import circumstances, options, tell, versions

from vtzoo.base import files
from vtzoo.publish.commit import prepare
from vtzoo.zoo import lookup, resources

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1] / "hub"))

from answers import Account  # noqa: E402
from server import Hub  # noqa: E402

VTZOO, HF = [sys.executable, "-m", "vtzoo"], [str(Path(sys.executable).with_name("hf"))]
ORGANIZATION, COUNT = "zoo", 3
MODEL = lookup.find_model(resources.DEFAULT_MODEL)
UP = {"vtzoo publish A B C": "hf upload", "vtzoo publish, one by one": "hf upload"}
DOWN = {"vtzoo pull A B C": "hf download", "vtzoo pull, one by one": "hf download"}


def make_runs(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Run folders with unique weights, and the folders of their published files, by name."""
    found = {}
    for number in range(COUNT):
        name = f"{MODEL.name}-{number}"
        run, whole = folder / name, folder / f"{name}-published"
        shutil.copytree(MODEL.folder, run)
        weights = bytearray((run / "model.safetensors").read_bytes())
        # The last 512 float16 numbers: biases of the classifier.
        numbers = np.frombuffer(weights, "<f2", offset=len(weights) - 1024)
        numbers[:] = np.random.default_rng(number).normal(size=512)
        (run / "model.safetensors").write_bytes(weights)
        recipe = (run / "recipe.toml").read_text().replace(f'"{MODEL.name}"', f'"{name}"')
        (run / "recipe.toml").write_text(recipe)
        result = json.loads((run / "result.json").read_text())
        result |= {"name": name, "recipe_sha256": files.sha256(run / "recipe.toml")}
        result["weights"]["model.safetensors"] = files.sha256(run / "model.safetensors")
        (run / "result.json").write_text(json.dumps(result))
        for path, content in prepare(run, ORGANIZATION).files.items():
            (whole / path).parent.mkdir(parents=True, exist_ok=True)
            (whole / path).write_bytes(content)
        found[name] = run, whole
    return found


def turn(client: str, runs: dict[str, tuple[Path, Path]], folder: Path) -> dict[str, float]:
    """Wall seconds in which a client, a key of CLIENTS, publishes all models, and in which it pulls them."""
    accounts = {"hf_write": Account(user="ada", organizations=(ORGANIZATION,))}
    with Hub(folder / "hub", tokens=accounts) as hub:
        # no check for a newer hf, because there may be no network
        environment = hub.environment(folder / "home") | {"HF_HUB_DISABLE_UPDATE_CHECK": "1"}
        taken = {
            name: sum(seconds(command, environment) for command in commands)
            for name, commands in CLIENTS[client](runs, folder).items()
        }
    shutil.rmtree(folder)
    return taken


def at_once(runs: dict[str, tuple[Path, Path]], folder: Path) -> dict[str, list[list[str]]]:
    """One command that publishes all models, and one that pulls them."""
    send = [*VTZOO, "publish", *(str(run) for run, _ in runs.values()), "--org", ORGANIZATION]
    index = ["--index", str(folder / "index.toml")]
    fetch = [*VTZOO, "pull", *(f"{ORGANIZATION}/{name}" for name in runs)]
    return {"vtzoo publish A B C": [[*send, *index]], "vtzoo pull A B C": [fetch]}


def one_by_one(runs: dict[str, tuple[Path, Path]], folder: Path) -> dict[str, list[list[str]]]:
    """One command per model."""
    index = ["--index", str(folder / "index.toml")]
    send = [[*VTZOO, "publish", str(run), "--org", ORGANIZATION, *index] for run, _ in runs.values()]
    fetch = [[*VTZOO, "pull", f"{ORGANIZATION}/{name}"] for name in runs]
    return {"vtzoo publish, one by one": send, "vtzoo pull, one by one": fetch}


def hubs_own(runs: dict[str, tuple[Path, Path]], folder: Path) -> dict[str, list[list[str]]]:
    """One command of the Hub's own client per model."""
    send = [[*HF, "upload", f"{ORGANIZATION}/{name}", str(whole)] for name, (_, whole) in runs.items()]
    return {"hf upload": send, "hf download": [[*HF, "download", f"{ORGANIZATION}/{name}"] for name in runs]}


CLIENTS = {"at once": at_once, "hf": hubs_own, "one by one": one_by_one}


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Wall seconds of one process, which must exit with 0."""
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return time.perf_counter() - started


def bench(rounds: int) -> dict[str, Any]:
    """Each command's median seconds over the rounds, and the median ratios of ours to the Hub's own client."""
    turns: list[dict[str, float]] = []
    with TemporaryDirectory() as folder:
        runs = make_runs(Path(folder) / "runs")
        for number in range(rounds + 1):
            clients = list(CLIENTS) if number % 2 else list(reversed(CLIENTS))
            taken = {name: one for client in clients for name, one in turn(client, runs, Path(folder) / "turn").items()}
            if number:
                turns.append(taken)
    names = {name: statistics.median(taken[name] for taken in turns) for name in turns[0]}
    ratios = {ours: statistics.median(taken[ours] / taken[its] for taken in turns) for ours, its in (UP | DOWN).items()}
    for ours, both in zip(("at once", "one by one"), zip(UP, DOWN, strict=True), strict=True):
        its = ("hf upload", "hf download")
        ratios[ours] = statistics.median(sum(map(one.get, both)) / sum(map(one.get, its)) for one in turns)
    return {"seconds": names, "ratios": ratios}


def render(measured: dict[str, Any]) -> str:
    """The Markdown table of a measurement, as in docs/benchmarks.md."""
    lines = [f"Medians of {measured['rounds']} rounds; {measured['machine']}; {versions(measured)}.", ""]
    lines += ["| three models of 111 MB each | seconds | of the Hub's own client's |", "| --- | --- | --- |"]
    seconds, ratios = measured["seconds"], measured["ratios"]
    for name, taken in seconds.items():
        ratio = f"{ratios[name]:.2f}" if name in ratios else ""
        lines.append(f"| `{name.partition(',')[0]}`{name[len(name.partition(',')[0]) :]} | {taken:.2f} | {ratio} |")
    once, one = ratios["at once"], ratios["one by one"]
    lines += ["", f"Publishing and pulling take {once:.2f} of the time of the Hub's own client; one by one, {one:.2f}."]
    lines += ["It sends and fetches the same files, checks none of them, and makes no card, no tag and no index."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the results as Markdown or JSON; with --save, also store them and update docs/benchmarks.md."""
    parser = options(__file__, __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of")
    arguments = parser.parse_args()
    measured = {
        **circumstances("huggingface_hub", "typer"),
        "rounds": arguments.rounds,
        **bench(arguments.rounds),
    }
    tell(__file__, measured, render, arguments)


if __name__ == "__main__":
    main()
