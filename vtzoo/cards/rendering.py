"""The text of a card, section by section."""

import textwrap

from vtzoo.cards import metadata
from vtzoo.cards.images import card_images
from vtzoo.zoo.config import Config
from vtzoo.zoo.lookup import twin_of
from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.resources import DEFAULT_MODEL
from vtzoo.zoo.result import Result

PAPER = """@inproceedings{liu2021efficient,
  title     = {Efficient Training of Visual Transformers with Small Datasets},
  author    = {Liu, Yahui and Sangineto, Enver and Bi, Wei and Sebe, Nicu and Lepri, Bruno and De Nadai, Marco},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021}
}"""


def render(
    config: Config, recipe: Recipe, result: Result, twin: Result | None = None,
    repo: str | None = None, *, name: str = ".", paired: bool = True,
) -> str:  # fmt: skip
    """The Markdown of a model's card, metadata first, in the Hub's format.

    `twin` is the result of the same recipe with the other objective, or None: the card then says that the twin is not
    trained yet. `paired` is False if no recipe of a twin exists, and the card does not mention a twin. `repo` is
    ORG/NAME on the Hub, or None for an unpublished model. The snippets load an unpublished model by `name`: its name if
    it is embedded, else ".", the folder of the card.
    """
    sections = (
        _model(config, recipe, result, paired),
        _accuracy(recipe, result, twin, repo or name, paired),
        _use(config, recipe, repo, name),
        _training(recipe, result),
        _onnx(result, repo),
        _limits(config, recipe, result),
        *([f"## Citation\n\n```bibtex\n{PAPER}\n```"] if paired else []),
    )
    return "\n\n".join([f"---\n{metadata.render(config, recipe, result, repo)}\n---", *sections]) + "\n"


def _model(config: Config, recipe: Recipe, result: Result, paired: bool) -> str:
    """The title, and a paragraph on the architecture, the training and the images."""
    images, size = card_images(recipe, result), recipe.model.image_size
    how = f"without dense relative localization{': the baseline of its twin' if paired else ''}"
    if recipe.drloc:
        how = (
            "together with dense relative localization, the self-supervised task of [Liu et al. 2021]"
            f"(https://arxiv.org/abs/2106.03746) (loss `{recipe.drloc.loss or 'l1'}`, weight {recipe.drloc.weight}, "
            f"{recipe.drloc.pairs} pairs an image, in the grid of stage {recipe.drloc.stage})"
        )
    return f"# {recipe.name}\n\n" + _filled(
        f"An image classifier: `{recipe.model.name}` (`{config.architecture}` in timm) at {size} px, "
        f"trained {how}. {_from(recipe)}, on {result.train_images:,} images of {images.linked} in "
        f"{len(config.labels)} classes{'' if recipe.finetune else ' and no other data'}."
        f"{_taught(recipe, result, images.split)}"
    )


def _from(recipe: Recipe) -> str:
    """The initial weights of the training."""
    if recipe.finetune is None:
        return "From scratch"
    how = "The head alone was fitted to the features of" if recipe.finetune.head_only else "Fine-tuned from"
    return f"{how} `{recipe.finetune.source}`"


def _taught(recipe: Recipe, result: Result, split: str) -> str:
    """A sentence on the teacher, whose logits were a second target; empty without a teacher."""
    if (teacher := recipe.teacher) is None:
        return ""
    top1 = result.teacher.top1 if result.teacher else None
    right = f" ({top1:.2%} on the same {split} images)" if top1 is not None else ""
    return (
        f" Taught by {teacher.name}{right}: its logits are a second target, weight {teacher.weight:g}, "
        f"temperature {teacher.temperature:g}."
    )


def _accuracy(recipe: Recipe, result: Result, twin: Result | None, model: str, paired: bool) -> str:
    """The table of the model's accuracy and its twin's, with the command that measures it again."""
    images = card_images(recipe, result)
    text = _selected(recipe, images.split)
    if twin and twin.manifest != result.manifest:
        text += f" The twin was measured on other {images.split} images: the two do not compare."
    if twin and _teacher(twin) != _teacher(result):
        text += " The two were not taught by the same teacher: localization is not their only difference."
    if images.copy:
        text += f" The images are a {images.copy} of the data set's: with its own pixels the numbers differ."
    text += f" This prints the {' and the '.join(images.measured)} again:"
    of = " --data DATA" if images.copy or not images.hub_id else ""
    rows = {recipe.name: result} | ({f"{twin_of(recipe.name)}, its twin": twin} if paired else {})
    lines = "\n".join(_row(name, numbers, images.measured) for name, numbers in rows.items())
    return f"""| | {" | ".join(images.measured)} | {images.split} images | seeds | optimizer steps | batch |
{"| --- " * (5 + len(images.measured))}|
{lines}

{_filled(text)}

```bash
vtzoo evaluate --model {model}{of}
```

Fingerprint of the {images.split} split: `{result.manifest}`."""


def _teacher(result: Result) -> str | None:
    """The sha256 of the teacher's weights; None without a teacher."""
    return result.teacher.weights if result.teacher else None


def _selected(recipe: Recipe, split: str) -> str:
    """A sentence on the published weights and the images that selected them."""
    weights = "averaged weights" if recipe.schedule.ema_decay else "weights"
    if recipe.finetune is None:
        return f"These are the {weights} of the last step: nothing was selected on the test images."
    if split == "test":
        return f"These are the best {weights} by the validation images: nothing was selected on the test images."
    return f"These are the best {weights} by the very images that they are measured on: others may give less."


def _row(name: str, result: Result | None, measured: dict[str, str]) -> str:
    """A line of the table: a model's numbers, or "not trained yet"."""
    if result is None:
        return f"| {name} | not trained yet {'| ' * (3 + len(measured))}|"
    accuracies = [getattr(result, key) for key in measured.values()]
    numbers = " | ".join("" if accuracy is None else f"{accuracy:.2%}" for accuracy in accuracies)
    return f"| {name} | {numbers} | {result.images:,} | 1 (seed {result.seed}) | {result.steps:,} | {result.batch} |"


def _use(config: Config, recipe: Recipe, repo: str | None, name: str) -> str:
    """Three snippets with the same prediction: command line, Python and timm. A test runs them."""
    model, first, found = repo or name, "", ""
    if config.architecture.startswith("vtzoo_"):
        first = f"import vtzoo.models  # which registers {config.architecture} with timm\n"
    loaded = f'"hf-hub:{repo}"' if repo else '"local-dir:."'
    if not repo and name != ".":
        first += "import vtzoo.zoo\n"
        found, loaded = f'folder = vtzoo.zoo.find("{name}").folder\n', 'f"local-dir:{folder}"'
    brings, extra = _installed(repo, name)
    return f"""## Use

{brings}

```bash
vtzoo predict --model {model} photo.jpg
```

In Python:

```python
import vtzoo

classify = vtzoo.load("{model}")
probabilities = classify("photo.jpg")[0]  # {len(config.labels)} of them, in the order of classify.labels
print(classify.labels[probabilities.argmax()], probabilities.max())
```

With timm{f" and `{extra}`" if first else ""}:

```python
import timm
import torch
{first}from PIL import Image

{found}model = timm.create_model({loaded}, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.inference_mode():
    logits = model(transform(Image.open("photo.jpg").convert("RGB")).unsqueeze(0))
probabilities = logits.{"sigmoid()" if config.multi_label else "softmax(dim=1)"}[0]
print(model.pretrained_cfg["label_names"][probabilities.argmax()], probabilities.max().item())
```"""


def _installed(repo: str | None, name: str) -> tuple[str, str]:
    """A sentence on how to install the model and vtzoo, and the command that installs torch and timm too."""
    if not repo and name not in (".", DEFAULT_MODEL):  # the model is in the repository, and not in the wheel
        brings = "In a clone of vtzoo, `pip install -e .` brings the model and what predicts, without torch."
        return brings, 'pip install -e ".[train]"'
    where = "" if repo or name != "." else " In the folder of this card:"
    return f"`pip install vtzoo` brings what predicts, without torch.{where}", 'pip install "vtzoo[train]"'


def _training(recipe: Recipe, result: Result) -> str:
    """The cost of the training, the command that repeats it, and the curves."""
    processes, skipped = result.processes or 1, result.train_skipped or 0
    hardware = result.hardware if processes == 1 else f"{processes} processes, each on {result.hardware}"
    text = f"{_steps(recipe, result)}, in {_duration(result.train_seconds or 0)} on {hardware}."
    if skipped:
        text += f" {skipped:,} training images could not be read and were left out."
    if recipe.drloc:
        text += " The head that localized is in localizer.safetensors; the classifier does not need it."
    versions = ", ".join(f"{name} {value}" for name, value in (result.versions or {}).items())
    of = " --data DATA" if card_images(recipe, result).copy else ""
    return f"""## Training

{_filled(text)}

```bash
{_command(recipe)}{of} --seed {result.seed}
```

Recipe: recipe.toml, sha256 `{result.recipe_sha256}`.
Versions: {versions}.

![Training curves](curves.png)"""


def _steps(recipe: Recipe, result: Result) -> str:
    """The number of steps, and the images and epochs behind them."""
    tuned, steps, batch = recipe.finetune, f"{result.steps:,}", f"{result.batch:,} images"
    if tuned is None:
        return f"{steps} optimizer steps of {batch}, {recipe.schedule.epochs} epochs"
    if tuned.head_only:
        return f"{steps} iterations of L-BFGS on the features of {batch}, with the best weight decay for other images"
    return f"{steps} optimizer steps of {batch}, {tuned.head_epochs} epochs of the heads alone before those of all"


def _command(recipe: Recipe) -> str:
    """The command that repeats the training, without the seed."""
    if recipe.finetune is None:
        return "vtzoo train recipe.toml"
    how = " --head-only" if recipe.finetune.head_only else "" if recipe.drloc else " --no-drloc"
    return f"vtzoo finetune --model {recipe.finetune.source} --data DATA{how}"


def _onnx(result: Result, repo: str | None) -> str:
    """The storage of the graph's weights, and the graph's difference from torch."""
    certificate = result.certificate
    assert certificate
    of = f"images of {certificate.source}" if certificate.source else "test images"
    accuracies = certificate.torch_top1, certificate.onnx_top1
    right = "; of these torch gets {:.2%} right, and it {:.2%}".format(*accuracies) if None not in accuracies else ""
    weights = "is one self-contained file" if repo else "reads its weights from model.safetensors"
    return "## ONNX\n\n" + _filled(
        f"onnx/model.onnx {weights}. It agrees with torch on {certificate.top1_agreement:.2%} of "
        f"{certificate.images} {of}{right}; the largest difference of a logit is "
        f"{certificate.max_logit_difference:.1e}."
    )


def _limits(config: Config, recipe: Recipe, result: Result) -> str:
    """The limits of the model, and the licence of its images."""
    images, size, classes = card_images(recipe, result), recipe.model.image_size, len(config.labels)
    answers = "answers for each of them" if config.multi_label else "answers with one of them"
    return "## Limits\n\n" + _filled(
        f"It knows the {classes} classes of {images.name} and {answers} whatever it sees; its "
        f"probabilities are not calibrated. It looks at {size} x {size} pixels: small objects in large photographs "
        "are lost. One seed was trained: the accuracy of another would differ. Licence of the images: "
        f"{images.licence}."
    )


def _duration(seconds: float) -> str:
    """A duration in words, with two digits or more."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7_200 else f"{seconds / 3_600:.1f} hours"


def _filled(text: str) -> str:
    """A paragraph in lines of at most 120 characters, without breaks inside words, names and addresses."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)
