"""The runs of a sweep, its finished runs, and refused sweeps."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from vtzoo.errors import VtzooError
from vtzoo.sweep.plan import Run, plan_runs

Write = Callable[..., str]


@pytest.fixture
def run(recipe: Write, tmp_path: Path) -> Run:
    """A run that was not started, with its folder."""
    (found,) = plan_runs([recipe("mine")], [4], out=tmp_path)
    found.folder.mkdir()
    return found


def finish(run: Run, **result: object) -> None:
    """Make the run a finished one."""
    (run.folder / "result.json").write_text(json.dumps({"top1": 0.5, "seed": run.seed, **result}))
    (run.folder / "README.md").touch()


def again(run: Run) -> list[Run]:
    """The plan of a sweep with only that run."""
    return plan_runs([f"{run.folder.parent / run.stem}.toml"], [run.seed], out=run.folder.parent)


def test_a_run_is_called_by_its_recipes_file_and_its_seed(recipe: Write) -> None:
    runs = plan_runs(["swin_t-drloc-cifar100", recipe("mine")], [7], out=Path("runs"))
    assert [str(run.folder) for run in runs] == ["runs/swin_t-drloc-cifar100-seed7", "runs/mine-seed7"]


def test_all_recipes_are_trained_with_a_seed_before_the_next_seed(pair: list[str]) -> None:
    runs = plan_runs(pair, [2, 0], out=Path("runs"))
    assert [(run.stem, run.seed) for run in runs] == [("with", 2), ("without", 2), ("with", 0), ("without", 0)]


def test_a_seed_given_twice_is_refused() -> None:
    with pytest.raises(VtzooError, match=r"^the seed 1 is given 2 times$"):
        plan_runs(["swin_t-drloc-cifar100"], [0, 1, 1], out=Path("runs"))


def test_two_recipes_of_one_name_are_refused(recipe: Write) -> None:
    with pytest.raises(VtzooError, match=r"^the recipe swin_t-drloc-cifar100 is given 2 times$"):
        plan_runs(["swin_t-drloc-cifar100", recipe("swin_t-drloc-cifar100")], [0], out=Path("runs"))


def test_one_folder_of_images_is_not_two_data_sets(tmp_path: Path) -> None:
    recipes = ["swin_t-drloc-cifar100", "swin_t-drloc-cifar10"]
    told = f"{tmp_path} is one dataset, and these recipes train on cifar10, cifar100"
    with pytest.raises(VtzooError, match=f"^{re.escape(told)}$"):
        plan_runs(recipes, [0], out=Path("runs"), data=tmp_path)
    assert len(plan_runs(recipes, [0], out=Path("runs"))) == 2


def test_a_teacher_that_no_recipe_asks_for_is_refused(pair: list[str], tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match=rf"^no recipe here has a \[teacher\], so {tmp_path} is not used$"):
        plan_runs(pair, [0], out=Path("runs"), teacher=tmp_path)


def test_a_run_is_finished_once_it_is_measured_and_has_its_card(run: Run) -> None:
    assert run.result is None
    (run.folder / "result.json").write_text('{"seed": 4}')
    (run.folder / "README.md").touch()
    assert run.result is None
    finish(run)
    assert run.result == {"top1": 0.5, "seed": 4}
    (run.folder / "README.md").unlink()
    assert run.result is None
    (run.folder / "result.json").write_text('{"top1"')
    assert run.result is None


def test_a_folder_with_the_run_of_another_recipe_is_refused(run: Run, recipe: Write) -> None:
    (run.folder / "recipe.toml").write_bytes(run.text)
    assert len(again(run)) == 1
    recipe("mine", batch_size="63")
    with pytest.raises(VtzooError, match=rf"^{run.folder} has a run of another recipe than mine$"):
        again(run)


def test_a_folder_with_a_model_of_elsewhere_is_refused(run: Run) -> None:
    (run.folder / "config.json").touch()
    with pytest.raises(VtzooError, match=r"another recipe than mine$"):
        again(run)


def test_a_folder_with_the_run_of_another_seed_is_refused(run: Run) -> None:
    finish(run, seed=5)
    with pytest.raises(VtzooError, match=rf"^{run.folder} has a run with the seed 5$"):
        again(run)


def test_a_recipe_that_does_not_parse_is_refused_with_its_key(recipe: Write) -> None:
    with pytest.raises(VtzooError, match=r"batch_size is out of range: 0"):
        plan_runs([recipe("mine", batch_size="0")], [0], out=Path("runs"))
