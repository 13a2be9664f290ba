"""Checks that the embedded model classifies an image on the CPU."""

import time
from typing import Any

from vtzoo.base import subprocess_runner
from vtzoo.doctor.finding import Finding

GROUP = "model"
REINSTALL = "install vtzoo again: pip install --force-reinstall vtzoo"


def check_model(name: str) -> list[Finding]:
    """Findings on the model's files and on its prediction, both from a new process."""
    outcome = subprocess_runner.run(try_model, name)
    findings = [_finding(name, message) for message in outcome.messages]
    if outcome.error:
        advice = "see the other findings, or " + REINSTALL
        step = "prediction" if findings else "files"
        findings += [Finding(group=GROUP, name=step, says=outcome.error, state="error", advice=advice)]
    return findings


def _finding(name: str, message: dict[str, Any]) -> Finding:
    """The finding that one message of `try_model` gives."""
    if "label" in message:
        says = f"{name} predicts {message['label']!r} for an image, {message['seconds']:.2f} s after it began to load"
        return Finding(group=GROUP, name="prediction", says=says)
    if message["damaged"]:
        says = f"damaged: {', '.join(message['damaged'])}"
        return Finding(group=GROUP, name="files", says=says, state="error", advice=REINSTALL)
    return Finding(group=GROUP, name="files", says=f"the {message['files']} files of {name} are intact")


def try_model(name: str, send: subprocess_runner.Send) -> None:
    """Send which files of the model are damaged, then its prediction for a JPEG. Runs in a new process."""
    from vtzoo.hub import fetch

    (verdict,) = fetch.verify(name)
    send({"files": verdict.files, "damaged": list(verdict.damaged)})
    started = time.perf_counter()
    from vtzoo.predict.load import load

    classifier = load(name, backend="onnx", device="cpu")
    (probabilities,) = classifier(_jpeg())
    if not abs(probabilities.sum() - 1) < 1e-3:  # NaN fails too
        raise ValueError(f"its probabilities add up to {probabilities.sum()}")
    send({"label": classifier.labels[probabilities.argmax()], "seconds": time.perf_counter() - started})


def _jpeg() -> bytes:
    """A JPEG of coloured stripes, because decoding may be broken too."""
    from io import BytesIO

    from PIL import Image

    stripes = Image.new("RGB", (3, 1))
    stripes.putdata([(200, 40, 40), (40, 160, 60), (40, 60, 200)])
    file = BytesIO()
    stripes.resize((96, 64), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()
