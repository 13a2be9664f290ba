"""The two grids: their rendering, the rendered files in recipes/, and the settings of the recipes."""

import json
import re
import shutil
import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.data.auto_augment import rand_augment_transform

from vtzoo import grid, models
from vtzoo.data.named import DATASETS
from vtzoo.drloc import check_grid, weight_at
from vtzoo.train.optim import learning_rate_at
from vtzoo.zoo import resources
from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.recipe_files import load_recipe, shipped

FOLDER = resources.recipes_folder()
PAPER = [name for name in shipped() if name.endswith("-paper")]
OWN = [name for name in shipped() if name not in PAPER]
PAPERS = ("swin_t", "cvt_13", "t2t_vit_14", "vit_b_16", "resnet_50")
MODELS = {"": PAPERS[:3], "-paper": PAPERS}
TAUGHT = ("cifar10", "cifar100")
SMALL = {
    "every": {
        "precision": "float32", "model": {"arguments": {"depth": 1}}, "optimizer": {"betas": [0.9, 0.99], "rate": 1e-3},
        "schedule": {"epochs": 3}, "augmentation": {"flip": True}, "drloc": {"weight": 1.0},
    },
    "sizes": {"8": {"schedule": {"epochs": 4}, "augmentation": {"crop": {"scale": [0.5, 1.0]}}}},
    "models": {"vt": {"8": {"model": {"arguments": {"width": 2}}, "schedule": {"warmup": 1}}, "16": {}}},
    "datasets": {"digits": {"model": {"image_size": 8}, "augmentation": {"flip": False}}},
}  # fmt: skip
TEACHER = {
    "datasets": ["digits"], "weight": 0.8, "temperature": 2.0,
    "recipe": {key: table for key, table in SMALL["every"].items() if key != "drloc"}
    | {"model": {"name": "cnn", "image_size": 8, "arguments": {}}},
}  # fmt: skip


@cache
def recipes() -> dict[str, Recipe]:
    return {name: load_recipe(path) for name, path in shipped().items()}


# Rendering


def test_a_recipe_adds_up_every_size_model_and_data_set_and_the_later_ones_win() -> None:
    rendered = dict(grid.render(SMALL))
    assert list(rendered) == ["vt-drloc-digits", "vt-baseline-digits"]
    assert rendered["vt-drloc-digits"] == (
        "# Rendered from recipes/grid.toml by `python -m vtzoo.grid`. Edit the grid, or copy this file under another "
        'name.\nname = "vt-drloc-digits"\ndataset = "digits"\nprecision = "float32"\n\n'
        '[model]\nname = "vt"\nimage_size = 8\narguments = { depth = 1, width = 2 }\n\n'
        "[optimizer]\nbetas = [0.9, 0.99]\nrate = 0.001\n\n[schedule]\nepochs = 4\nwarmup = 1\n\n"
        "[augmentation]\nflip = false\ncrop = { scale = [0.5, 1.0] }\n\n[drloc]\nweight = 1.0\n"
    )


def test_a_table_for_cpus_stands_in_the_place_of_the_whole_table_where_a_pair_has_epochs() -> None:
    cpu = {
        "every": {"augmentation": {"mixup": 0.5}, "schedule": {"epochs": 0, "warmup": 2}},
        "sizes": {"8": {"augmentation": {"cutmix": 1.0}}, "16": {"augmentation": {"cutmix": 0.0}}},
        "models": {"vt": {"8": {"model": {"arguments": {"width": 3}}}}}, "epochs": {"vt-digits": 7},
    }  # fmt: skip
    text = dict(grid.render(SMALL | {"cpu": cpu}))["vt-drloc-digits"]
    assert "[augmentation]\nmixup = 0.5\ncutmix = 1.0\n\n" in text
    assert '[model]\nname = "vt"\nimage_size = 8\narguments = { depth = 1, width = 3 }\n\n' in text
    assert "[schedule]\nepochs = 7\nwarmup = 2\ncosine_epochs = 7\n\n" in text
    assert "[drloc]\nweight = 1.0\nschedule_epochs = 7\n" in text
    other = cpu | {"epochs": {"vt-letters": 7, "vt-digits-untaught": 7}}
    assert dict(grid.render(SMALL | {"cpu": other})) == dict(grid.render(SMALL))


def test_a_teacher_has_a_recipe_of_its_own_and_every_pair_is_there_without_it_too() -> None:
    rendered = dict(grid.render(SMALL | {"teacher": TEACHER}))
    alone = dict(grid.render(SMALL))
    assert list(rendered) == [
        "vt-drloc-digits", "vt-baseline-digits", "vt-drloc-digits-untaught", "vt-baseline-digits-untaught",
        "cnn-baseline-digits",
    ]  # fmt: skip
    table = '[teacher]\nname = "cnn-baseline-digits"\nweight = 0.8\ntemperature = 2.0\n'
    for name, text in alone.items():
        assert rendered[f"{name}-untaught"] == text.replace(name, f"{name}-untaught")
        before, mark, localization = text.partition("[drloc]\n")
        expected = f"{before}{table}\n{mark}{localization}" if mark else f"{text}\n{table}"
        assert rendered[name] == expected
    assert '[model]\nname = "cnn"\nimage_size = 8\narguments = {}\n' in rendered["cnn-baseline-digits"]
    assert "drloc" not in rendered["cnn-baseline-digits"]


def test_a_pair_without_its_teacher_may_have_a_length_of_its_own() -> None:
    cpu = {"every": {"schedule": {"warmup": 2}}, "models": {"vt": {"8": {}}}}

    def epochs(lengths: dict[str, int]) -> list[str]:
        rendered = dict(grid.render(SMALL | {"teacher": TEACHER, "cpu": cpu | {"epochs": lengths}}))
        pair = ("vt-drloc-digits", "vt-drloc-digits-untaught")
        return [line for name in pair for line in rendered[name].splitlines() if line.startswith("epochs = ")]

    assert epochs({"vt-digits": 7}) == ["epochs = 7", "epochs = 7"]
    assert epochs({"vt-digits": 7, "vt-digits-untaught": 5}) == ["epochs = 7", "epochs = 5"]
    assert epochs({"vt-digits-untaught": 5}) == ["epochs = 4", "epochs = 5"]


def test_a_protocol_ends_every_name_and_is_the_folder_of_the_grid() -> None:
    rendered = dict(grid.render(SMALL | {"protocol": "quick"}))
    assert list(rendered) == ["vt-drloc-digits-quick", "vt-baseline-digits-quick"]
    text = rendered["vt-baseline-digits-quick"]
    assert text.startswith("# Rendered from recipes/quick/grid.toml by ")
    assert '\nname = "vt-baseline-digits-quick"\ndataset = "digits"\n' in text


# The rendered files


@pytest.mark.parametrize("folder", ["", "paper"])
def test_the_rendered_recipes_are_those_of_the_grid(folder: str) -> None:
    assert grid.stale(FOLDER / folder) == []


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of recipes/ with an edited recipe, a missing one, and one that is not in the grid."""
    folder = tmp_path / "recipes"
    shutil.copytree(FOLDER, folder)
    for stem in ("swin_t-drloc-cifar10", "mine-drloc-cifar10", "paper/vit_b_16-drloc-real-paper"):
        (folder / f"{stem}.toml").write_text("edited")
    (folder / "swin_t-drloc-cifar100.toml").unlink()
    monkeypatch.setattr(resources, "recipes_folder", lambda: folder)
    return folder


STALE = ["mine-drloc-cifar10", "swin_t-drloc-cifar10", "swin_t-drloc-cifar100", "vit_b_16-drloc-real-paper"]


def test_check_names_what_is_edited_missing_or_stray_in_either_folder_and_fails(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["grid", "--check"])
    assert grid.main() == 1
    assert capsys.readouterr().out.split() == STALE
    assert (elsewhere / "swin_t-drloc-cifar10.toml").read_text() == "edited"


def test_rendering_writes_what_is_stale_and_removes_what_is_in_no_grid(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["grid"])
    assert grid.main() == 0
    assert [Path(line).stem for line in capsys.readouterr().out.split()] == STALE
    texts, wanted = ({path.name: path.read_text() for path in root.rglob("*.toml")} for root in (elsewhere, FOLDER))
    assert texts == wanted
    monkeypatch.setattr("sys.argv", ["grid", "--check"])
    assert grid.main() == 0


@pytest.mark.parametrize("suffix", MODELS)
def test_every_model_meets_every_data_set_with_and_without_drloc(suffix: str) -> None:
    objectives = ("drloc", "baseline")
    wanted = {f"{m}-{o}-{d}{suffix}" for m in MODELS[suffix] for o in objectives for d in DATASETS}
    if not suffix:
        wanted |= {f"{m}-{o}-{d}-untaught" for m in MODELS[suffix] for o in objectives for d in TAUGHT}
        wanted |= {f"small_cnn-baseline-{d}" for d in TAUGHT}
    assert set(PAPER if suffix else OWN) == wanted


@pytest.mark.parametrize("name", [name for name in shipped() if name.endswith("-untaught")])
def test_an_untaught_model_differs_from_the_taught_one_only_in_the_teacher_and_its_own_length(name: str) -> None:
    taught = recipes()[name.removesuffix("-untaught")]
    assert taught.teacher is not None
    assert taught.teacher.name in OWN
    assert recipes()[taught.teacher.name].model.image_size == taught.model.image_size
    lengths = tomllib.loads((FOLDER / "grid.toml").read_text())["cpu"]["epochs"]
    epochs = lengths.get(re.sub("-(drloc|baseline)-", "-", name), taught.schedule.epochs)
    schedule = replace(taught.schedule, epochs=epochs, cosine_epochs=epochs)
    localization = taught.drloc and replace(taught.drloc, schedule_epochs=epochs)
    untaught = replace(taught, name=name, teacher=None, schedule=schedule, drloc=localization)
    assert untaught == recipes()[name]


# The settings of the recipes


@pytest.mark.parametrize("name", [name for name in shipped() if "-drloc-" in name])
def test_a_pair_differs_only_in_drloc(name: str) -> None:
    """The two texts are equal but for the name and the last table."""
    twin = name.replace("-drloc-", "-baseline-")
    shared, _, localization = shipped()[name].read_text().partition("\n[drloc]\n")
    assert localization
    assert shared.replace(name, twin) == shipped()[twin].read_text()
    assert recipes()[name].drloc is not None
    assert recipes()[twin].drloc is None


def test_no_recipe_mirrors_what_a_mirror_changes() -> None:
    assert [name for name, one in recipes().items() if one.augmentation.flip and not DATASETS[one.dataset].flip] == []


def distinct_grids() -> dict[str, tuple[Any, ...]]:
    """The distinct localization grids of the recipes, (model, image size, arguments, stage), by their text."""
    found = {}
    for one in recipes().values():
        if one.drloc:
            key = one.model.name, one.model.image_size, one.model.arguments, one.drloc.stage
            found[json.dumps(key)] = key
    return found


@pytest.mark.parametrize("key", distinct_grids())
def test_every_recipe_localizes_in_at_least_four_by_four_cells(key: str) -> None:
    name, size, arguments, stage = distinct_grids()[key]
    # The meta device computes only shapes; it cannot draw T2T-ViT's random directions.
    with torch.device("cpu" if name == "t2t_vit_14" else "meta"), torch.no_grad():
        model = models.build(name, num_classes=2, image_size=size, **arguments).eval()
        found = models.grids(model, torch.zeros(1, 3, size, size))[stage]
    check_grid(models.localizable(model, found))


@pytest.mark.parametrize("path", [FOLDER / "grid.toml", FOLDER / "paper" / "grid.toml"], ids=str)
def test_the_steps_that_a_grid_says_are_those_of_its_recipes(path: Path) -> None:
    said = dict(re.findall(r"^(?:\[\w+\.)?([\w-]+)\b[^#\n]* # ([\d,]+) steps", path.read_text(), re.MULTILINE))
    assert {*DATASETS} <= {*said}
    ours = {name: one for name, one in recipes().items() if shipped()[name].parent == path.parent}
    steps = {(one.model.name, one.dataset): f"{one.steps:,}" for one in ours.values()}
    teachers = {"small_cnn": said.get("recipe")}
    assert steps == {(m, d): teachers.get(m) or said.get(f"{m}-{d}", said[d]) for m, d in steps}


def test_the_zoos_own_schedules_are_annealed_to_their_end_and_its_weights_averaged() -> None:
    for name in OWN:
        one = recipes()[name]
        assert one.schedule.epochs == one.schedule.cosine_epochs, name
        assert 0 < 1 / (1 - one.schedule.ema_decay) < one.steps / 10, name
        if one.drloc:
            ends = one.drloc.warmup_epochs, one.drloc.schedule_epochs
            assert ends == (one.schedule.warmup_epochs, one.schedule.epochs), name


def test_the_papers_recipes_leave_their_schedules_where_the_released_code_does() -> None:
    for name in PAPER:
        one = recipes()[name]
        how = one.schedule
        rate = learning_rate_at(
            how.epochs, peak=one.optimizer.learning_rate, warmup_epochs=how.warmup_epochs,
            cosine_epochs=how.cosine_epochs, final=how.final_learning_rate,
        )  # fmt: skip
        assert rate == pytest.approx(0.75 * 1e-3, rel=0.01), name  # of 5e-4 for 512 images
        assert (one.optimizer.batch_size, one.model.image_size, one.schedule.ema_decay) == (1024, 224, 0)
        if one.drloc:
            left = weight_at(float(how.epochs), one.drloc.weight, one.drloc.warmup_epochs, one.drloc.schedule_epochs)
            peak = 0.5 if one.model.name == "swin_t" else 0.1
            assert left == pytest.approx(peak * 0.357 / 0.5, abs=1e-3 * peak), name


def test_the_papers_random_augmentation_is_what_timm_makes_of_its_name() -> None:
    timms = rand_augment_transform("rand-m9-mstd0.5-inc1", {})
    (operation, *_) = timms.ops
    for name in PAPER:
        chosen = recipes()[name].augmentation.rand_augment
        assert chosen is not None
        assert (chosen.operations, chosen.magnitude) == (timms.num_layers, operation.magnitude), name
        assert (chosen.magnitude_std, chosen.probability) == (operation.hparams["magnitude_std"], operation.prob), name
