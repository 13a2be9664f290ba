import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.layers import DropPath
from torch._dynamo.testing import CompileCounter

from vtzoo.train import loop
from vtzoo.train.compiling import RateAsTensor, compile_blocks
from vtzoo.train.model_with_drloc import ModelWithDrloc
from vtzoo.zoo.recipe import Recipe

Starter = Callable[..., loop.Run]
Tiny = Callable[..., Recipe]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[torch.nn.Module]:
    """The modules passed to the compiler, which is replaced."""
    modules: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: modules.append(module))
    return modules


def test_a_run_is_compiled_only_on_demand_and_block_by_block(
    tiny: Tiny, start: Starter, compiled: list[torch.nn.Module]
) -> None:
    run = start(tiny())
    assert compiled == []
    assert loop.set_up(tiny(), run.network, run.batches, compiled=True).network is run.network
    assert compiled == [block for stage in run.model.layers for block in stage.blocks]


def test_a_model_without_blocks_is_compiled_whole(compiled: list[torch.nn.Module]) -> None:
    network = ModelWithDrloc(torch.nn.Linear(1, 1), torch.nn.ModuleList(), [])
    compile_blocks(network)
    assert compiled == [network]


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch's own compiler
def test_blocks_that_differ_only_in_their_drop_path_are_compiled_once(
    tiny: Tiny, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After eight compilations of one function, torch would leave the other blocks uncompiled without a message."""
    counter, real = CompileCounter(), torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: real(module, backend=counter))
    run = start(tiny(depths=[1, 9]))
    compile_blocks(run.network)
    run.network.model(torch.zeros(2, 3, 16, 16))
    assert len({block.drop_path1.keep.item() for block in run.model.layers[1].blocks}) == 9
    assert counter.frame_count == 2


def test_a_rate_that_is_a_tensor_drops_as_many_images_as_timms_drop_path() -> None:
    inputs = torch.ones(20_000, 3, 2)
    for module in (DropPath(0.2), RateAsTensor(0.2, inputs.device)):
        dropped = module.train()(inputs)
        assert torch.equal(dropped, dropped[:, :1, :1].expand_as(inputs))  # drops whole images
        assert sorted(dropped.unique().tolist()) == pytest.approx([0, 1 / 0.8])
        assert dropped.mean().item() == pytest.approx(1, abs=0.02)
        assert torch.equal(module.eval()(inputs), inputs)


COMPILED = """
import sys
from pathlib import Path
import numpy as np, torch
from vtzoo.zoo.recipe_files import parse_recipe
from vtzoo.train import loop
from vtzoo.train.pipeline.crops import Crops
from vtzoo.train.pipeline.batches import Batches
from vtzoo.train.pipeline.pixels import Pixels

recipe, cpu = parse_recipe(Path(sys.argv[1]).read_text()), torch.device("cpu")
pixels = np.random.default_rng(5).integers(0, 256, (24, 3, 16, 16), dtype=np.uint8)
batches = Batches(
    Pixels.of(pixels, cpu), np.arange(24) % 10, crops=Crops.of(recipe.augmentation, size=16, flip=True),
    augmentation=recipe.augmentation, batch_size=8, classes=10, mean=(0.5,) * 3, std=(0.25,) * 3, seed=0, device=cpu,
)
for compiled in (False, True):
    run = loop.set_up(recipe, loop.build(recipe, 10, 0, cpu), batches, compiled=compiled)
    for run.step in range(3):
        print(loop._step(run, run.network, recipe, 0)[1]["loss"].item())
    assert "head.fc.weight" in run.model.state_dict()
"""


@pytest.mark.stress
def test_compiled_steps_have_the_losses_of_plain_ones(recipe_text: Callable[..., str], tmp_path: Path) -> None:
    """In a new process, because the tests' shape checks cannot be compiled."""
    (tmp_path / "recipe.toml").write_text(recipe_text(drop_path_rate=0.0))
    command = [sys.executable, "-c", COMPILED, str(tmp_path / "recipe.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [float(line) for line in done.stdout.split()]
    assert losses[3:] == pytest.approx(losses[:3], rel=1e-5)
