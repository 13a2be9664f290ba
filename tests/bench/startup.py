"""How long whole processes take, and how much memory: `python tests/bench/startup.py [--pairs N] [--json]`.

The commands take turns, so that whatever else the machine does falls on all of them alike; each gets one untimed turn
first, which fills the disk cache. Printed are medians, of the wall time and of the peak of resident memory, both as
the kernel reports them for the finished process, and the two ratios that the zoo promises.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

PHOTO = str(Path(__file__).resolve().parents[1] / "photos" / "rocket.jpg")
VTZOO = [sys.executable, "-m", "vtzoo"]
HELP, ONNX, IMPORT, TORCH = "vtzoo --help", "vtzoo predict", "import torch, timm", "vtzoo predict --backend torch"
COMMANDS = {
    HELP: [*VTZOO, "--help"],
    ONNX: [*VTZOO, "predict", PHOTO],
    IMPORT: [sys.executable, "-c", "import torch, timm"],
    TORCH: [*VTZOO, "predict", PHOTO, "--backend", "torch"],
}


def measure(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak megabytes of one process; it must end well."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return seconds, usage.ru_maxrss * unit / 1e6


def bench(rounds: int) -> dict[str, dict[str, float]]:
    """Each command's median seconds and megabytes over the rounds, in which every command runs once."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for turn in range(rounds + 1):
        for name, command in COMMANDS.items():
            measured = measure(command)
            if turn:
                taken[name].append(measured)
    return {
        name: {"seconds": statistics.median(s for s, _ in pairs), "megabytes": statistics.median(m for _, m in pairs)}
        for name, pairs in taken.items()
    }


def main() -> None:
    """Print the medians as a Markdown table, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=5, help="rounds to take the median of")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    medians = bench(arguments.pairs)
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    ratios = {
        "predict / import, seconds": medians[ONNX]["seconds"] / medians[IMPORT]["seconds"],
        "predict / predict on torch, megabytes": medians[ONNX]["megabytes"] / medians[TORCH]["megabytes"],
    }
    if arguments.json:
        print(json.dumps({"machine": machine, "rounds": arguments.pairs, "medians": medians, "ratios": ratios}))
        return
    print(f"Median of {arguments.pairs}, {machine}\n")
    print("| process | seconds | peak memory, MB |\n| --- | --- | --- |")
    for name, median in medians.items():
        print(f"| `{name}` | {median['seconds']:.2f} | {median['megabytes']:.0f} |")
    print("", *(f"{name}: {ratio:.2f}" for name, ratio in ratios.items()), sep="\n")


if __name__ == "__main__":
    main()
