"""The tests' substitute for `vtzoo train`, with the same arguments: it does not train, and obeys $STUB.

$STUB is a JSON object: the behaviour of a run by the name of its folder. Other runs finish, with 50% top-1, two points
more with drloc and one more per seed.
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
