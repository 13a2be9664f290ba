"""How long publishing and pulling take beside the Hub's own client: `python tests/bench/hub.py [--rounds N] [--save]`.

Three models of the embedded one's size go to a Hub on this machine and come back into an empty cache, each by a
process of its own: by `vtzoo publish` and `vtzoo pull`, and by `hf upload` and `hf download`, which send and fetch the
same files, check no content, and know neither tag nor index. The two take turns, and each turn has a Hub of its own;
the first one is not timed. Printed are medians over the rounds: of the seconds for all three models, and of the ratio
of the two in one round, which whatever else the machine does falls on alike.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from vtzoo import cards, files, zoo
from vtzoo.publish import prepare

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1] / "hub"))

from answers import Account  # noqa: E402
from server import Hub  # noqa: E402

SAVED = HERE.with_suffix(".json")
README = HERE.parents[2] / "README.md"
VTZOO, HF = [sys.executable, "-m", "vtzoo"], [str(Path(sys.executable).with_name("hf"))]
ORGANIZATIONS = ("one", "two", "three")  # one a model: they differ in their weights, not in their name
MODEL = zoo.entries()[0]
UP, DOWN = ("vtzoo publish", "hf upload"), ("vtzoo pull", "hf download")


def make_runs(folder: Path) -> dict[str, tuple[Path, Path]]:
    """By organization, a run folder of weights like no other, and the folder of the files that are published of it."""
    found = {}
    for number, organization in enumerate(ORGANIZATIONS):
        run, whole = folder / organization / MODEL.name, folder / f"{organization}-published"
        shutil.copytree(MODEL.folder, run)
        weights = bytearray((run / "model.safetensors").read_bytes())
        numbers = np.frombuffer(weights, "<f2", offset=len(weights) - 1024)  # the last 512: biases of the classifier's
        numbers[:] = np.random.default_rng(number).normal(size=512)
        (run / "model.safetensors").write_bytes(weights)
        result = json.loads((run / "result.json").read_text())
        result["weights"]["model.safetensors"] = files.sha256(run / "model.safetensors")
        (run / "result.json").write_text(json.dumps(result))
        for path, content in prepare(run, organization).files.items():
            (whole / path).parent.mkdir(parents=True, exist_ok=True)
            (whole / path).write_bytes(content)
        found[organization] = run, whole
    return found


def turn(client: str, runs: dict[str, tuple[Path, Path]], folder: Path) -> dict[str, float]:
    """Wall seconds in which a client, "vtzoo" or "hf", publishes all the models, and in which it pulls them."""
    accounts = {"hf_write": Account(user="ada", organizations=ORGANIZATIONS)}
    ours = client == "vtzoo"
    up, down = UP[not ours], DOWN[not ours]
    taken = dict.fromkeys((up, down), 0.0)
    with Hub(folder / "hub", tokens=accounts) as hub:
        # No look at whether there is a newer hf: there may be no network.
        environment = hub.environment(folder / "home") | {"HF_HUB_DISABLE_UPDATE_CHECK": "1"}
        for organization, (run, whole) in runs.items():
            index = ["--index", str(folder / "index.toml")]
            send = [*VTZOO, "publish", str(run), "--org", organization, *index]
            taken[up] += seconds(
                send if ours else [*HF, "upload", f"{organization}/{MODEL.name}", str(whole)], environment
            )
        for organization in runs:
            fetch = [*VTZOO, "pull"] if ours else [*HF, "download"]
            taken[down] += seconds([*fetch, f"{organization}/{MODEL.name}"], environment)
    shutil.rmtree(folder)
    return taken


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Wall seconds of one process; it must end well."""
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return time.perf_counter() - started


def bench(rounds: int) -> dict[str, Any]:
    """The medians over the rounds of each command's seconds, and of the ratios of ours to the Hub's own client's."""
    turns: list[dict[str, float]] = []
    with TemporaryDirectory() as folder:
        runs = make_runs(Path(folder) / "runs")
        for number in range(rounds + 1):
            clients = ("vtzoo", "hf") if number % 2 else ("hf", "vtzoo")
            taken = {name: one for client in clients for name, one in turn(client, runs, Path(folder) / "turn").items()}
            if number:
                turns.append(taken)
    ratios = {ours: statistics.median(taken[ours] / taken[its] for taken in turns) for ours, its in (UP, DOWN)}
    whole = [sum(taken[pair[0]] for pair in (UP, DOWN)) / sum(taken[pair[1]] for pair in (UP, DOWN)) for taken in turns]
    return {
        "seconds": {name: statistics.median(taken[name] for taken in turns) for name in (*UP, *DOWN)},
        "ratios": ratios | {"both": statistics.median(whole)},
    }


def render(measured: dict[str, Any]) -> str:
    """The Markdown table of a measurement, as it stands in the README."""
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    lines = [f"Medians of {measured['rounds']} rounds; {measured['machine']}; {versions}.", ""]
    lines += ["| three models of 111 MB each | vtzoo, s | hf, s | ratio |", "| --- | --- | --- | --- |"]
    seconds, ratios = measured["seconds"], measured["ratios"]
    for ours, its in (UP, DOWN):
        lines.append(f"| `{ours}`, `{its}` | {seconds[ours]:.2f} | {seconds[its]:.2f} | {ratios[ours]:.2f} |")
    lines += [
        "",
        f"Publishing and pulling take {ratios['both']:.2f} of the time of the Hub's own client, which sends and",
    ]
    lines += ["fetches the same files, and neither checks what it fetched, nor makes a card, a tag or an index."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the medians as the README's table, or as JSON; with --save keep them, and put the table into the README."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--save", action="store_true", help=f"write {SAVED.name} and the README's table")
    arguments = parser.parse_args()
    measured = {
        "machine": f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("vtzoo", "huggingface_hub", "typer")},
        "rounds": arguments.rounds,
        **bench(arguments.rounds),
    }
    print(json.dumps(measured, indent=2) if arguments.json else render(measured), end="")
    if arguments.save:
        SAVED.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
        README.write_text(cards.put(README.read_text(encoding="utf-8"), "hub", render(measured)), encoding="utf-8")


if __name__ == "__main__":
    main()
