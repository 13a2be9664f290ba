"""A process that has everything imported and forks one training process after another.

For each line on stdin, [FROM, DATA, FOLDER, SECONDS, WORKERS] in JSON, it trains into FOLDER, or goes on there, in a
child, kills it with SIGKILL after the seconds unless they are 0, and prints how it ended: 0, or minus the signal. FROM
is a recipe, or a model folder that is fine-tuned on the images of DATA. Images come out of the cache, or from so many
processes unless they are 0, where a recipe is trained. The kill is sent from here, by the only process that can know
that the child's number is still the child's. Every step leaves a checkpoint.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from vtzoo.data import collection, named_reader
from vtzoo.finetune import run as finetune
from vtzoo.finetune.defaults import Wishes
from vtzoo.finetune.session import prepare
from vtzoo.train import loop, run

EPOCHS = 8  # of fine-tuning, the first without the backbone
loop.CHECKPOINT_SECONDS = -1
run.finish = finetune.finish = lambda *_, **__: {}  # what comes after the last step is tested elsewhere


def train(source: Path, data: Path, out: Path, workers: int) -> None:
    """Train, or go on training, in a folder."""
    if source.suffix == ".toml":
        run.train(source, data=data, out=out, device="cpu", resume=True, workers=workers or None)
    else:
        job = prepare(source, collection.read(data), wishes=Wishes(epochs=EPOCHS), device="cpu")
        finetune.finetune(job, out, resume=True)


named_reader.library()  # imported before the forks
print("ready", flush=True)
for line in sys.stdin:
    *paths, seconds, workers = json.loads(line)
    child = os.fork()
    if child == 0:
        train(*map(Path, paths), workers)
        os._exit(0)
    if seconds:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
