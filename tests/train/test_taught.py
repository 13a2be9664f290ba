"""Runs with a teacher: their records and files, resuming, and refused teachers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vtzoo import models
from vtzoo.base import files
from vtzoo.data import named, named_reader
from vtzoo.errors import VtzooError
from vtzoo.train import loop, run
from vtzoo.zoo import resources
from vtzoo.zoo.result import Certificate

NAME = "small_cnn-baseline-cifar10"

Write = Callable[..., Path]


@pytest.fixture
def write(recipe_text: Callable[..., str], tmp_path: Path) -> Write:
    """Writes the edited tiny recipe with its teacher, and returns its path."""

    def to_file(*, taught: bool = True, **edits: Any) -> Path:
        (tmp_path / "tiny.toml").write_text(recipe_text(taught=taught, **edits))
        return tmp_path / "tiny.toml"

    return to_file


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the export and the evaluation, which take seconds."""
    certificate = Certificate(images=1, max_logit_difference=0.0, top1_agreement=1.0)
    monkeypatch.setattr(run, "write_packaged_graph", lambda *_, **__: certificate)
    monkeypatch.setattr(run, "load", lambda folder: None)
    monkeypatch.setattr(run, "measure", lambda *_, **__: {"top1": 0.5, "top5": 1.0, "images": 20, "manifest": "m"})


def altered(folder: Path, to: Path, file: str = "result.json", **values: Any) -> Path:
    """A copy of a model folder, in symbolic links, with changed values in a JSON file."""
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).symlink_to(path, target_is_directory=path.is_dir())
    (to / file).unlink()
    (to / file).write_text(json.dumps(json.loads((folder / file).read_text()) | values))
    return to


@pytest.mark.usefixtures("unmeasured")
def test_a_taught_run_records_its_teacher_and_stores_none_of_its_weights(
    write: Write, small_cnn: Path, tiny_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = run.train(write(epochs=1), data=tiny_data, out=out, device="cpu", teacher=small_cnn)
    top1 = json.loads((small_cnn / "result.json").read_text())["top1"]
    assert result
    assert result.teacher
    assert result.teacher.as_json() == {
        "name": NAME, "weights": files.sha256(small_cnn / "model.safetensors"), "top1": top1,
    }  # fmt: skip
    assert json.loads((out / "result.json").read_text())["teacher"] == result.teacher.as_json()
    stored = load_file(out / "checkpoint.safetensors")
    assert {name.partition(".")[0] for name in stored} == {"model", "localizer", "average", "optimizer"}
    own = models.create(json.loads((out / "config.json").read_text())).state_dict().keys()
    assert load_file(out / "model.safetensors").keys() == own
    assert {name.removeprefix("model.") for name in stored if name.startswith("model.")} == own
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(line["distillation"] > 0 for line in lines)
    for line in lines:
        weighted = 0.2 * line["cross_entropy"] + 0.8 * line["distillation"]
        assert weighted - 1e-6 <= line["loss"] <= weighted + 0.5 * line["localization"] + 1e-6


@pytest.mark.usefixtures("unmeasured")
def test_a_run_without_a_teacher_records_no_teacher(write: Write, tiny_data: Path, tmp_path: Path) -> None:
    result = run.train(write(taught=False, epochs=1), data=tiny_data, out=tmp_path / "run", device="cpu")
    assert result
    assert result.teacher is None
    assert "distillation" not in (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.usefixtures("unmeasured")
def test_a_taught_run_resumes_bit_for_bit_with_its_teacher_and_with_no_other(
    write: Write, small_cnn: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException): ...

    def die(state: loop.Run, *rest: Any) -> Any:
        if state.step == 4:
            raise Killed
        return real(state, *rest)

    path, real = write(muon=True), loop._step
    options: dict[str, Any] = {"data": tiny_data, "device": "cpu", "teacher": small_cnn}
    run.train(path, out=tmp_path / "whole", **options)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr(loop, "_step", die)
    with pytest.raises(Killed):
        run.train(path, out=tmp_path / "run", **options)
    monkeypatch.setattr(loop, "_step", real)
    other = retrained(small_cnn, tmp_path / "other")
    with pytest.raises(VtzooError, match="belongs to another recipe, seed, data set or teacher"):
        run.train(path, out=tmp_path / "run", resume=True, **options | {"teacher": other})
    run.train(path, out=tmp_path / "run", resume=True, **options)
    actual, expected = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("run", "whole"))
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())


def retrained(folder: Path, to: Path) -> Path:
    """A copy of a model folder with other weights."""
    weights = load_file(folder / "model.safetensors")
    weights["head.bias"] += 1
    altered(folder, to)
    (to / "model.safetensors").unlink()
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    result = json.loads((to / "result.json").read_text())
    result["weights"] = {"model.safetensors": files.sha256(to / "model.safetensors")}
    (to / "result.json").write_text(json.dumps(result))
    return to


@pytest.mark.usefixtures("unmeasured")
def test_an_embedded_teacher_is_found_by_its_name(
    write: Write, small_cnn: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / NAME).symlink_to(small_cnn, target_is_directory=True)
    monkeypatch.setattr("vtzoo.zoo.resources.weights_folder", lambda: tmp_path / "weights")
    result = run.train(write(epochs=1), data=tiny_data, out=tmp_path / "run", device="cpu")
    assert result
    assert result.teacher
    assert result.teacher.name == NAME


# Refused teachers


@pytest.fixture
def refused(
    write: Write, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path | None], str]:
    """The message and the hint for a run with the given teacher, which is refused before its first step."""

    def start(folder: Path | None, **edits: Any) -> str:
        with pytest.raises(VtzooError) as raised:
            run.train(write(**edits), data=tiny_data, out=tmp_path / "run", device="cpu", teacher=folder)
        assert not list((tmp_path / "run").iterdir())
        return f"{raised.value.message} | {raised.value.hint}"

    monkeypatch.setattr(run, "fit", None)
    return start


def test_a_missing_teacher_is_refused_with_the_command_that_trains_it(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "weights_folder", lambda: tmp_path / "empty")  # as in a wheel
    hint = f"train it: vtzoo train {NAME} --out runs/{NAME}; then go on with --teacher runs/{NAME}"
    message = refused(None)
    assert message.startswith(f"no teacher {NAME}: ")
    assert message.endswith(f" | {hint}")
    for folder in (tmp_path / "nowhere", Path("runs/nowhere")):  # the second looks like a name on the Hub
        assert refused(folder) == f"no teacher {NAME}: unknown model '{folder}' | {hint}"
    assert "it has no config.json" in refused(tmp_path)


def test_a_teacher_that_was_not_trained_to_its_end_is_refused(
    refused: Callable[..., str], small_cnn: Path, tmp_path: Path
) -> None:
    folder = altered(small_cnn, tmp_path / "half")
    (folder / "result.json").unlink()
    assert f"no teacher {NAME}: the model folder {folder} has no readable result.json" in refused(folder)


def test_a_folder_of_another_model_is_refused_by_both_names(
    refused: Callable[..., str], small_cnn: Path, tmp_path: Path
) -> None:
    folder = altered(small_cnn, tmp_path / "other", name="swin_t-drloc-cifar10")
    message = refused(folder)
    assert message == (
        f"{folder} holds swin_t-drloc-cifar10, and the recipe's teacher is {NAME} | --teacher FOLDER says where that is"
    )


@pytest.mark.parametrize(
    ("changes", "count"),
    [({"label_names": [f"class {number}" for number in range(10)]}, 10), ({"num_classes": 3, "label_names": None}, 3)],
)
def test_a_teacher_of_other_classes_is_refused(
    changes: dict[str, Any], count: int, refused: Callable[..., str], small_cnn: Path, tmp_path: Path
) -> None:
    pretrained = json.loads((small_cnn / "config.json").read_text())["pretrained_cfg"]
    if "num_classes" in changes:
        changes = changes | {"pretrained_cfg": pretrained | {"num_classes": count}}
    message = refused(altered(small_cnn, tmp_path / "other", "config.json", **changes))
    assert f"the {count} classes of the teacher {NAME} are not the 10 of cifar10" in message
    assert f"{NAME} was on cifar10" in message


def test_without_recorded_class_names_a_teacher_passes_the_check_of_its_classes(
    refused: Callable[..., str], small_cnn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named, "labels", lambda name: None)
    folder = altered(small_cnn, tmp_path / "other", train_manifest="elsewhere")
    assert "other images" in refused(folder)


def test_a_teacher_of_another_image_size_is_refused(refused: Callable[..., str], small_cnn: Path) -> None:
    message = refused(small_cnn, image_size=32, patch_size=4)
    assert f"the teacher {NAME} takes images of 3 x 16 x 16, and its student of 3 x 32 x 32 | " in message


def test_a_teacher_of_other_training_images_is_refused_by_both_hashes(
    refused: Callable[..., str], small_cnn: Path, tiny_data: Path, tmp_path: Path
) -> None:
    own = named_reader.read(named.named_set("cifar10"), "train", tiny_data).fingerprint
    for number, learned in enumerate(("ab" * 32, None)):
        message = refused(altered(small_cnn, tmp_path / f"other {number}", train_manifest=learned))
        assert f"the teacher {NAME} was trained on other images: their sha256 is {learned}, and here {own}" in message
        assert f"train it with the same --data: vtzoo train {NAME}" in message


def test_a_teacher_that_was_trained_on_the_test_images_is_refused(
    refused: Callable[..., str], small_cnn: Path, tiny_data: Path, tmp_path: Path
) -> None:
    test_manifest = named_reader.read(named.named_set("cifar10"), "test", tiny_data).fingerprint
    message = refused(altered(small_cnn, tmp_path / "other", train_manifest=test_manifest))
    assert message.startswith(f"the teacher {NAME} was trained on the test images | train it on the training images: ")


def test_a_fine_tuned_teacher_is_refused(refused: Callable[..., str], small_cnn: Path, tmp_path: Path) -> None:
    tuned = """[finetune]
source = "somebody/else"
weights = "ab"
images = 24
multi_label = false
head_only = false
head_epochs = 0
layer_decay = 1.0
look_epochs = 1
patience = 1
"""
    folder = altered(small_cnn, tmp_path / "other")
    (folder / "recipe.toml").unlink()
    (folder / "recipe.toml").write_text((small_cnn / "recipe.toml").read_text() + tuned)
    message = refused(folder)
    assert f"the teacher {NAME} goes on from somebody/else, which may have seen other images" in message


def test_damaged_weights_of_a_teacher_are_refused(refused: Callable[..., str], small_cnn: Path, tmp_path: Path) -> None:
    folder = altered(small_cnn, tmp_path / "other", weights={"model.safetensors": "ab" * 32})
    assert "sha256" in refused(folder)


def test_a_teacher_for_a_recipe_that_names_none_is_refused(refused: Callable[..., str], small_cnn: Path) -> None:
    message = refused(small_cnn, taught=False)
    assert message == f"swin_t-drloc-cifar10 has no [teacher] for {small_cnn} to be | leave out --teacher"
