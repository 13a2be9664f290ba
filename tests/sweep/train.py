"""What tests run in the place of `vtzoo train`, with its arguments: it learns nothing, and does what $STUB says.

$STUB is a JSON object of what the run in a folder of that name does; any other run finishes, and is right in
50% of the test images, in two points more with drloc, in one more with each seed.
"""

import json
import os
import signal
import sys
import tomllib
from pathlib import Path

recipe, arguments = Path(sys.argv[1]), sys.argv[2:]
out, seed = Path(arguments[arguments.index("--out") + 1]), int(arguments[arguments.index("--seed") + 1])
behaviour = json.loads(os.environ.get("STUB", "{}")).get(out.name, "finish")
checkpoint = out / "checkpoint.safetensors"


def interrupted(*_: object) -> None:
    checkpoint.touch()
    sys.exit(130)


with (out / "started").open("a") as file:
    print(*arguments, file=file)
if behaviour == "wait" and not checkpoint.exists():
    signal.signal(signal.SIGINT, interrupted)
    (out / "waiting").touch()
    while True:
        signal.pause()
if behaviour == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    (out / "waiting").touch()
    while True:
        signal.pause()
if behaviour == "diverge":
    sys.exit("Error: cannot read a.png\nError: the loss is nan at step 3\nHint: lower the learning rate")
if behaviour == "crash":
    raise MemoryError("CUDA has none left")
if behaviour == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour == "silent":
    sys.exit(3)
if behaviour == "nothing":
    sys.exit()
drloc = "drloc" in tomllib.loads(recipe.read_text())
result = {"top1": 0.5 + 0.02 * drloc + 0.01 * seed, "images": 100, "seed": seed, "steps": 7, "train_seconds": 61}
(out / "result.json").write_text(json.dumps(result))
(out / "README.md").touch()
