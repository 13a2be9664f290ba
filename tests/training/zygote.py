"""A process that has everything imported and forks one training process after another: `python zygote.py RECIPE DATA`.

For each line "FOLDER SECONDS WORKERS" on stdin it starts `train(..., out=FOLDER, resume=True)` in a child, kills it
with SIGKILL after the seconds unless they are 0, and prints how it ended: 0, or minus the signal. Images come out of
the cache, or from so many processes unless they are 0. The kill is sent from
here, by the only process that can know that the child's number is still the child's. Every step leaves a checkpoint.
"""

import os
import signal
import sys
import time
from pathlib import Path

from vtzoo import splits
from vtzoo.training import loop, run

loop.CHECKPOINT_SECONDS = -1
run.finish = lambda *_, **__: {}  # what comes after the last step is tested elsewhere
recipe, data = map(Path, sys.argv[1:])
splits.library()  # imported before the forks
print("ready", flush=True)
for line in sys.stdin:
    folder, seconds, workers = line.rsplit(maxsplit=2)
    child = os.fork()
    if child == 0:
        run.train(recipe, data=data, out=Path(folder), device="cpu", resume=True, workers=int(workers) or None)
        os._exit(0)
    if float(seconds):
        time.sleep(float(seconds))
        os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
