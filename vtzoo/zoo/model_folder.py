"""The models at hand: each one is a folder, embedded in the package or anywhere on the disk."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtzoo.data import named as datasets
from vtzoo.errors import VtzooError, unknown
from vtzoo.zoo import resources

if TYPE_CHECKING:  # numpy and PIL take their time, and to find a model's files does without
    from vtzoo.data.transform import Preprocess

# Arguments with which timm would read other files, or download: a model folder has no say in that.
REACHING = ("cache_dir", "checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")


@dataclass(frozen=True)
class Entry:
    """A model folder: a run, an embedded model, a cached one and a repository on the Hub all look the same."""

    name: str
    folder: Path
    source: str | None = None  # ORG/NAME@COMMIT, of a model from the Hub
    pinned: dict[str, str] = field(default_factory=dict, compare=False)  # sha256 by file, as that commit says

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, in timm's Hub format; one that would reach out of its folder is a VtzooError."""
        config = self._json("config.json")
        architecture, arguments = config.get("architecture"), config.get("model_args", {})
        if not isinstance(architecture, str) or not isinstance(arguments, dict):
            raise VtzooError(f"{self.folder / 'config.json'} does not describe a model")
        # timm takes "hf-hub:..." and "local-dir:..." for places to load from.
        reaching = [name for name in REACHING if name in arguments] + [architecture] * (":" in architecture)
        if reaching:
            raise VtzooError(f"{self.folder / 'config.json'} points out of its folder, by {reaching[0]!r}")
        return config

    @cached_property
    def result(self) -> dict[str, Any]:
        """result.json: the measured accuracy, how it was got, and the hashes of the weights."""
        return self._json("result.json")

    @property
    def recipe_text(self) -> str:
        """recipe.toml as it was when the model was trained."""
        return self._text("recipe.toml")

    @property
    def named(self) -> bool:
        """Whether config.json names the classes."""
        stated = self._stated
        return bool(stated.get("label_names") or stated.get("label_descriptions"))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """What the classes are called, in the order of the outputs: the index of one that has no name.

        As timm has it, a class is called by its description where there is one, else by its name.
        """
        file = self.folder / "config.json"
        try:
            stated = self._stated
            classes = stated.get("num_classes")
            if type(classes) is not int or classes < 1:
                raise VtzooError(f"{file} describes a model of {classes!r} classes, which tells none from another")
            names = _by_index(stated.get("label_names"), classes)
            described = stated.get("label_descriptions")
            if isinstance(described, dict):
                described = [described.get(name, name) for name in names]
            labels = _by_index(described, classes) if described else names
        except (AttributeError, TypeError, ValueError) as error:
            raise VtzooError(f"{file} has no list of class names: {error}") from error
        for given in (names, labels):
            if len(given) != classes:
                raise VtzooError(f"{file} names {len(given)} classes, and its model has {classes}")
        return distinct(labels, names)

    @cached_property
    def preprocess(self) -> "Preprocess":
        """How the model wants its images."""
        from vtzoo.data.transform import Preprocess

        return Preprocess.from_config(self.config)

    def sha256(self, file: str) -> str | None:
        """The hash of one of the weight files, as its commit or else result.json says; None where neither does."""
        if file in self.pinned:
            return self.pinned[file]
        if not (self.folder / "result.json").exists():
            return None
        hashes = self.result.get("weights")
        return hashes.get(file) if isinstance(hashes, dict) else None

    @property
    def _stated(self) -> dict[str, Any]:
        """What config.json says, with what timm fills in."""
        from vtzoo.data.transform import complete

        return complete(self.config)

    def _text(self, file: str) -> str:
        try:
            return (self.folder / file).read_text(encoding="utf-8")
        except OSError as error:
            raise VtzooError(f"the model folder {self.folder} has no readable {file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise VtzooError(f"{self.folder / file} is not UTF-8 text") from error

    def _json(self, file: str) -> dict[str, Any]:
        try:
            content = json.loads(self._text(file))
        except (json.JSONDecodeError, RecursionError) as error:
            raise VtzooError(f"{self.folder / file} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise VtzooError(f"{self.folder / file} is not a JSON object")
        return content


def entries() -> list[Entry]:
    """The embedded models, by name."""
    found = sorted(resources.weights_folder().glob("*/config.json"))
    return [Entry(file.parent.name, file.parent) for file in found]


def records() -> list[Entry]:
    """The models, by name, that were measured and whose weights are not kept: a result.json and a recipe.toml each."""
    measured = {file.parent for file in resources.weights_folder().glob("*/result.json")}
    return [Entry(folder.name, folder) for folder in sorted(measured - {entry.folder for entry in entries()})]


def recorded(name: str) -> Entry | None:
    """The embedded model of that name, or else the record of it; None where neither is here."""
    return next((entry for entry in (*entries(), *records()) if entry.name == name), None)


def twin_of(name: str) -> str:
    """The name of the model that differs in the objective alone."""
    ours, other = ("-drloc-", "-baseline-") if "-drloc-" in name else ("-baseline-", "-drloc-")
    return name.replace(ours, other)


def local(name: str | Path) -> Entry | None:
    """The model of that name as far as it is here: an embedded one first, else the model folder at that path."""
    embedded = {entry.name: entry for entry in entries()}
    if str(name) in embedded:
        return embedded[str(name)]
    folder = Path(name)
    # os.path, because Path.is_file raises on a name that is too long for a file.
    if os.path.isfile(folder / "config.json"):  # noqa: PTH113
        return Entry(folder.resolve().name, folder)
    if os.path.isdir(folder):  # noqa: PTH112
        raise VtzooError(f"{str(name)!r} is not a model folder: it has no config.json", "vtzoo list names the models")
    return None


def find(name: str | Path) -> Entry:
    """The model of that name, embedded or a folder; what is neither is a VtzooError."""
    if entry := local(name):
        return entry
    names = [entry.name for entry in entries()]
    raise unknown_model(str(name), names, "vtzoo list names the models; a model folder's path works too")


def unknown_model(name: str, known: Sequence[str], hint: str) -> VtzooError:
    """The error for a name that is none of a model: it lists the nearest ones, unless the name is that of a recipe."""
    from vtzoo.zoo.recipe import shipped

    if name in shipped():
        return VtzooError(
            f"there are no weights of {name} here: it is a recipe",
            f"vtzoo train {name} trains it; a clone of vtzoo's repository may have them, after pip install -e .",
        )
    return unknown("model", name, known, hint)


def summary(entry: Entry) -> dict[str, Any]:
    """A model's name and, as far as its result.json says them, dataset, top1, top5 (fractions) and test images."""
    return {"name": entry.name, **_stated(entry, "dataset", "top1", "top5", "images")}


def facts(entry: Entry) -> dict[str, Any]:
    """What a model folder says of itself, for people: the model, how good it is, how it was trained, its classes."""
    stated = _stated(entry, "dataset", "manifest")
    copy = datasets.copy_of(stated.get("dataset", ""), stated.get("manifest", ""))
    return {
        "name": entry.name,
        "architecture": entry.config["architecture"],
        "classes": len(entry.labels),
        "image_size": entry.preprocess.size,  # pixels, the side of the square
        **_stated(entry, "dataset"),
        **({"copy": copy} if copy else {}),  # of the data set, that was measured
        **_stated(entry, "top1", "top5", "images", "manifest"),
        **_stated(entry, "seed", "steps", "batch", "train_images", "train_seconds", "hardware", "versions"),
        **_stated(entry, "teacher"),
        **_stated(entry, "recipe_sha256", "certificate"),
        "folder": str(entry.folder),
        "bytes": size(entry),
        "labels": list(entry.labels),
    }


def size(entry: Entry) -> int:
    """How many bytes all files of a model folder have together."""
    return sum(file.stat().st_size for file in entry.folder.rglob("*") if file.is_file())


def _stated(entry: Entry, *keys: str) -> dict[str, Any]:
    """Those of the keys that result.json has; none where there is no such file."""
    result = entry.result if (entry.folder / "result.json").exists() else {}
    return {key: result[key] for key in keys if key in result}


def distinct(labels: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The labels; one that several classes share has its class's name added, as the two cranes of ImageNet do."""
    count = Counter(labels)
    pairs = zip(labels, names, strict=True)
    return tuple(label if count[label] == 1 or label == name else f"{label} ({name})" for label, name in pairs)


def _by_index(names: Any, classes: int) -> list[str]:
    """The names out of a list, or of an object whose keys are indices; indices where there are none."""
    if isinstance(names, dict):
        given = {int(index): name for index, name in names.items()}
        if not all(0 <= index < classes for index in given):
            raise ValueError(f"it names class {max(given)}, and its model has {classes}")
        names = [given.get(index, str(index)) for index in range(classes)]
    names = names or [str(index) for index in range(classes)]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"a name must be text, and a list of them is not {type(names).__name__}")
    return names
