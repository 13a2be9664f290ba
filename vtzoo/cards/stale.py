"""What is out of date: cards that rendering does not give, weights whose recipe was edited, entries of the index."""

import hashlib
from pathlib import Path

from vtzoo.cards.folder import of
from vtzoo.hub import fetch, index
from vtzoo.hub.fetch import Pin
from vtzoo.zoo import lookup, recipe_files, resources
from vtzoo.zoo.model_folder import ModelFolder


def stale(folder: Path) -> dict[str, str]:
    """The cards, by path, that `folder` or an embedded model's own folder lacks or has otherwise."""
    wanted = {}
    for entry in lookup.embedded_models():
        card = of(entry)
        wanted[entry.folder / "README.md"] = card
        # The picture lies beside the one and not beside the other.
        wanted[folder / f"{entry.name}.md"] = _with_curves(card, f"../vtzoo/weights/{entry.name}/curves.png")
    return {str(path): card for path, card in wanted.items() if _text(path) != card}


def stale_weights() -> dict[str, str]:
    """A sentence on each model whose recipe is no more the one that it was trained by.

    The models are those that are embedded, those on record, whose number is on their twin's card, and the index's.
    """
    shipped, found = recipe_files.shipped(), {}
    pins, measured = (
        index.read(resources.index_file()),
        {one.name: one for one in (*lookup.embedded_models(), *lookup.weightless_models())},
    )
    for name in sorted(pins | measured):
        path = shipped.get(name)
        if path is None:
            found[name] = f"the weights of {name} are stale: the recipe that they were trained by is gone from recipes/"
        elif not _trained_by(path, measured.get(name), pins.get(name)):
            place = path.relative_to(resources.recipes_folder()).as_posix()
            found[name] = f"the weights of {name} are stale: recipes/{place} is not the recipe they were trained by"
    return found


def stale_index(folder: Path) -> list[str]:
    """A sentence on each entry of the index, and each card in `folder`, that does not go with the rest."""
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
    """The cards, by path, that `folder` lacks or has otherwise of models published alone; they come from the Hub."""
    embedded, found = {entry.name for entry in lookup.embedded_models()}, {}
    for name, pin in index.read(resources.index_file()).items():
        path = folder / f"{name}.md"
        if name not in embedded and not _is_published(_text(path), pin):
            card = fetch.model_folder(f"{fetch.PREFIX}{name}").folder / "README.md"
            found[str(path)] = _with_curves(_text(card), _curves_of(pin))
    return found


def _trained_by(path: Path, measured: ModelFolder | None, pin: Pin | None) -> bool:
    """Whether a recipe is the one on record, wherever one is."""
    content = pin.files.get("recipe.toml") if pin else None
    ours = measured is None or measured.result.recipe_sha256 == recipe_files.identity(path)
    return ours and (pin is None or (content is not None and content.fits(path)))


def _both(entry: ModelFolder, pin: Pin) -> list[str]:
    """On a model that is both embedded and published: the two must be one."""
    found, weights = [], pin.files.get("model.safetensors")
    if weights is None or not weights.fits(entry.folder / "model.safetensors"):
        found.append(f"{entry.name} is embedded with other weights than the index has of {pin.repo}: publish it again")
    if not _holds(pin, of(entry, pin.repo)):
        found.append(f"the card of {pin.repo} is not what rendering gives: publish {entry.name} again")
    return found


def _is_published(card: str, pin: Pin) -> bool:
    """Whether a card is the published one, but for where its picture is."""
    published = _with_curves(card, "curves.png", instead_of=_curves_of(pin))
    return published != card and _holds(pin, published)


def _holds(pin: Pin, card: str) -> bool:
    """Whether the card is the one that the index has."""
    content = pin.files.get("README.md")
    return content is not None and content.sha256 == hashlib.sha256(card.encode()).hexdigest()


def _curves_of(pin: Pin) -> str:
    """Where the picture of a published card is, from anywhere."""
    return f"https://huggingface.co/{pin.repo}/resolve/{pin.revision}/curves.png"


def _text(path: Path) -> str:
    """What a file says; nothing where it does not exist."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _with_curves(card: str, place: str, *, instead_of: str = "curves.png") -> str:
    """The card with its picture linked at another place."""
    return card.replace(f"]({instead_of})", f"]({place})")
