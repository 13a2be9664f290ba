"""The script for torchrun: `ranks.py RECIPE DATA OUT [STEP]` trains; rank 1 kills itself once, after STEP steps.

OUT/restarts gets the number of torchrun's restarts. The variable PARTS is the number of parts of a rank's batch.
"""

import os
import sys
from pathlib import Path

import torch

from vtzoo.train import log, loop, muon, run

recipe, data, out = map(Path, sys.argv[1:4])
fatal = int(sys.argv[4]) if len(sys.argv) > 4 else None
loop.REPORT, loop.CHECKPOINT_SECONDS = 1, -1  # after every step, ranks synchronize and rank 0 writes a checkpoint
log.draw_curves = lambda *_: None
run.finish = lambda *_, **__: {}  # other tests cover the work after the last step
# bfloat16 and the iteration on the smaller side amplify the rounding of gradients that are summed in another order.
muon.precision, muon._by_gram = lambda device: torch.float32, muon._by_product
real = loop._step


def step(state: loop.Run, *rest: object) -> object:
    """Take a step; rank 1 kills itself after `fatal` steps, unless torchrun has restarted the ranks."""
    if state.step == fatal and state.world.rank == 1 and state.world.restarts == 0:
        os.kill(os.getpid(), 9)
    return real(state, *rest)


loop._step = step
run.train(recipe, data=data, out=out, device="cpu", accumulate=int(os.environ.get("PARTS", 1)))
(out / "restarts").write_text(os.environ["TORCHELASTIC_RESTART_COUNT"])
