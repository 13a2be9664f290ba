"""config.json: the architecture of a model, its class names and its preprocessing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtzoo.errors import VtzooError
from vtzoo.zoo.folder_files import read_json, write_json

if TYPE_CHECKING:  # finding a model needs neither numpy nor PIL, which are slow to import
    from vtzoo.data.transform import Preprocess

# Arguments that make timm read files outside the model folder, or download.
REACHING = ("cache_dir", "checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")


@dataclass(frozen=True, kw_only=True)
class Config:
    """config.json, in timm's Hub format. Keys of other programs are kept."""

    content: dict[str, Any]
    file: str = "config.json"  # named in errors

    @classmethod
    def read(cls, path: Path) -> "Config":
        """The config in a file. A VtzooError if it describes no model or points out of its folder."""
        config = cls(content=read_json(path), file=str(path))
        architecture, arguments = config.content.get("architecture"), config.content.get("model_args", {})
        if not isinstance(architecture, str) or not isinstance(arguments, dict):
            raise VtzooError(f"{path} does not describe a model")
        # In timm, "hf-hub:..." and "local-dir:..." name weights elsewhere.
        reaching = [name for name in REACHING if name in arguments] + [architecture] * (":" in architecture)
        if reaching:
            raise VtzooError(f"{path} points out of its folder, by {reaching[0]!r}")
        return config

    @classmethod
    def describe(
        cls, *, architecture: str, arguments: dict[str, Any], features: Any, labels: Sequence[str],
        pretrained_cfg: dict[str, Any], multi_label: bool = False,
    ) -> "Config":  # fmt: skip
        """The config of a trained model, from which timm and vtzoo rebuild the model."""
        return cls(content={
            "architecture": architecture, "num_classes": len(labels), "num_features": features,
            "dtype": "float32",  # in which transformers computes; without the key it would take the weights' fp16
            "model_args": arguments, "label_names": list(labels), **({"multi_label": True} if multi_label else {}),
            "pretrained_cfg": pretrained_cfg,
        })  # fmt: skip

    def write(self, path: Path) -> None:
        """Write config.json atomically."""
        write_json(path, self.content)

    @property
    def architecture(self) -> str:
        """The model's name in timm."""
        return self.content["architecture"]

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the architecture."""
        return dict(self.content.get("model_args") or {})

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes: a sigmoid per class instead of one softmax."""
        return self.content.get("multi_label") is True

    @property
    def license(self) -> str | None:
        """The license of the weights, by the Hub's name, such as "apache-2.0"."""
        return (self.content.get("pretrained_cfg") or {}).get("license")

    @cached_property
    def completed(self) -> dict[str, Any]:
        """`pretrained_cfg` with the rest of the file and timm's defaults, as timm reads it."""
        from vtzoo.data.transform import complete

        return complete(self.content)

    @cached_property
    def preprocess(self) -> "Preprocess":
        """The model's own preprocessing of images."""
        from vtzoo.data.transform import Preprocess

        return Preprocess.from_config(self.content)

    @property
    def named(self) -> bool:
        """Whether the config names the classes."""
        return bool(self.completed.get("label_names") or self.completed.get("label_descriptions"))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The class labels in the order of the outputs: description, else name, else index, as in timm."""
        try:
            classes = self.completed.get("num_classes")
            if type(classes) is not int or classes < 1:
                raise VtzooError(f"{self.file} describes a model of {classes!r} classes: a classifier has one or more")
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
    """The labels, with the class name added to labels that classes share, such as ImageNet's two cranes."""
    count = Counter(labels)
    pairs = zip(labels, names, strict=True)
    return tuple(label if count[label] == 1 or label == name else f"{label} ({name})" for label, name in pairs)


def _by_index(names: Any, classes: int) -> list[str]:
    """The names from a list, or from a JSON object by index; a missing name becomes the index."""
    if isinstance(names, dict):
        given = {int(index): name for index, name in names.items()}
        if not all(0 <= index < classes for index in given):
            raise ValueError(f"it names class {max(given)}, and its model has {classes}")
        names = [given.get(index, str(index)) for index in range(classes)]
    names = names or [str(index) for index in range(classes)]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"a name must be text, and a list of them is not {type(names).__name__}")
    return names
