"""The linear probe: a linear head that L-BFGS fits to convergence on cached features of a fixed backbone."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

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
# Weight decays for features of mean square 1, strongest first; each fit starts at the solution of the decay before.
DECAYS = tuple(10.0 ** (power / 2) for power in range(-2, -15, -1))
PATIENCE = 4  # decays without a better head that end the search
CHUNK = 10  # iterations between two lines of the log
MOST = 500  # iterations for one decay
LEAST_GAIN = 1e-5  # relative decrease of the loss in a chunk; a smaller decrease means convergence

Features = Float[Tensor, "n c"]
Targets = Float[Tensor, "n k"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedHead:
    """A fitted head, its weight decay and its log."""

    weight: Float[Tensor, "k c"]
    bias: Float[Tensor, " k"]
    decay: float  # of DECAYS, with the best score on the validation images
    lines: list[dict[str, Any]]  # for metrics.jsonl, of that decay

    @property
    def steps(self) -> int:
        """Iterations of L-BFGS."""
        return self.lines[-1]["step"]


def linear_head(model: Any, image_size: int, device: torch.device) -> nn.Linear:
    """The model's head; raises a VtzooError unless the head is a single linear layer on the pooled features."""
    head, *more = classifiers(model)
    model.eval()
    with torch.no_grad():
        tokens = model.forward_features(torch.zeros(1, 3, image_size, image_size, device=device))
        logits, pooled = model.forward_head(tokens), model.forward_head(tokens, pre_logits=True)
    linear = isinstance(head, nn.Linear) and not more and pooled.shape[1:] == (head.in_features,)
    if not linear or not torch.allclose(head(pooled), logits, atol=1e-4, rtol=1e-4):
        message = f"the head of {type(model).__name__} is not one linear layer on its features"
        raise VtzooError(message, "leave out --head-only")
    return cast(nn.Linear, head)


def features(
    model: Any, images: UInt8[Tensor, "n 3 h w"], *, mean: tuple[float, ...], std: tuple[float, ...],
    device: torch.device, source: str,
) -> Features:  # fmt: skip
    """The pooled features of prepared images, from the cache if they are cached.

    Their key in the cache holds the pixels and `source`, the sha256 of the model's weights.
    """
    pixels = sha256(images.numpy().data).hexdigest()
    name = sha256(f"{source} {pixels} {mean} {std} {torch.__version__} {device.type}".encode()).hexdigest()
    path = files.cache_folder() / f"features-{name[:32]}.safetensors"
    with suppress(OSError, SafetensorError, KeyError):  # a missing or damaged file is written anew
        return load(path.read_bytes())["features"]
    model.eval()
    with torch.no_grad():
        batches = [normalize(batch.to(device), mean, std) for batch in images.split(BATCH)]
        pooled = torch.cat([model.forward_head(model.forward_features(batch), pre_logits=True) for batch in batches])
    pooled = pooled.float().cpu()
    with suppress(OSError):  # a full or read-only disk: the next run computes them again
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, save({"features": pooled}))
    return pooled


def fit(
    train: Features, train_targets: Targets, val: Features, val_targets: Targets, criterion: Criterion
) -> FittedHead:  # fmt: skip
    """The head with the best validation score among the heads fitted with each weight decay.

    The fit centres the features and divides them by one number, so that a decay means the same for every model. The
    returned head applies to the original features.
    """
    centre = train.mean(0)
    scale = (train - centre).square().mean().sqrt().clamp(min=1e-12)
    train_inputs, val_inputs = (train - centre) / scale, (val - centre) / scale
    weight, bias = torch.zeros(train_targets.shape[1], train.shape[1]), torch.zeros(train_targets.shape[1])
    best, head, since = (-1.0, 0.0), None, 0
    for decay in DECAYS:
        lines = _descend(weight, bias, train_inputs, train_targets, criterion, decay)
        logits, since = val_inputs @ weight.T + bias, since + 1
        score = criterion.score(val_targets.numpy(), logits.numpy()), -criterion.loss(logits, val_targets).item()
        if score > best:
            own = weight / scale
            best, head, since = score, FittedHead(weight=own, bias=bias - own @ centre, decay=decay, lines=lines), 0
        if since == PATIENCE:
            break
    assert head  # every score is above the initial one
    return head


def _descend(
    weight: Tensor, bias: Tensor, inputs: Features, targets: Targets, criterion: Criterion, decay: float
) -> list[dict[str, Any]]:
    """Minimize the loss over weight and bias, in place; returns a line for metrics.jsonl every CHUNK iterations."""
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


def write(head: FittedHead, folder: Path, *, run: str) -> None:
    """Write the head as the checkpoint of the run with the identity `run`, and its log."""
    files.write(folder / "checkpoint.safetensors", save({"weight": head.weight, "bias": head.bias}, {"run": run}))
    files.write(folder / "metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in head.lines).encode())


def check(folder: Path, *, run: str) -> None:
    """Raise a VtzooError if the folder has the checkpoint of another run."""
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
