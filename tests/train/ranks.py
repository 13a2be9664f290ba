"""What torchrun starts in these tests: `ranks.py RECIPE DATA OUT [STEP]` trains, and rank 1 dies once at that step.

It leaves the number of torchrun's restarts in OUT/restarts.
"""

import os
import sys
from pathlib import Path

import torch

from vtzoo.train import log, loop, muon, run

recipe, data, out = map(Path, sys.argv[1:4])
fatal = int(sys.argv[4]) if len(sys.argv) > 4 else None
loop.REPORT, loop.CHECKPOINT_SECONDS = 1, -1  # ranks synchronize after every step, and each writes a checkpoint
log.draw_curves = lambda *_: None
run.finish = lambda *_, **__: {}  # other tests cover the work after the last step
# bfloat16 and the iteration on the smaller side amplify the rounding of gradients that are summed in another order.
muon.precision, muon._by_gram = lambda device: torch.float32, muon._by_product
real = loop._step


def step(state: loop.Run, *rest: object) -> object:
    """A step, unless this is the rank and the step to die at, and torchrun has started nobody again yet."""
    if state.step == fatal and state.world.rank == 1 and state.world.restarts == 0:
        os.kill(os.getpid(), 9)
    return real(state, *rest)


loop._step = step
run.train(recipe, data=data, out=out, device="cpu", accumulate=int(os.environ.get("PARTS", 1)))
(out / "restarts").write_text(os.environ["TORCHELASTIC_RESTART_COUNT"])
