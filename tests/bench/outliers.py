"""Does drloc's error tell foreign images? `python tests/bench/outliers.py --data FOLDER [--images N] [--save]`.

The embedded model gets images of CIFAR-100's test split, which resemble its training images, and images of other kinds:
uniform noise of its own size, scikit-learn's handwritten digits, and the 64 px copy of Flowers-102 if --data has one.
The output is the area under the ROC curve for separating another kind from CIFAR-100 by an image's mean localization
error, and by the usual score, 1 - the largest probability: 0.5 is chance, 1 is perfect, below 0.5 is reversed. The
interval is a 95% bootstrap over the images.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from figures import circumstances, options, tell, versions

MODEL = "swin_t-drloc-cifar100"
DRAWS = 1000  # resamples of the bootstrap
SCORES = {"error": "localization error", "doubt": "1 - largest probability"}


def kinds(data: Path, images: int, size: int) -> Iterator[tuple[str, np.ndarray]]:
    """The name and the images, uint8 (n, 3, size, size), of each kind; the model's own kind is first."""
    from PIL import Image
    from sklearn.datasets import load_digits

    from vtzoo.data import named, named_reader
    from vtzoo.data.transform import Preprocess, prepare

    for name, title in (("cifar100", "CIFAR-100, test"), ("flowers102_64px", "Flowers-102, 64 px copy, test")):
        if (data / name).is_dir():
            split = named_reader.read(named.named_set(name.partition("_")[0]), "test", data / name)
            yield title, split.select(np.arange(images)).pixels(Preprocess.square(size))
    yield "uniform noise", np.random.default_rng(0).integers(0, 256, (images, 3, size, size), dtype=np.uint8)
    digits = (load_digits().images[:images] * 15.9375).astype(np.uint8)  # levels 0 to 16
    fit = Preprocess(size=size, interpolation="bicubic", crop=1.0)
    yield "handwritten digits", np.stack([prepare(Image.fromarray(digit).convert("RGB"), fit) for digit in digits])


def scores(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The embedded model's localization error, in cells, and 1 - its largest probability, for each image."""
    from vtzoo.explain.localization import read_localizer
    from vtzoo.hub import fetch
    from vtzoo.predict.load import load

    entry = fetch.model_folder(MODEL)
    classifier: Any = load(entry, backend="torch", device="cpu")
    localizer = read_localizer(entry, classifier.model, classifier.normalized(pixels[:1]))
    if localizer is None:
        raise SystemExit(f"{MODEL} has no localization head")
    parts = [pixels[start : start + 100] for start in range(0, len(pixels), 100)]
    found = [one for part in parts for one in localizer.localizations(classifier.model, classifier.normalized(part))]
    return {"error": np.array([one.error for one in found]), "doubt": 1 - classifier(pixels).max(axis=1)}


def separation(own: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """The area under the ROC curve of the `other` scores against the model's own, and its interval."""
    from sklearn.metrics import roc_auc_score

    def area(ours: np.ndarray, theirs: np.ndarray) -> float:
        truth = np.repeat([0, 1], [len(ours), len(theirs)])
        return float(roc_auc_score(truth, np.concatenate([ours, theirs])))

    random = np.random.default_rng(0)
    drawn = [area(random.choice(own, len(own)), random.choice(other, len(other))) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"auroc": area(own, other), "low": float(low), "high": float(high)}


def bench(data: Path, images: int, size: int = 32) -> list[dict[str, Any]]:
    """One row per kind: the number of images, their mean scores, and each score's separation from the first kind."""
    rows: list[dict[str, Any]] = []
    own: dict[str, np.ndarray] = {}
    for name, pixels in kinds(data, images, size):
        found = scores(pixels)
        row = {"kind": name, "images": len(pixels), "means": {key: float(found[key].mean()) for key in SCORES}}
        rows.append(row | {key: separation(own[key], found[key]) for key in SCORES if own})
        own = own or found
    return rows


def render(measured: dict[str, Any]) -> str:
    """The Markdown table of a measurement, as in docs/benchmarks.md."""
    lines = [f"{measured['model']}; {measured['machine']}; {versions(measured)}; intervals of 95%.", ""]
    lines += ["| images | n | mean error, cells | AUROC of the error | AUROC of 1 - largest probability |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for row in measured["rows"]:
        told = [_area(row[key]) if key in row else "" for key in SCORES]
        lines.append(f"| {row['kind']} | {row['images']} | {row['means']['error']:.3f} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def _area(found: dict[str, float]) -> str:
    return f"{found['auroc']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def main() -> None:
    """Print the results as Markdown or JSON; with --save, also store them and update docs/benchmarks.md."""
    parser = options(__file__, __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds cifar100/ and flowers102_64px/")
    parser.add_argument("--images", type=int, default=500, help="of each kind")
    arguments = parser.parse_args()
    measured = {
        "model": MODEL,
        **circumstances("torch", "timm", "scikit-learn"),
        "rows": bench(arguments.data, arguments.images),
    }
    tell(__file__, measured, render, arguments)


if __name__ == "__main__":
    main()
