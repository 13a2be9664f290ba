"""Configs are written as they were read, and describe a model in timm's Hub format."""

import json
from pathlib import Path

import pytest

from vtzoo.zoo import resources
from vtzoo.zoo.config import Config

EMBEDDED = sorted(resources.weights_folder().glob("*/config.json"))


@pytest.mark.parametrize("path", EMBEDDED, ids=lambda path: path.parent.name)
def test_every_config_is_written_again_byte_for_byte(path: Path, tmp_path: Path) -> None:
    Config.read(path).write(tmp_path / "config.json")
    assert (tmp_path / "config.json").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("path", EMBEDDED, ids=lambda path: path.parent.name)
def test_a_described_model_has_the_same_config_as_the_embedded_model(path: Path, tmp_path: Path) -> None:
    embedded = json.loads(path.read_text(encoding="utf-8"))
    described = Config.describe(
        architecture=embedded["architecture"], arguments=embedded["model_args"], features=embedded["num_features"],
        labels=embedded["label_names"], pretrained_cfg=embedded["pretrained_cfg"],
    )  # fmt: skip
    described.write(tmp_path / "config.json")
    assert (tmp_path / "config.json").read_bytes() == path.read_bytes()
    assert described.labels == tuple(embedded["label_names"])


@pytest.mark.parametrize(("multi_label", "content"), [(True, {"multi_label": True}), (False, {})])
def test_only_a_multi_label_model_has_the_key_multi_label(multi_label: bool, content: dict[str, bool]) -> None:
    described = Config.describe(
        architecture="vit", arguments={}, features=8, labels=("cat", "dog"), pretrained_cfg={}, multi_label=multi_label
    )
    assert described.multi_label is multi_label
    assert {key: value for key, value in described.content.items() if key == "multi_label"} == content


def test_keys_of_other_programs_are_kept(tmp_path: Path) -> None:
    content = {"architecture": "vit", "theirs": {"a": [1]}, "pretrained_cfg": None}
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = Config.read(tmp_path / "config.json")
    assert (config.content, config.license, config.multi_label, config.arguments) == (content, None, False, {})
