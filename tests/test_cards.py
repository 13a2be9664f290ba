from typing import Any

import pytest
from huggingface_hub import ModelCard

from vtzoo import cards, resources, zoo
from vtzoo.recipe import Recipe, load_recipe

CONFIG = {"num_classes": 100, "pretrained_cfg": {"license": "apache-2.0"}}
RESULT: dict[str, Any] = {
    "name": "swin_t-drloc-cifar100", "top1": 0.51234, "top5": 0.8, "images": 10_000, "manifest": "ab" * 32, "seed": 3,
    "steps": 8_580, "batch": 256, "train_images": 50_000, "train_seconds": 5_400, "hardware": "2 CPU cores",
    "versions": {"torch": "2.15.0"}, "recipe_sha256": "cd" * 32,
    "certificate": {"images": 256, "max_logit_difference": 1e-6, "top1_agreement": 1.0},
}  # fmt: skip


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(resources.recipes_folder() / "swin_t-drloc-cifar100.toml")


def test_a_card_holds_the_numbers_of_its_result(recipe: Recipe) -> None:
    card = cards.render(CONFIG, recipe, RESULT)
    for said in ("51.23%", "80.00%", "10,000", "8,580", "--seed 3", "in 90 minutes on 2 CPU cores", "torch 2.15.0"):
        assert said in card, said


def test_the_hub_reads_the_cards_metadata(recipe: Recipe) -> None:
    data = ModelCard(cards.render(CONFIG, recipe, RESULT)).data
    assert data.license == "apache-2.0"
    assert data.library_name == "timm"
    assert data.pipeline_tag == "image-classification"
    assert data.datasets == ["uoft-cs/cifar100"]
    (result,) = data.eval_results
    assert (result.metric_value, result.metric_type, result.dataset_split) == (0.5123, "accuracy", "test")


def test_a_card_without_a_trained_twin_says_so(recipe: Recipe) -> None:
    assert "swin_t-baseline-cifar100, its twin | not trained yet" in cards.render(CONFIG, recipe, RESULT)


def test_a_card_shows_its_twins_number(recipe: Recipe) -> None:
    twin = RESULT | {"name": "swin_t-baseline-cifar100", "top1": 0.5}
    assert "swin_t-baseline-cifar100, its twin | 50.00%" in cards.render(CONFIG, recipe, RESULT, twin)


def test_a_baselines_card_says_that_it_has_no_localization() -> None:
    baseline = load_recipe(resources.recipes_folder() / "swin_t-baseline-cifar100.toml")
    card = cards.render(CONFIG, baseline, RESULT | {"name": baseline.name})
    assert "the baseline" in card
    assert "swin_t-drloc-cifar100, its twin" in card
    assert "drloc" not in ModelCard(card).data.tags


def test_the_shipped_cards_are_those_of_the_embedded_models() -> None:
    assert zoo.entries()
    assert cards.stale(resources.cards_folder()) == {}
    named = {path.stem for path in resources.cards_folder().glob("*.md")}
    assert named == {entry.name for entry in zoo.entries()}
