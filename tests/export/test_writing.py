"""What is left behind where an export cannot end: nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, signal, sys
from pathlib import Path
import torch
from torch import nn
from vtzoo.export import export

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
"""
FULL = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    export(Small(), config, Path(sys.argv[1]), source="here")
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""
INTERRUPTED = """
import os
signal.signal(signal.SIGINT, signal.default_int_handler)  # as a shell has it that does not run this in the background
sync = os.fsync
def interrupt(descriptor):
    sync(descriptor)
    print("half-written", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
os.fsync = interrupt
try:
    export(Small(), config, Path(sys.argv[1]), source="here")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no resource limits")
@pytest.mark.parametrize(
    ("what", "said"),
    [(FULL, "VtzooError: cannot write {out}: File too large\n"), (INTERRUPTED, "half-written\ninterrupted\n")],
    ids=["a full disk", "Ctrl-C"],
)
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_write_that_is_stopped_leaves_what_was_there(what: str, said: str, old: bytes | None, tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    if old:
        out.write_bytes(old)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + what, str(out)],
        capture_output=True, text=True, check=False, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout == said.format(out=out), done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == ({"a.onnx": old} if old else {})
