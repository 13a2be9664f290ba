"""The script of the kill tests: `killed_training.py FROM DATA FOLDER WORKERS` trains into FOLDER, or resumes there.

FROM is a recipe, or a model folder to fine-tune on the images of DATA. WORKERS is the number of processes that decode a
recipe's images in every epoch; with 0, the images are decoded once. Each step writes a checkpoint.
"""

import sys
from pathlib import Path

from vtzoo.data.read import read_images
from vtzoo.finetune import run as finetune
from vtzoo.finetune.defaults import Overrides
from vtzoo.finetune.session import prepare
from vtzoo.train import log, loop, run

EPOCHS = 5  # of fine-tuning; the first trains only the heads
loop.CHECKPOINT_SECONDS = -1
log.draw_curves = lambda *_: None  # slower than the steps
run.finish = finetune.finish = lambda *_, **__: {}  # other tests cover the work after the last step

source, data, out, workers = *map(Path, sys.argv[1:4]), int(sys.argv[4])
if source.suffix == ".toml":
    run.train(source, data=data, out=out, device="cpu", resume=True, workers=workers or None)
else:
    job = prepare(source, read_images(data), overrides=Overrides(epochs=EPOCHS), device="cpu")
    finetune.finetune(job, out, resume=True)
