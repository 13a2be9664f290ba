"""The text of a card, section by section."""

import textwrap
from typing import Any

from vtzoo import datasets
from vtzoo.recipe import Recipe

from . import metadata

PAPER = """@inproceedings{liu2021efficient,
  title     = {Efficient Training of Visual Transformers with Small Datasets},
  author    = {Liu, Yahui and Sangineto, Enver and Bi, Wei and Sebe, Nicu and Lepri, Bruno and De Nadai, Marco},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021}
}"""


def render(
    config: dict[str, Any], recipe: Recipe, result: dict[str, Any], twin: dict[str, Any] | None = None,
    repo: str | None = None, *, name: str = ".",
) -> str:  # fmt: skip
    """The Markdown of a model's card, metadata first, in the Hub's format.

    `twin` is the result.json of the same recipe with the other objective; without one the card says that nobody has
    trained it. `repo` is ORG/NAME on the Hub, None for a model that is not published. What is not is loaded by `name`:
    an embedded model's own, or "." from within the folder that the card lies in.
    """
    sections = (
        _model(config, recipe, result),
        _accuracy(recipe, result, twin, repo or name),
        _use(config, recipe, repo, name),
        _training(recipe, result),
        _onnx(result, repo),
        _limits(config, recipe),
        f"## Citation\n\n```bibtex\n{PAPER}\n```",
    )
    return "\n\n".join([f"---\n{metadata.render(config, recipe, result, repo)}\n---", *sections]) + "\n"


def twin_of(name: str) -> str:
    """The name of the model that differs in the objective alone."""
    ours, other = ("-drloc-", "-baseline-") if "-drloc-" in name else ("-baseline-", "-drloc-")
    return name.replace(ours, other)


def _model(config: dict[str, Any], recipe: Recipe, result: dict[str, Any]) -> str:
    """What it is."""
    dataset, size = datasets.find(recipe.dataset), recipe.model.image_size
    how = "without dense relative localization: the baseline of its twin"
    if recipe.drloc:
        how = (
            "together with dense relative localization, the self-supervised task of [Liu et al. 2021]"
            f"(https://arxiv.org/abs/2106.03746) (loss `{recipe.drloc.loss or 'l1'}`, weight {recipe.drloc.weight}, "
            f"{recipe.drloc.pairs} pairs an image, in the grid of stage {recipe.drloc.stage})"
        )
    return f"# {recipe.name}\n\n" + _filled(
        f"An image classifier: `{recipe.model.name}` (`{config['architecture']}` in timm) at {size} px, "
        f"trained {how}. From scratch, on {result['train_images']:,} images of "
        f"[{dataset.name}](https://huggingface.co/datasets/{dataset.hub_id}) in {config['num_classes']} classes and no "
        "other data."
    )


def _accuracy(recipe: Recipe, result: dict[str, Any], twin: dict[str, Any] | None, model: str) -> str:
    """How good it is, beside its twin."""
    weights = "averaged weights" if recipe.schedule.ema_decay else "weights"
    told = f"These are the {weights} of the last step: nothing was selected on the test images."
    if twin and twin["manifest"] != result["manifest"]:
        told += " The twin was measured on other test images: the two do not compare."
    told += " This prints the top-1 and the top-5 again:"
    return f"""| | top-1 | top-5 | test images | seeds | optimizer steps | batch |
| --- | --- | --- | --- | --- | --- | --- |
{_row(recipe.name, result)}
{_row(f"{twin_of(recipe.name)}, its twin", twin)}

{_filled(told)}

```bash
vtzoo evaluate --model {model}
```

Test split (sha256 of pixels and labels): `{result["manifest"]}`."""


def _row(name: str, result: dict[str, Any] | None) -> str:
    """A line of the table: a model's numbers, or that nobody has trained it."""
    if result is None:
        return f"| {name} | not trained yet | | | | | |"
    return (
        f"| {name} | {result['top1']:.2%} | {result['top5']:.2%} | {result['images']:,} "
        f"| 1 (seed {result['seed']}) | {result['steps']:,} | {result['batch']} |"
    )


def _use(config: dict[str, Any], recipe: Recipe, repo: str | None, name: str) -> str:
    """Three snippets that give the same answer: the command line's, Python's and timm's. A test runs them."""
    model, first = repo or name, ""
    if config["architecture"].startswith("vtzoo_"):
        first = f"import vtzoo.models  # which registers {config['architecture']} with timm\n"
    loaded = f'"hf-hub:{repo}"' if repo else '"local-dir:."'
    if not repo and name != ".":
        first = first or "import vtzoo.zoo\n"
        loaded = f'f"local-dir:{{vtzoo.zoo.find({name!r}).folder}}"'
    where = "" if model != "." else " In the folder of this card:"
    return f"""## Use

`pip install vtzoo` brings what predicts, without torch.{where}

```bash
vtzoo predict --model {model} photo.jpg
```

In Python:

```python
import vtzoo

classify = vtzoo.load("{model}")
probabilities = classify("photo.jpg")[0]  # {config["num_classes"]} of them, in the order of classify.labels
print(classify.labels[probabilities.argmax()], probabilities.max())
```

With timm{' and `pip install "vtzoo[train]"`' if first else ""}:

```python
import timm
import torch
{first}from PIL import Image

model = timm.create_model({loaded}, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.inference_mode():
    logits = model(transform(Image.open("photo.jpg").convert("RGB")).unsqueeze(0))
probabilities = logits.softmax(dim=1)[0]
print(model.pretrained_cfg["label_names"][probabilities.argmax()], probabilities.max().item())
```"""


def _training(recipe: Recipe, result: dict[str, Any]) -> str:
    """What it took to train it, and what trains it again."""
    processes, skipped = result.get("processes", 1), result.get("train_skipped", 0)
    hardware = result["hardware"] if processes == 1 else f"{processes} processes, each on {result['hardware']}"
    told = (
        f"{result['steps']:,} optimizer steps of {result['batch']} images, {recipe.schedule.epochs} epochs, "
        f"in {_duration(result['train_seconds'])} on {hardware}."
    )
    if skipped:
        told += f" {skipped:,} training images could not be read and were left out."
    if recipe.drloc:
        told += " The head that localized is in localizer.safetensors; the classifier does not need it."
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    return f"""## Training

{_filled(told)}

```bash
vtzoo train recipe.toml --seed {result["seed"]}
```

Recipe: recipe.toml, sha256 `{result["recipe_sha256"]}`.
Versions: {versions}.

![Training curves](curves.png)"""


def _onnx(result: dict[str, Any], repo: str | None) -> str:
    """What the graph is, and how far it is from torch."""
    certificate = result["certificate"]
    weights = "is one self-contained file" if repo else "reads its weights from model.safetensors"
    return "## ONNX\n\n" + _filled(
        f"onnx/model.onnx {weights}. It agrees with torch on {certificate['top1_agreement']:.2%} of "
        f"{certificate['images']} test images; the largest difference of a logit is "
        f"{certificate['max_logit_difference']:.1e}."
    )


def _limits(config: dict[str, Any], recipe: Recipe) -> str:
    """What not to expect of it."""
    dataset, size, classes = datasets.find(recipe.dataset), recipe.model.image_size, config["num_classes"]
    return "## Limits\n\n" + _filled(
        f"It knows the {classes} classes of {dataset.name} and answers with one of them whatever it sees; its "
        f"probabilities are not calibrated. It looks at {size} x {size} pixels: small objects in large photographs "
        "are lost. One seed was trained: the accuracy of another would differ. Licence of the images: "
        f"{dataset.licence}."
    )


def _duration(seconds: float) -> str:
    """A time in words, to two figures or more."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7_200 else f"{seconds / 3_600:.1f} hours"


def _filled(text: str) -> str:
    """A paragraph in lines of 120 characters at most; no word, name or address is broken."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)
