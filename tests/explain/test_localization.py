"""The predictions of a localization head, against correctly constructed heads and against the loss."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vtzoo import models
from vtzoo.data.transform import prepare, read_image
from vtzoo.drloc import DenseRelativeLocalization
from vtzoo.errors import VtzooError
from vtzoo.explain.localization import Localization, Localizer, every_pair, localize, read_localizer
from vtzoo.predict.load import load
from vtzoo.zoo.model_folder import ModelFolder


class Told(nn.Module):
    """A grid whose embeddings are the row and the column of their cell."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        places = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        self.grid = torch.stack(places).float()[None]

    def forward_intermediates(self, images: Tensor, **_: Any) -> tuple[Tensor, list[Tensor]]:
        return images, [self.grid.expand(len(images), -1, -1, -1)]


def right_head(loss: str, side: int, *, normalize: bool = False) -> DenseRelativeLocalization:
    """A head that predicts the true offsets: its hidden layers pass max(u, 0) and max(-u, 0) of both axes."""
    head = DenseRelativeLocalization(2, hidden=4, loss=loss, side=side, normalize=normalize)
    with torch.no_grad():
        for layer in (head.head[0], head.head[2], head.head[4]):
            layer.weight.zero_()  # type: ignore[union-attr, operator]
            layer.bias.zero_()  # type: ignore[union-attr, operator]
        differences = torch.tensor([[1.0, 0, -1, 0], [-1, 0, 1, 0], [0, 1, 0, -1], [0, -1, 0, 1]])
        head.head[0].weight.copy_(differences)  # type: ignore[union-attr, operator]
        head.head[2].weight.copy_(torch.eye(4))  # type: ignore[union-attr, operator]
        sign = 1.0 if loss in ("l1", "off_grid") else -1.0
        last = torch.tensor([[1, sign, 0, 0], [0, 0, 1, sign]]) / (side if normalize else 1)
        if loss in ("cross_entropy", "variance_aware"):  # logits -40 (u - k)^2, up to a term that all classes share
            classes = torch.arange(2 * side - 1) - (side - 1)
            head.head[4].bias.copy_((-40 * classes.square()).repeat(2))  # type: ignore[union-attr, operator]
            last = (80 * classes[None, :, None] * last[:, None]).flatten(0, 1)
        head.head[4].weight.copy_(last)  # type: ignore[union-attr, operator]
    return head


@pytest.mark.parametrize("loss", ["l1", "signed", "cross_entropy", "variance_aware", "off_grid"])
def test_a_head_that_is_right_by_construction_has_an_error_of_0(loss: str) -> None:
    found = Localizer(head=right_head(loss, 5), stage=0).localizations(Told(4, 5), torch.zeros(2, 3, 8, 8))
    assert len(found) == 2
    for one in found:
        assert one.error == pytest.approx(0, abs=1e-4)
        assert one.predicted.shape == (400, 2)
        assert one.true.min() == (0 if loss in ("l1", "off_grid") else -4)


def test_predictions_in_grid_sides_are_converted_to_cells() -> None:
    (found,) = Localizer(head=right_head("l1", 6, normalize=True), stage=0).localizations(
        Told(6, 6), torch.zeros(1, 3, 8, 8)
    )
    assert found.error == pytest.approx(0, abs=1e-5)
    assert found.predicted.max() == pytest.approx(5)


def test_a_grid_with_more_pairs_than_go_at_once_has_them_all_in_order() -> None:
    (found,) = Localizer(head=right_head("l1", 10), stage=0).localizations(Told(9, 10), torch.zeros(1, 3, 8, 8))
    assert len(found.places) == len(found.predicted) == 8100
    assert found.error == pytest.approx(0, abs=1e-5)


def test_every_ordered_pair_is_there_once() -> None:
    pairs = every_pair(2, 3, torch.device("cpu")).long().tolist()
    cells = [[row, column] for row in range(2) for column in range(3)]
    assert sorted(pairs) == sorted([first, second] for first in cells for second in cells)


@pytest.mark.parametrize("loss", ["l1", "signed"])
def test_no_constant_has_a_smaller_error_than_the_best_one(loss: str) -> None:
    (found,) = Localizer(head=right_head(loss, 5), stage=0).localizations(Told(4, 5), torch.zeros(1, 3, 8, 8))
    guesses = np.arange(-5, 5, 0.25)
    least = [min(np.abs(found.true[:, axis] - guess).mean() for guess in guesses) for axis in (0, 1)]
    assert found.constant_error == pytest.approx(np.mean(least))


def test_the_error_of_a_cell_is_the_mean_over_the_pairs_it_has_a_part_in() -> None:
    places = every_pair(2, 2, torch.device("cpu")).long().numpy()
    random = np.random.default_rng(0)
    said, true = random.normal(size=(2, 16, 2))
    found = Localization(places=places, predicted=said, true=true, grid=(2, 2))
    sums: dict[tuple[int, int], list[float]] = {(row, column): [] for row in (0, 1) for column in (0, 1)}
    for number, pair in enumerate(places.tolist()):
        for row, column in pair:
            sums[row, column].append(float(np.abs(said[number] - true[number]).mean()))
    expected = [[np.mean(sums[row, column]) for column in (0, 1)] for row in (0, 1)]
    np.testing.assert_allclose(found.by_cell(), expected)
    assert found.by_cell().mean() == pytest.approx(found.error)


def test_the_error_of_a_head_of_l1_is_the_loss_that_it_is_trained_with(embedded: Path, photos: Any) -> None:
    edit(embedded, r"loss = .*\n", "")
    head = DenseRelativeLocalization(192)
    save_file(head.state_dict(), embedded / FILE)
    entry = ModelFolder("embedded", embedded)
    classifier: Any = load(entry, backend="torch", device="cpu")
    images = classifier.normalized(prepare(read_image(photos.chelsea), classifier.preprocess)[None])
    found = localize(entry, classifier.model, images)
    assert found is not None
    drloc = entry.recipe.drloc
    assert drloc is not None
    points = (every_pair(4, 4, torch.device("cpu"))[None] + 0.5) / 4  # the middle of each cell, in the unit square
    with torch.no_grad():
        loss = head(models.grids(classifier.model, images)[drloc.stage], points=points)
    assert found.error == pytest.approx(float(loss), abs=1e-6)
    assert found.as_json() == {"error_cells": found.error, "constant_cells": 0.75, "pairs": 256}


FILE = "localizer.safetensors"
IMAGES = torch.zeros(1, 3, 32, 32)


def refusal(folder: Path) -> VtzooError:
    entry = ModelFolder("embedded", folder)
    with pytest.raises(VtzooError) as caught:
        read_localizer(entry, models.create(entry.config.content).eval(), IMAGES)
    assert caught.value.hint is not None
    return caught.value


def edit(folder: Path, old: str, new: str) -> None:
    """Replace a regular expression, which must match, in the recipe."""
    recipe = folder / "recipe.toml"
    text, matches = re.subn(old, new, recipe.read_text(encoding="utf-8"))
    assert matches
    recipe.write_text(text, encoding="utf-8")


def test_a_folder_without_a_head_has_no_localization(embedded: Path) -> None:
    (embedded / FILE).unlink()
    entry = ModelFolder("embedded", embedded)
    assert read_localizer(entry, models.create(entry.config.content), IMAGES) is None


def test_a_head_of_another_grid_is_refused_by_its_shapes(embedded: Path) -> None:
    edit(embedded, "stage = 1", "stage = 0")
    message = refusal(embedded).message
    assert message.endswith(
        "localizer.safetensors does not fit the model: its head.0.weight is of shape (512, 384), "
        "and must be of shape (512, 192)"
    )


def test_a_head_that_lacks_a_tensor_is_refused_by_its_name(embedded: Path) -> None:
    weights = load_file(embedded / FILE)
    weights.pop("head.4.bias")
    save_file(weights, embedded / FILE)
    assert refusal(embedded).message.endswith("its head.4.bias is absent, and must be of shape (14,)")


def test_a_truncated_head_is_refused(embedded: Path) -> None:
    (embedded / FILE).write_bytes((embedded / FILE).read_bytes()[:-4])
    assert "localizer.safetensors is truncated" in refusal(embedded).message


def test_a_head_of_another_hash_than_its_result_says_is_refused(embedded: Path) -> None:
    (embedded / "result.json").write_text(json.dumps({"weights": {FILE: "0" * 64}}), encoding="utf-8")
    assert "does not have the sha256" in refusal(embedded).message


def test_a_stage_that_the_model_does_not_have_is_refused(embedded: Path) -> None:
    edit(embedded, "stage = 1", "stage = 4")
    assert refusal(embedded).message == "recipe.toml localizes in stage 4, and the model has 4 grids"


def test_a_head_beside_a_recipe_without_localization_is_refused(embedded: Path) -> None:
    text = (embedded / "recipe.toml").read_text(encoding="utf-8").partition("[drloc]")[0]
    (embedded / "recipe.toml").write_text(text.replace("-drloc-", "-baseline-"), encoding="utf-8")
    assert refusal(embedded).message.endswith("recipe.toml beside it trains without localization")


def test_of_a_head_in_every_stage_the_last_one_speaks(embedded: Path) -> None:
    edit(embedded, "stage = 1", "stage = 0")
    edit(embedded, "loss = .*", 'loss = "every_stage"')
    heads = nn.ModuleList([DenseRelativeLocalization(96), DenseRelativeLocalization(192)])
    save_file(heads.state_dict(), embedded / FILE)
    entry = ModelFolder("embedded", embedded)
    found = read_localizer(entry, models.create(entry.config.content).eval(), IMAGES)
    assert found is not None
    assert found.stage == 1
    assert torch.equal(found.head.head[0].weight, heads[1].head[0].weight)  # type: ignore[union-attr]
