"""The localizer: the localization heads of a model, made for a recipe, stored in its folder, and loaded from there.

localizer.safetensors holds the tensors of a single head as `head.*`, of several heads as `0.head.*`, `1.head.*`...
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vtzoo.drloc import DISTRIBUTIONS, SMALLEST_SIDE, DenseRelativeLocalization, check_grid
from vtzoo.errors import VtzooError
from vtzoo.models import factory
from vtzoo.models.weights import tensors, write_weights
from vtzoo.zoo import safetensors_reader
from vtzoo.zoo.model_folder import ModelFolder
from vtzoo.zoo.recipe import Drloc

FILE = "localizer.safetensors"
EVERY_STAGE = "every_stage"  # the paper's L^all: l1 with a head for each grid of at least 4x4 cells
HINT = f"the folder holds files of two runs: train it again, or remove {FILE}"


def build_heads(drloc: Drloc, name: str, grids: list[Tensor]) -> tuple[nn.ModuleList, list[int]]:
    """New heads for a recipe's loss, and the stage of each; `grids` are all grids of the model called `name`.

    A missing stage or a grid below 4x4 cells raises a VtzooError.
    """
    if not -len(grids) <= drloc.stage < len(grids):
        hint = f"drloc.stage goes from 0 to {len(grids) - 1}"
        raise VtzooError(f"{name} has {len(grids)} grids, so there is no stage {drloc.stage}", hint)
    check_grid(grids[drloc.stage])
    stages = [drloc.stage]
    if drloc.loss == EVERY_STAGE:
        stages = [stage for stage in _large(grids) if stage >= drloc.stage % len(grids)]
    return nn.ModuleList(_head(drloc, grids[stage]) for stage in stages), stages


def grids_of_black(model: nn.Module, image_size: int, device: torch.device) -> list[Float[Tensor, "1 _ _ _"]]:
    """The grids to localize in, shallow to deep, of one black image; leaves batch-norm statistics unchanged."""
    model.eval()
    with torch.no_grad():
        grids = factory.grids(model, torch.zeros(1, 3, image_size, image_size, device=device))
    model.train()
    return [factory.localizable(model, grid) for grid in grids]


def as_stored(heads: nn.ModuleList) -> nn.Module | None:
    """The module whose tensors the file and checkpoints hold: a single head itself, the list of several, or None."""
    return heads[0] if len(heads) == 1 else heads or None


def write_localizer(localizer: nn.Module, folder: Path) -> None:
    """Write the module of `as_stored` into a model folder, as fp16."""
    write_weights(localizer.state_dict(), folder / FILE)


def load_heads(heads: nn.ModuleList, entry: ModelFolder) -> bool:
    """Whether the heads have the shapes of those in a model folder; they then get its weights, else keep their own."""
    localizer = as_stored(heads)
    if localizer is None or not (entry.folder / FILE).is_file():
        return False
    weights = _read(entry)
    if _misfit(localizer, weights):
        return False
    localizer.load_state_dict(weights)
    return True


def read_head(
    entry: ModelFolder, model: nn.Module, images: Float[Tensor, "b c h w"]
) -> tuple[DenseRelativeLocalization, int] | None:
    """A model folder's last head, in evaluation mode on the images' device, and its stage; None without a head.

    A head that does not fit the model or the recipe raises a VtzooError.
    """
    path = entry.folder / FILE
    if not path.exists():
        return None
    drloc = entry.recipe.drloc
    if drloc is None:
        raise VtzooError(f"{path} is there, and recipe.toml beside it trains without localization", HINT)
    weights = _read(entry)
    with torch.no_grad():
        grids = [factory.localizable(model, grid) for grid in factory.grids(model, images[:1])]
    stage = _last_stage(drloc, grids, weights)
    head, own = _head(drloc, grids[stage]), _last_head(weights)
    if misfit := _misfit(head, own):
        raise VtzooError(f"{path} does not fit the model: {misfit}", HINT)
    head.load_state_dict(own)
    return head.eval().to(images.device), stage


def _head(drloc: Drloc, grid: Float[Tensor, "1 c h w"]) -> DenseRelativeLocalization:
    """A new head for a grid."""
    loss = "l1" if drloc.loss in (None, EVERY_STAGE) else drloc.loss
    side = max(grid.shape[-2:]) if loss in DISTRIBUTIONS else None
    return DenseRelativeLocalization(grid.shape[1], pairs=drloc.pairs, normalize=drloc.normalize, loss=loss, side=side)


def _large(grids: list[Tensor]) -> list[int]:
    """The stages whose grids are large enough to localize in."""
    return [stage for stage, grid in enumerate(grids) if min(grid.shape[-2:]) >= SMALLEST_SIDE]


def _read(entry: ModelFolder) -> dict[str, Tensor]:
    """The tensors of the file, checked against the sha256 in result.json."""
    return tensors(safetensors_reader.read(entry.folder / FILE, entry.sha256(FILE)))


def _last_stage(drloc: Drloc, grids: list[Tensor], weights: dict[str, Tensor]) -> int:
    """The stage of the file's last head."""
    if not -len(grids) <= drloc.stage < len(grids):
        raise VtzooError(f"recipe.toml localizes in stage {drloc.stage}, and the model has {len(grids)} grids", HINT)
    single = all(name.startswith("head.") for name in weights)
    return drloc.stage % len(grids) if single else _large(grids)[-1]


def _last_head(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the file's last head, without the number before their names."""
    numbers = [int(first) for first in (name.partition(".")[0] for name in weights) if first.isdecimal()]
    prefix = f"{max(numbers)}." if numbers else ""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _misfit(module: nn.Module, weights: dict[str, Tensor]) -> str | None:
    """The first difference between the shapes of a module's tensors and those of the weights, in words."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(wanted.keys() | given.keys()):
        if wanted.get(name) != given.get(name):
            actual, expected = (
                f"of shape {shapes[name]}" if name in shapes else "absent" for shapes in (given, wanted)
            )
            return f"its {name} is {actual}, and must be {expected}"
    return None
