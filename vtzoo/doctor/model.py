"""Whether the main job works: the embedded model names what is in a picture, on the CPU."""

import time
from typing import Any

from vtzoo.base import subprocess_runner
from vtzoo.doctor.finding import Finding

GROUP = "model"
AGAIN = "install vtzoo again: pip install --force-reinstall vtzoo"


def examine(name: str) -> list[Finding]:
    """Findings on the files of the model and on its answer to a picture, both got in a fresh process."""
    outcome = subprocess_runner.run(try_model, name)
    findings = [_judge(name, told) for told in outcome.told]
    if outcome.error:
        advice = "see what else is not well, or: " + AGAIN
        step = "prediction" if findings else "files"
        findings += [Finding(group=GROUP, name=step, says=outcome.error, state="error", advice=advice)]
    return findings


def _judge(name: str, told: dict[str, Any]) -> Finding:
    """The finding on one thing that was told."""
    if "label" in told:
        says = f"{name} answers a picture, with {told['label']!r}, {told['seconds']:.2f} s after it began to load"
        return Finding(group=GROUP, name="prediction", says=says)
    if told["damaged"]:
        says = f"damaged: {', '.join(told['damaged'])}"
        return Finding(group=GROUP, name="files", says=says, state="error", advice=AGAIN)
    return Finding(group=GROUP, name="files", says=f"{told['files']} of {name} are as they should be")


def try_model(name: str, tell: subprocess_runner.Tell) -> None:
    """Tell whether the model's files are sound, then what it answers to a JPEG. Runs in a fresh process."""
    from vtzoo.hub import fetch

    (verdict,) = fetch.verify(name)
    tell({"files": verdict.files, "damaged": list(verdict.damaged)})
    started = time.perf_counter()
    from vtzoo.predict.load import load

    classifier = load(name, backend="onnx", device="cpu")
    (probabilities,) = classifier(_picture())
    if not abs(probabilities.sum() - 1) < 1e-3:  # true of NaN, too
        raise ValueError(f"its probabilities add up to {probabilities.sum()}")
    tell({"label": classifier.labels[probabilities.argmax()], "seconds": time.perf_counter() - started})


def _picture() -> bytes:
    """A JPEG of coloured stripes: decoding belongs to what may be broken."""
    from io import BytesIO

    from PIL import Image

    stripes = Image.new("RGB", (3, 1))
    stripes.putdata([(200, 40, 40), (40, 160, 60), (40, 60, 200)])
    file = BytesIO()
    stripes.resize((96, 64), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()
