"""A card's metadata, the YAML block that the Hub reads: rendered, and parsed again for the check."""

from typing import Any

from vtzoo.cards.images import METRICS, card_images
from vtzoo.errors import VtzooError
from vtzoo.zoo.config import Config
from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.result import Result

REQUIRED = ("library_name", "pipeline_tag", "license", "datasets", "model-index")
TYPES = {"mAP": "map"}  # the Hub's type of a metric; all other metrics are of type "accuracy"
ANEW = "vtzoo card FOLDER --write renders the card anew"


def render(config: Config, recipe: Recipe, result: Result, repo: str | None) -> str:
    """The YAML between the two lines of dashes: huggingface_hub's ModelCardData, each accuracy as an EvalResult."""
    from huggingface_hub import EvalResult, ModelCardData

    images = card_images(recipe, result)
    # Without `verified`: only the Hub's own evaluation service may set it.
    url = f"https://huggingface.co/{repo}/blob/main/result.json"
    source: dict[str, Any] = {"source_name": "result.json", "source_url": url} if repo else {}
    accuracies = [
        EvalResult(
            task_type="image-classification", metric_type=TYPES.get(name, "accuracy"), metric_name=name,
            metric_value=_rounded(getattr(result, key)), **images.where, **source,
        )
        for name, key in images.measured.items()
    ]  # fmt: skip
    tags = ["image-classification", "timm", "vtzoo", "onnx", *(["drloc"] if recipe.drloc else [])]
    return ModelCardData(
        model_name=recipe.name, library_name="timm", pipeline_tag="image-classification",
        license=config.license, datasets=[images.hub_id] if images.hub_id else None,
        base_model=images.base, metrics=sorted({TYPES.get(name, "accuracy") for name in images.measured}), tags=tags,
        eval_results=accuracies,
    ).to_yaml()  # fmt: skip


def check(card: str, result: Result) -> None:
    """Raise a VtzooError if the Hub could not read the card's metadata, or its numbers are not those of the result."""
    stated = _read(card)
    # A user's own images are no data set of the Hub.
    missing = [key for key in REQUIRED if not stated.get(key) and not (result.fine_tuned and key == "datasets")]
    if missing == ["license"]:
        hint = 'add "license": "apache-2.0", or another of the Hub\'s, to pretrained_cfg in config.json'
        raise VtzooError("the card states no license", hint)
    if missing:
        raise VtzooError(f"the card's metadata has no {missing[0]}", ANEW)
    on_card = _accuracies(stated["model-index"])
    for name, key in ((name, key) for name, key in METRICS.items() if key in result.metrics):
        measured = _rounded(getattr(result, key))
        if on_card.get(name) != measured:
            raise VtzooError(f"the card's {name} is {on_card.get(name, 'absent')}, and result.json's {measured}", ANEW)


def _read(card: str) -> dict[str, Any]:
    """The metadata as a dictionary."""
    import yaml

    before, _, rest = card.partition("---\n")
    block, end, _ = rest.partition("\n---\n")
    if before or not end:
        raise VtzooError("the card has no metadata: it does not begin with a block between two lines of ---", ANEW)
    try:
        stated = yaml.safe_load(block)
    except yaml.YAMLError as error:
        raise VtzooError(f"the card's metadata is not YAML: {str(error).splitlines()[0]}", ANEW) from error
    if not isinstance(stated, dict):
        raise VtzooError("the card's metadata is not a YAML mapping", ANEW)
    return stated


def _accuracies(model_index: Any) -> dict[str | None, Any]:
    """The accuracies in a model-index by metric name."""
    from huggingface_hub.repocard_data import model_index_to_eval_results

    try:
        _, results = model_index_to_eval_results(model_index)
    except (KeyError, TypeError, AttributeError) as error:
        raise VtzooError(f"the card's model-index is not one that the Hub reads: {error!r}", ANEW) from error
    return {one.metric_name: one.metric_value for one in results if one.metric_type in ("accuracy", *TYPES.values())}


def _rounded(fraction: float) -> float:
    """An accuracy with the card's precision, a hundredth of a percent."""
    return round(fraction, 4)
