"""A linear head on features that stay as they are: computed once and kept, then fitted to convergence by L-BFGS."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from vtzoo.base import files
from vtzoo.errors import VtzooError
from vtzoo.train.augment.mix import normalize
from vtzoo.train.criterion import Criterion
from vtzoo.train.freeze import classifiers

BATCH = 128  # images at once
# On features whose mean square is 1. They are tried from the strongest on, each from the solution of the one before.
DECAYS = tuple(10.0 ** (power / 2) for power in range(-2, -15, -1))
PATIENCE = 4  # decays without a better head, after which weaker ones are not tried
CHUNK = 10  # iterations between two lines of the log
MOST = 500  # iterations of one decay
LEAST_GAIN = 1e-5  # of the loss in a chunk, relative to it: below, it has converged

Features = Float[Tensor, "n c"]
Targets = Float[Tensor, "n k"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """A fitted head, and how it came about."""

    weight: Float[Tensor, "k c"]
    bias: Float[Tensor, " k"]
    decay: float  # the one of DECAYS with the best validation images
    lines: list[dict[str, Any]]  # for metrics.jsonl, of that decay

    @property
    def steps(self) -> int:
        """Iterations of L-BFGS."""
        return self.lines[-1]["step"]


def linear_head(model: Any, image_size: int, device: torch.device) -> nn.Linear:
    """The model's head, where that is one linear layer on its pooled features; else a VtzooError."""
    heads = classifiers(model)
    model.eval()
    with torch.no_grad():
        tokens = model.forward_features(torch.zeros(1, 3, image_size, image_size, device=device))
        logits, pooled = model.forward_head(tokens), model.forward_head(tokens, pre_logits=True)
    head, *more = heads
    refusal = f"the head of {type(model).__name__} is not one linear layer on its features"
    if more or not isinstance(head, nn.Linear) or pooled.shape[1:] != (head.in_features,):
        raise VtzooError(refusal, "leave out --head-only")
    if not torch.allclose(head(pooled), logits, atol=1e-4, rtol=1e-4):
        raise VtzooError(refusal, "leave out --head-only")
    return head


def features(
    model: Any, images: UInt8[Tensor, "n 3 h w"], *, mean: tuple[float, ...], std: tuple[float, ...],
    device: torch.device, source: str,
) -> Features:  # fmt: skip
    """The pooled features of prepared images, out of the cache where it has them.

    They are known by the pixels and by `source`, the sha256 of the model's weights.
    """
    pixels = sha256(images.numpy().data).hexdigest()
    name = sha256(f"{source} {pixels} {mean} {std} {torch.__version__} {device.type}".encode()).hexdigest()
    path = files.cache_folder() / f"features-{name[:32]}.safetensors"
    with suppress(OSError, SafetensorError, KeyError):  # it is not there, or damaged: then it is made anew
        return load(path.read_bytes())["features"]
    model.eval()
    with torch.no_grad():
        parts = [normalize(part.to(device), mean, std) for part in images.split(BATCH)]
        made = torch.cat([model.forward_head(model.forward_features(part), pre_logits=True) for part in parts])
    made = made.float().cpu()
    with suppress(OSError):  # no room, or no right: they are computed again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, save({"features": made}))
    return made


def learn(
    train: Features, targets: Targets, held: Features, held_targets: Targets, criterion: Criterion
) -> Found:  # fmt: skip
    """The head that answers the validation images best, out of one fitted for each weight decay.

    Features are centred and divided by one number, so that a decay means the same for every model; what comes out is
    for the features as they are.
    """
    centre = train.mean(0)
    scale = (train - centre).square().mean().sqrt().clamp(min=1e-12)
    inputs, tests = (train - centre) / scale, (held - centre) / scale
    weight, bias = torch.zeros(targets.shape[1], train.shape[1]), torch.zeros(targets.shape[1])
    best, found, since = (-1.0, 0.0), None, 0
    for decay in DECAYS:
        lines = _descend(weight, bias, inputs, targets, criterion, decay)
        logits, since = tests @ weight.T + bias, since + 1
        seen = criterion.score(logits.numpy(), held_targets.numpy()), -criterion.loss(logits, held_targets).item()
        if seen > best:
            own = weight / scale
            best, found, since = seen, Found(weight=own, bias=bias - own @ centre, decay=decay, lines=lines), 0
        if since == PATIENCE:
            break
    assert found  # the first is better than nothing
    return found


def _descend(
    weight: Tensor, bias: Tensor, inputs: Features, targets: Targets, criterion: Criterion, decay: float
) -> list[dict[str, Any]]:
    """Move weight and bias to where the loss is least; the lines of metrics.jsonl, one for some iterations each."""
    began, lines = time.monotonic(), []
    leaves = [tensor.clone().requires_grad_() for tensor in (weight, bias)]
    optimizer = torch.optim.LBFGS(
        leaves, max_iter=CHUNK, history_size=20, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = criterion.loss(inputs @ leaves[0].T + leaves[1], targets) + decay / 2 * leaves[0].square().sum()
        value.backward()
        return value

    for step in range(CHUNK, MOST + 1, CHUNK):
        optimizer.step(loss)
        with torch.no_grad():
            logits = inputs @ leaves[0].T + leaves[1]
            plain = criterion.loss(logits, targets).item()
            whole = plain + decay / 2 * leaves[0].square().sum().item()
        lines.append({
            "step": step, "loss": whole, "cross_entropy": plain, "localization": 0.0,
            "accuracy": criterion.right(logits, targets).item() / len(targets), "learning_rate": 1.0,
            "seconds": round(time.monotonic() - began, 3),
        })  # fmt: skip
        if len(lines) > 1 and lines[-2]["loss"] - whole < LEAST_GAIN * whole:
            break
    weight.copy_(leaves[0].detach())
    bias.copy_(leaves[1].detach())
    return lines


def keep(found: Found, folder: Path, *, run: str) -> None:
    """Write what was fitted as the run's checkpoint and log, by which the folder is known to be this run's."""
    files.write(folder / "checkpoint.safetensors", save({"weight": found.weight, "bias": found.bias}, {"run": run}))
    files.write(folder / "metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in found.lines).encode())


def check(folder: Path, *, run: str) -> None:
    """Refuse to write over the checkpoint of another run."""
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return
    try:
        with safe_open(path, framework="pt") as file:
            known = (file.metadata() or {}).get("run")
    except (SafetensorError, OSError) as error:
        raise VtzooError(f"cannot read the checkpoint {path}: {error}", "delete it to start afresh") from error
    if known != run:
        raise VtzooError(f"{path} belongs to another recipe, seed or data set", "train into another --out folder")
