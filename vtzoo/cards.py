"""Model cards: the README.md of a model folder, rendered from its config, its recipe and its result alone.

`python -m vtzoo.cards` renders model_cards/ and the README's table of models anew; with --check it only names the files
that are stale.
"""

import sys
from pathlib import Path
from typing import Any

from . import datasets, resources, zoo
from .recipe import Recipe, parse_recipe

PAPER = """@inproceedings{liu2021efficient,
  title     = {Efficient Training of Visual Transformers with Small Datasets},
  author    = {Liu, Yahui and Sangineto, Enver and Bi, Wei and Sebe, Nicu and Lepri, Bruno and De Nadai, Marco},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021}
}"""


def render(config: dict[str, Any], recipe: Recipe, result: dict[str, Any], twin: dict[str, Any] | None = None) -> str:
    """The Markdown of a model's card, metadata first, in the Hub's format.

    `twin` is the result.json of the same recipe with the other objective; without one the card says that nobody has
    trained it.
    """
    metadata = _metadata(config, recipe, result)
    return f"---\n{metadata}\n---\n\n{_text(config, recipe, result, twin)}"


def stale(folder: Path) -> dict[str, str]:
    """The cards, by path, that `folder` or an embedded model's own folder lacks or has otherwise."""
    entries, cards = zoo.entries(), {}
    results = {entry.name: entry.result for entry in entries}
    for entry in entries:
        twin = results.get(_twin_name(entry.name))
        card = render(entry.config, parse_recipe(entry.recipe_text), entry.result, twin)
        for path in (folder / f"{entry.name}.md", entry.folder / "README.md"):
            if not path.exists() or path.read_text(encoding="utf-8") != card:
                cards[str(path)] = card
    return cards


def main() -> int:
    """Write what is stale; with --check only name it, and fail if there is any."""
    changed = stale(resources.cards_folder()) | stale_table(resources.PACKAGE.parent / "README.md")
    for path, text in changed.items():
        print(path)
        if "--check" not in sys.argv[1:]:
            Path(path).write_text(text, encoding="utf-8")
    return int(bool(changed) and "--check" in sys.argv[1:])


def _twin_name(name: str) -> str:
    """The name of the model that differs in the objective alone."""
    ours, other = ("-drloc-", "-baseline-") if "-drloc-" in name else ("-baseline-", "-drloc-")
    return name.replace(ours, other)


def _metadata(config: dict[str, Any], recipe: Recipe, result: dict[str, Any]) -> str:
    """The YAML block: huggingface_hub's ModelCardData with the accuracy as an EvalResult."""
    from huggingface_hub import EvalResult, ModelCardData

    dataset = datasets.find(recipe.dataset)
    accuracy = EvalResult(
        task_type="image-classification", dataset_type=dataset.hub_id, dataset_name=dataset.name, dataset_split="test",
        metric_type="accuracy", metric_name="top-1", metric_value=round(result["top1"], 4),
    )  # fmt: skip
    tags = ["image-classification", "timm", "vtzoo", "onnx", *(["drloc"] if recipe.drloc else [])]
    return ModelCardData(
        model_name=recipe.name, library_name="timm", pipeline_tag="image-classification",
        license=config["pretrained_cfg"]["license"], datasets=[dataset.hub_id], tags=tags, eval_results=[accuracy],
    ).to_yaml()  # fmt: skip


def _text(config: dict[str, Any], recipe: Recipe, result: dict[str, Any], twin: dict[str, Any] | None) -> str:
    dataset = datasets.find(recipe.dataset)
    certificate, minutes = result["certificate"], result["train_seconds"] / 60
    return f"""# {recipe.name}

{_objective(recipe)} Trained from scratch on {result["train_images"]:,} images of {dataset.name}
({config["num_classes"]} classes, {recipe.model.image_size} px), with no other data.

| | top-1 | top-5 | test images | seeds | optimizer steps | batch |
| --- | --- | --- | --- | --- | --- | --- |
{_row(recipe.name, result)}
{_row(f"{_twin_name(recipe.name)}, its twin", twin)}

These are the {"averaged weights" if recipe.schedule.ema_decay else "weights"} of the last step: nothing was selected on the test split. The top-1 is what this
command prints for the files of this folder:

    vtzoo evaluate --model {recipe.name}

Test split (sha256 of pixels and labels): `{result["manifest"]}`.

## Use

    vtzoo predict --model {recipe.name} photo.jpg

```python
import vtzoo

classify = vtzoo.load("{recipe.name}")
probabilities = classify("photo.jpg")  # (1, {config["num_classes"]}), in the order of classify.labels
```

## Training

`vtzoo train {recipe.name} --seed {result["seed"]}`: {recipe.schedule.epochs} epochs in {minutes:.0f} minutes on {result["hardware"]}.
Recipe: recipe.toml, sha256 `{result["recipe_sha256"]}`.
Versions: {", ".join(f"{name} {value}" for name, value in result["versions"].items())}.

![Training curves](curves.png)

## ONNX

onnx/model.onnx reads its weights from model.safetensors and agrees with torch on {certificate["top1_agreement"]:.2%} of
{certificate["images"]} test images; the largest difference of a logit is {certificate["max_logit_difference"]:.1e}.

## Limits

It knows the {config["num_classes"]} classes of {dataset.name} and answers with one of them whatever it sees; its probabilities
are not calibrated. It looks at {recipe.model.image_size} x {recipe.model.image_size} pixels: small objects in large photographs are lost. One seed
was trained: the accuracy of another would differ. Licence of the images: {dataset.licence}.

## Citation

```bibtex
{PAPER}
```
"""


def _objective(recipe: Recipe) -> str:
    if recipe.drloc is None:
        return f"`{recipe.model.name}`, the baseline: the same recipe as its twin, without dense relative localization."
    return (
        f"`{recipe.model.name}` trained with dense relative localization (weight {recipe.drloc.weight}, "
        f"{recipe.drloc.pairs} pairs an image, grid {recipe.drloc.stage})."
    )


def _row(name: str, result: dict[str, Any] | None) -> str:
    """A line of the card's table: a model's numbers, or that nobody has trained it."""
    if result is None:
        return f"| {name} | not trained yet | | | | | |"
    return (
        f"| {name} | {result['top1']:.2%} | {result['top5']:.2%} | {result['images']:,} "
        f"| 1 (seed {result['seed']}) | {result['steps']:,} | {result['batch']} |"
    )


def models_table() -> str:
    """The Markdown table of the embedded models: how good each is, and what it took to train it."""
    head = "| model | data set | top-1 | top-5 | test images | steps x batch | trained in, on |"
    row = "| {name} | {dataset} | {top1:.2%} | {top5:.2%} | {images:,} | {steps:,} x {batch} | {minutes:.0f} min, {hardware} |"
    results = [entry.result for entry in zoo.entries()]
    rows = [row.format(**result, minutes=result["train_seconds"] / 60) for result in results]
    return "\n".join([head, "| --- " * (head.count("|") - 1) + "|", *rows]) + "\n"


def stale_table(readme: Path) -> dict[str, str]:
    """The README with its table of models rendered anew, by path; nothing where it is current, or has no such table."""
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    wanted = put(text, "models", models_table())
    return {str(readme): wanted} if text != wanted else {}


def put(text: str, mark: str, table: str) -> str:
    """The text with `table` between the comments that mark its place; as it is where there are none."""
    before, begin, rest = text.partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    return f"{before}{begin}{table}{end}{after}" if end else text


if __name__ == "__main__":
    sys.exit(main())
