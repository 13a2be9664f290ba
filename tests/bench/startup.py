"""How long whole processes take, and how much memory: `python tests/bench/startup.py [--rounds N] [--json] [--save]`.

The commands run in turns, so that other load on the machine affects all of them; each has an untimed run first, which
fills the disk cache. The output has medians of the wall time and of the peak of resident memory, as the kernel reports
them for the finished process, and the two ratios that the zoo promises.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from figures import circumstances, options, tell, versions

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
    """Wall seconds and peak megabytes of one process, which must exit with 0."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss, in bytes
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


def render(measured: dict[str, Any]) -> str:
    """The Markdown table of a measurement, as in docs/benchmarks.md."""
    lines = [f"Median of {measured['rounds']} rounds; {measured['machine']}; {versions(measured)}.", ""]
    lines += ["| process | seconds | peak memory, MB |", "| --- | --- | --- |"]
    for name, median in measured["medians"].items():
        lines.append(f"| `{name}` | {median['seconds']:.2f} | {median['megabytes']:.0f} |")
    ratios = measured["ratios"]
    lines += ["", f"One photograph costs {ratios['seconds']:.2f} of the time of importing torch and timm, and"]
    lines += [f"{ratios['megabytes']:.2f} of the memory of the same answer on torch."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the results as Markdown or JSON; with --save, also store them and update docs/benchmarks.md."""
    parser = options(__file__, __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of")
    arguments = parser.parse_args()
    medians = bench(arguments.rounds)
    measured = {
        **circumstances("torch", "timm", "onnxruntime-gpu"),
        "rounds": arguments.rounds,
        "medians": medians,
        "ratios": {
            "seconds": medians[ONNX]["seconds"] / medians[IMPORT]["seconds"],
            "megabytes": medians[ONNX]["megabytes"] / medians[TORCH]["megabytes"],
        },
    }
    tell(__file__, measured, render, arguments)


if __name__ == "__main__":
    main()
