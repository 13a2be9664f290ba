"""Configs: which architecture a model has, what its classes are called, and how it takes its images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtzoo.errors import VtzooError
from vtzoo.zoo.folder_files import read_json, write_json

if TYPE_CHECKING:  # numpy and PIL are slow to import, and finding a model does without them
    from vtzoo.data.transform import Preprocess

# Arguments with which timm would read other files, or download: a model folder must not reach out of itself.
REACHING = ("cache_dir", "checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")


@dataclass(frozen=True, kw_only=True)
class Config:
    """config.json, in timm's Hub format. Keys of other programs are kept."""

    content: dict[str, Any]
    file: str = "config.json"  # named in errors

    @classmethod
    def read(cls, path: Path) -> "Config":
        """The config in a file. One that describes no model, or reaches out of its folder, is a VtzooError."""
        config = cls(content=read_json(path), file=str(path))
        architecture, arguments = config.content.get("architecture"), config.content.get("model_args", {})
        if not isinstance(architecture, str) or not isinstance(arguments, dict):
            raise VtzooError(f"{path} does not describe a model")
        # timm loads from places that are named "hf-hub:..." and "local-dir:...".
        reaching = [name for name in REACHING if name in arguments] + [architecture] * (":" in architecture)
        if reaching:
            raise VtzooError(f"{path} points out of its folder, by {reaching[0]!r}")
        return config

    @classmethod
    def describe(
        cls, *, architecture: str, arguments: dict[str, Any], features: Any, labels: Sequence[str],
        pretrained_cfg: dict[str, Any], multi_label: bool = False,
    ) -> "Config":  # fmt: skip
        """The config of a trained model, from which timm and vtzoo build it again."""
        return cls(
            content={
                "architecture": architecture,
                "num_classes": len(labels),
                "num_features": features,
                "dtype": "float32",  # of the computation, to transformers: the weights' own would be fp16
                "model_args": arguments,
                "label_names": list(labels),
                **({"multi_label": True} if multi_label else {}),
                "pretrained_cfg": pretrained_cfg,
            }
        )

    def write(self, path: Path) -> None:
        """Write config.json, whole or not at all."""
        write_json(path, self.content)

    @property
    def architecture(self) -> str:
        """The model's name in timm."""
        return self.content["architecture"]

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that the architecture is built with."""
        return dict(self.content.get("model_args") or {})

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes: each has a sigmoid, instead of one softmax."""
        return self.content.get("multi_label") is True

    @property
    def license(self) -> str | None:
        """The license of the weights, by the Hub's name for it."""
        return (self.content.get("pretrained_cfg") or {}).get("license")

    @cached_property
    def completed(self) -> dict[str, Any]:
        """`pretrained_cfg` as timm reads it, amended by the rest of the file and by timm's defaults."""
        from vtzoo.data.transform import complete

        return complete(self.content)

    @cached_property
    def preprocess(self) -> "Preprocess":
        """How the model takes its images."""
        from vtzoo.data.transform import Preprocess

        return Preprocess.from_config(self.content)

    @property
    def named(self) -> bool:
        """Whether the config names the classes."""
        return bool(self.completed.get("label_names") or self.completed.get("label_descriptions"))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the outputs; a class without a name has its index.

        As in timm, a class's description comes before its name.
        """
        try:
            classes = self.completed.get("num_classes")
            if type(classes) is not int or classes < 1:
                raise VtzooError(f"{self.file} describes a model of {classes!r} classes, which tells none from another")
            names = _by_index(self.completed.get("label_names"), classes)
            described = self.completed.get("label_descriptions")
            if isinstance(described, dict):
                described = [described.get(name, name) for name in names]
            labels = _by_index(described, classes) if described else names
        except (AttributeError, TypeError, ValueError) as error:
            raise VtzooError(f"{self.file} has no list of class names: {error}") from error
        for given in (names, labels):
            if len(given) != classes:
                raise VtzooError(f"{self.file} names {len(given)} classes, and its model has {classes}")
        return distinct(labels, names)


def distinct(labels: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The labels; where several classes share a label, as ImageNet's two cranes do, the class's name is added."""
    count = Counter(labels)
    pairs = zip(labels, names, strict=True)
    return tuple(label if count[label] == 1 or label == name else f"{label} ({name})" for label, name in pairs)


def _by_index(names: Any, classes: int) -> list[str]:
    """The names in a list, or in an object whose keys are indices; indices where there are none."""
    if isinstance(names, dict):
        given = {int(index): name for index, name in names.items()}
        if not all(0 <= index < classes for index in given):
            raise ValueError(f"it names class {max(given)}, and its model has {classes}")
        names = [given.get(index, str(index)) for index in range(classes)]
    names = names or [str(index) for index in range(classes)]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"a name must be text, and a list of them is not {type(names).__name__}")
    return names
