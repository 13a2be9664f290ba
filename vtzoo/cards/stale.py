"""Stale cards, weights whose recipe was edited after the training, and stale entries of the index."""

import hashlib
from pathlib import Path

from vtzoo.cards.folder import card_of
from vtzoo.hub import fetch, index
from vtzoo.hub.fetch import Pin
from vtzoo.zoo import lookup, recipe_files, resources
from vtzoo.zoo.model_folder import ModelFolder


def stale(folder: Path) -> dict[str, str]:
    """The current cards, by path, of all cards that are missing or stale in `folder` or an embedded model's folder."""
    wanted = {}
    for entry in lookup.embedded_models():
        card = card_of(entry)
        wanted[entry.folder / "README.md"] = card
        # curves.png lies beside the README.md, and not in the folder of the cards.
        wanted[folder / f"{entry.name}.md"] = _with_curves(card, f"../vtzoo/weights/{entry.name}/curves.png")
    return {str(path): card for path, card in wanted.items() if _text(path) != card}


def stale_weights() -> dict[str, str]:
    """A sentence, by name, on each model whose recipe was edited after its training.

    The models are the embedded ones, the records without weights, whose numbers are on their twins' cards, and those of
    the index.
    """
    shipped, sentences, pins = recipe_files.shipped(), {}, index.read(resources.index_file())
    measured = {entry.name: entry for entry in (*lookup.embedded_models(), *lookup.weightless_models())}
    for name in sorted(pins | measured):
        path = shipped.get(name)
        if path is None:
            sentences[name] = f"the weights of {name} are stale: their recipe is gone from recipes/"
        elif not _trained_by(path, measured.get(name), pins.get(name)):
            place = path.relative_to(resources.recipes_folder()).as_posix()
            sentences[name] = f"the weights of {name} are stale: recipes/{place} is not the recipe they were trained by"
    return sentences


def stale_index(folder: Path) -> list[str]:
    """A sentence on each entry of the index and each card in `folder` that contradicts the other files."""
    pins, embedded = index.read(resources.index_file()), {entry.name: entry for entry in lookup.embedded_models()}
    stray = sorted(path.stem for path in folder.glob("*.md") if path.stem not in pins | embedded)
    sentences = [f"{folder / name}.md is the card of no model, neither embedded nor in the index" for name in stray]
    for name, pin in sorted(pins.items()):
        path = folder / f"{name}.md"
        if name in embedded:
            sentences += _both(embedded[name], pin)
        elif not _is_published(_text(path), pin):
            sentences.append(f"{path} is not the card of {pin.repo} at {pin.revision}: python -m vtzoo.cards gets it")
    return sentences


def published(folder: Path) -> dict[str, str]:
    """The cards from the Hub, by path, of models that are published, not embedded, and missing or stale in `folder`."""
    embedded, found = {entry.name for entry in lookup.embedded_models()}, {}
    for name, pin in index.read(resources.index_file()).items():
        path = folder / f"{name}.md"
        if name not in embedded and not _is_published(_text(path), pin):
            card = fetch.model_folder(f"{fetch.PREFIX}{name}").folder / "README.md"
            found[str(path)] = _with_curves(_text(card), _curves_of(pin))
    return found


def _trained_by(path: Path, measured: ModelFolder | None, pin: Pin | None) -> bool:
    """Whether a recipe has the hash in the model's result and in the index, where these exist."""
    content = pin.files.get("recipe.toml") if pin else None
    ours = measured is None or measured.result.recipe_sha256 == recipe_files.identity(path)
    return ours and (pin is None or (content is not None and content.fits(path)))


def _both(entry: ModelFolder, pin: Pin) -> list[str]:
    """Sentences on the differences between the embedded and the published copy of a model."""
    found, weights = [], pin.files.get("model.safetensors")
    if weights is None or not weights.fits(entry.folder / "model.safetensors"):
        found.append(f"{entry.name} is embedded with other weights than the index has of {pin.repo}: publish it again")
    if not _holds(pin, card_of(entry, pin.repo)):
        found.append(f"the card of {pin.repo} is not what rendering gives: publish {entry.name} again")
    return found


def _is_published(card: str, pin: Pin) -> bool:
    """Whether a card is the published one, except for the link to its picture."""
    published = _with_curves(card, "curves.png", instead_of=_curves_of(pin))
    return published != card and _holds(pin, published)


def _holds(pin: Pin, card: str) -> bool:
    """Whether the card has the hash in the index."""
    content = pin.files.get("README.md")
    return content is not None and content.sha256 == hashlib.sha256(card.encode()).hexdigest()


def _curves_of(pin: Pin) -> str:
    """The address of the picture of a published card."""
    return f"https://huggingface.co/{pin.repo}/resolve/{pin.revision}/curves.png"


def _text(path: Path) -> str:
    """The text of a file; empty if the file does not exist."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _with_curves(card: str, place: str, *, instead_of: str = "curves.png") -> str:
    """The card with the link to its picture moved to `place`."""
    return card.replace(f"]({instead_of})", f"]({place})")
