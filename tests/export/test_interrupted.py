"""An interrupted export leaves no file behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = """
import json, os, resource, signal, sys
from pathlib import Path
import torch
from torch import nn
from vtzoo.export.onnx_files import write_onnx

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 20000)
    def forward_features(self, images):
        return images.mean((2, 3))
    def forward_head(self, tokens, pre_logits=False):
        return tokens if pre_logits else self.head(tokens)

pretrained = {"input_size": [3, 8, 8], "interpolation": "bicubic", "crop_pct": 1.0, "mean": [0] * 3, "std": [1] * 3}
config = {"architecture": "small", "pretrained_cfg": pretrained, "label_names": ["a"] * 20000}
for line in sys.stdin:  # each in a child of its own, which has everything imported
    what, out = json.loads(line)
    child = os.fork()
    if child == 0:
        signal.alarm(300)  # seconds, until an export that hangs is ended
        exec(what)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
    print("end", flush=True)
"""
FULL = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_onnx(Small(), config, Path(out), source="here")
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""
INTERRUPTED = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # as a shell has it that does not run this in the background
sync = os.fsync
def interrupt(descriptor):
    sync(descriptor)
    print("half-written", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
os.fsync = interrupt
try:
    write_onnx(Small(), config, Path(out), source="here")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.fixture(scope="module")
def stopped() -> Iterator[Callable[[str, Path], str]]:
    """Runs one of the scripts on a path in a new process, and returns its output."""
    command, environment = [sys.executable, "-c", SCRIPT], os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def run(what: str, out: Path) -> str:
            assert process.stdin
            assert process.stdout
            print(json.dumps([what, str(out)]), file=process.stdin, flush=True)
            lines = []
            while (line := process.stdout.readline()) != "end\n":
                assert line, "the process that forks has died"
                lines.append(line)
            return "".join(lines)

        yield run


@pytest.mark.skipif(sys.platform == "win32", reason="there are no resource limits")
@pytest.mark.parametrize(
    ("what", "said"),
    [(FULL, "VtzooError: cannot write {out}: File too large\n"), (INTERRUPTED, "half-written\ninterrupted\n")],
    ids=["a full disk", "Ctrl-C"],
)
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_write_that_is_stopped_leaves_what_was_there(
    what: str, said: str, old: bytes | None, stopped: Callable[[str, Path], str], tmp_path: Path
) -> None:
    out = tmp_path / "a.onnx"
    if old:
        out.write_bytes(old)
    assert stopped(what, out) == said.format(out=out)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == ({"a.onnx": old} if old else {})
