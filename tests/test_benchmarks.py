"""The summaries and recipes of the benchmarks. Their measurements are run by hand."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from vtzoo.zoo.recipe import LOSSES
from vtzoo.zoo.recipe_files import load_recipe

BENCH = Path(__file__).with_name("bench")
PAIRED = runpy.run_path(str(BENCH / "paired.py"))
TUNING = runpy.run_path(str(BENCH / "tuning.py"))


def test_a_difference_of_two_rows_is_taken_seed_by_seed() -> None:
    accuracies = {("baseline", 0): 0.10, ("baseline", 1): 0.20, ("l1", 0): 0.13, ("l1", 1): 0.21, ("signed", 1): 0.25}
    runs = [{"row": row, "seed": seed, "top1": top1} for (row, seed), top1 in accuracies.items()]
    rows = PAIRED["summary"](runs)
    assert list(rows) == ["baseline", "l1", "signed"]
    assert rows["l1"]["top1"] == {"mean": pytest.approx(0.17), "deviation": pytest.approx(0.04 * 2**0.5)}
    assert rows["l1"]["over_baseline"] == {"mean": pytest.approx(0.02), "deviation": pytest.approx(0.01 * 2**0.5)}
    assert rows["signed"]["over_l1"] == {"mean": pytest.approx(0.04), "deviation": 0.0}


def test_every_row_of_the_paired_experiment_is_a_recipe_and_every_loss_has_a_row() -> None:
    recipe = load_recipe(BENCH / "paired.toml")
    changes = [change for change in PAIRED["ROWS"].values() if change is not None]
    assert {replace(recipe.drloc, **change).loss or "l1" for change in changes} == set(LOSSES)
    assert list(PAIRED["ROWS"].values()).count(None) == 1


@pytest.mark.parametrize("protocol", PAIRED["PROTOCOLS"])
def test_the_rows_of_a_protocol_differ_in_localization_alone(protocol: str) -> None:
    recipes = [PAIRED["recipe_of"](row, protocol) for row in PAIRED["ROWS_OF"][protocol]]
    assert all(recipe not in recipes[:place] for place, recipe in enumerate(recipes))
    assert all(replace(recipe, drloc=None) == recipes[0] for recipe in recipes)
    for recipe in recipes[1:]:
        assert recipe.drloc.schedule_epochs == recipe.schedule.epochs == recipe.schedule.cosine_epochs


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in TUNING["GROUPS"] for name in TUNING["GROUPS"][group]["rows"]]
)
def test_every_row_of_the_tuning_changes_its_recipe_to_one_that_may_be_trained(group: str, name: str) -> None:
    table = TUNING["GROUPS"][group]
    recipe = TUNING["recipe_of"](group, name)
    base = TUNING["base"](group)
    assert (recipe == base) == (not table["rows"][name] and base.schedule.epochs == table["epochs"])
    assert recipe.schedule.epochs == recipe.schedule.cosine_epochs == table["rows"][name].get("epochs", table["epochs"])
    assert recipe.drloc is None or recipe.drloc.schedule_epochs == recipe.schedule.epochs
    for key, values in table["rows"][name].items():
        for field, value in values.items():
            assert getattr(getattr(recipe, key), field) == value


@pytest.mark.parametrize("group", TUNING["GROUPS"])
def test_no_two_rows_of_the_tuning_are_one_recipe(group: str) -> None:
    recipes = [TUNING["recipe_of"](group, name) for name in TUNING["GROUPS"][group]["rows"]]
    assert all(recipe not in recipes[:place] for place, recipe in enumerate(recipes))


def test_a_row_of_the_tuning_has_its_cost_and_its_accuracy() -> None:
    (name, *_) = TUNING["GROUPS"]["teacher"]["rows"]
    run = {
        "group": "teacher", "row": name, "top1": 0.6102, "steps": 450, "batch": 500, "minutes": 20.6,
        "train_images": 45_000, "held_images": 5_000,
    }  # fmt: skip
    text = TUNING["render"]({"machine": "a machine", "versions": {"torch": "2"}, "runs": [run]})
    assert "each on one core of a machine; torch 2." in text
    assert f"| small_cnn-baseline-cifar100 | {name} | 45,000 | 450 of 500 | 20.6 | 61.0 of 5,000 |" in text
