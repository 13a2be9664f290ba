"""How fast folders are classified: `python tests/bench/bulk.py [--rounds N] [--quick] [--json] [--save]`.

JPEG photographs of about 500 x 375 pixels, with a Swin-T at 224 px with random weights: the pipeline of `vtzoo predict`
in fp32 and int8, against timm's usual loop: create_dataset and create_loader with a worker per core, and torch under
inference_mode, in fp32 and with bf16 autocast. Small images, as PNG files and as the rows of a Parquet file, with the
embedded model at 32 px: the pipeline against a default session of ONNX Runtime on prepared arrays. Last, the peak
memory of whole processes, also with ten times the images.

The variants run in turns, so that other load on the machine affects all of them. The output has medians, and medians of
the ratios within a turn. The photographs are cut out of those in tests/photos, so the benchmark needs no download; all
files are in a temporary folder.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from figures import circumstances, options, tell, versions
from PIL import Image

from vtzoo.base import files
from vtzoo.cli import DEFAULT_MODEL
from vtzoo.predict import onnx
from vtzoo.predict.bulk import predict
from vtzoo.predict.classifier import Classifier
from vtzoo.predict.load import load
from vtzoo.predict.sources import image_sources
from vtzoo.zoo import lookup

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
OURS, INT8, TIMM, TIMM_BF16 = "vtzoo, fp32", "vtzoo, int8", "timm's loop, fp32", "timm's loop, bf16"
FILES, ROWS, READY = "PNG files", "rows of Parquet", "arrays, the session alone"
SWIN = "swin_tiny_patch4_window7_224"
BATCH = 32  # images
SIZES = {  # numbers of images, of the long and of the quick version
    False: {"photos": 2000, "small": 8000, "memory": (2_000, 20_000)},
    True: {"photos": 64, "small": 640, "memory": (320, 3_200)},
}


def cut_outs(count: int, width: int, height: int) -> Any:
    """Random cut-outs of the given size, from 0.5 to 1 of the largest part of a photograph that fits."""
    random = np.random.default_rng(0)
    photos = [Image.open(path).convert("RGB") for path in sorted((ROOT / "tests" / "photos").glob("*.jpg"))]
    for number in range(count):
        photo = photos[number % len(photos)]
        scale = random.uniform(0.5, 1) * min(photo.width / width, photo.height / height)
        left = random.uniform(0, photo.width - scale * width)
        top = random.uniform(0, photo.height - scale * height)
        box = (left, top, left + scale * width, top + scale * height)
        yield photo.resize((width, height), Image.Resampling.BICUBIC, box)


def write_photos(folder: Path, count: int) -> None:
    """Write a folder of JPEG photographs, with the one class folder that timm needs."""
    (folder / "class").mkdir(parents=True)
    for number, image in enumerate(cut_outs(count, 500, 375)):
        image.save(folder / "class" / f"{number:05}.jpg", quality=90)


def write_small(folder: Path, count: int) -> Path:
    """Write a folder of 32 x 32 PNG files and a Parquet file of the same images, and return the Parquet file."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir()
    rows = []
    for number, image in enumerate(cut_outs(count, 32, 32)):
        file = BytesIO()
        image.save(file, "png")
        (folder / f"{number:05}.png").write_bytes(file.getvalue())
        rows.append({"bytes": file.getvalue(), "path": None})
    path = folder.with_suffix(".parquet")
    pyarrow.parquet.write_table(pyarrow.table({"image": rows}), path, row_group_size=1000)
    return path


def write_model(folder: Path) -> Path:
    """A model folder of Swin-T at 224 px with random weights."""
    import timm
    import torch
    from safetensors.torch import save_file

    from vtzoo.export.onnx_files import write_packaged_graph

    torch.manual_seed(0)
    model = timm.create_model(SWIN, num_classes=100)
    config = {
        "architecture": SWIN, "num_classes": 100, "label_names": [f"class {index}" for index in range(100)],
        "pretrained_cfg": {
            "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center",
            "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        },
    }  # fmt: skip
    folder.mkdir()
    save_file({name: tensor.half() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_packaged_graph(model.eval(), config, folder)
    hashes = {name: files.sha256(folder / name) for name in ("model.safetensors", "onnx/model.onnx")}
    (folder / "result.json").write_text(json.dumps({"weights": hashes}), encoding="utf-8")
    return folder


def classify(classifier: Classifier, *paths: Path) -> int:
    """Classify like `vtzoo predict`, without printing, and return the number of images."""
    return sum(len(batch.images) for batch in predict(classifier, image_sources(map(str, paths)), batch_size=BATCH))


def timms(folder: Path, *, bf16: bool) -> Callable[[], int]:
    """The usual loop of timm over a folder, as a function that returns the number of classified images."""
    import timm
    import torch
    from timm.data import create_dataset, create_loader, resolve_data_config

    model = timm.create_model(SWIN, num_classes=100).eval()
    wanted = resolve_data_config({}, model=model)

    def run() -> int:
        loader = create_loader(
            create_dataset("", root=str(folder)), wanted["input_size"], BATCH, use_prefetcher=False,
            interpolation=wanted["interpolation"], mean=wanted["mean"], std=wanted["std"],
            crop_pct=wanted["crop_pct"], num_workers=os.cpu_count() or 1,
        )  # fmt: skip
        images = 0
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            for batch, _ in loader:
                images += len(model(batch).softmax(dim=-1).topk(5).values.tolist())
        return images

    return run


def ready(pixels: np.ndarray) -> Callable[[], int]:
    """A default session of ONNX Runtime on prepared arrays of the embedded model."""
    import onnxruntime

    graph, weights = onnx._read_folder(lookup.find_model(DEFAULT_MODEL))
    options = onnxruntime.SessionOptions()
    if weights is not None:
        options.add_external_initializers_from_files_in_memory([onnx.LOCATION], [weights], [len(weights)])
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run() -> int:
        for start in range(0, len(pixels), BATCH):
            session.run(["logits", "features"], {"images": pixels[start : start + BATCH]})
        return len(pixels)

    return run


def turns(entries: dict[str, Callable[[], int]], rounds: int, first: str) -> dict[str, Any]:
    """Each entry's images/s, the median over the rounds, and the median of its ratios to the entry `first`."""
    speeds: dict[str, list[float]] = {name: [] for name in entries}
    for turn in range(rounds):
        names = list(entries)[turn % len(entries) :] + list(entries)[: turn % len(entries)]
        for name in names:
            began = time.perf_counter()
            images = entries[name]()
            speeds[name].append(images / (time.perf_counter() - began))
    ratios = {
        name: [one / base for one, base in zip(found, speeds[first], strict=True)] for name, found in speeds.items()
    }
    return {
        "images_per_second": {name: statistics.median(found) for name, found in speeds.items()},
        "ratios": {name: statistics.median(found) for name, found in ratios.items() if name != first},
    }


def photographs(folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Images/s on photographs, and the ratios to timm's loop in fp32."""
    write_photos(folder / "photos", count)
    model = write_model(folder / "swin")
    entries = {OURS: load(model)}
    from vtzoo.export.onnx_files import export_model

    export_model(str(model), folder / "int8.onnx", precision="int8")
    entries[INT8] = load(folder / "int8.onnx")
    runs = {name: lambda one=one: classify(one, folder / "photos") for name, one in entries.items()}
    runs |= {TIMM: timms(folder / "photos", bf16=False), TIMM_BF16: timms(folder / "photos", bf16=True)}
    return {"images": count, **turns(runs, rounds, TIMM)}


def small_images(folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Images/s on small images, and the ratios to the session alone."""
    parquet = write_small(folder / "small", count)
    classifier = load(DEFAULT_MODEL)
    pixels = np.stack([np.asarray(image).transpose(2, 0, 1) for image in cut_outs(count, 32, 32)])
    runs = {
        FILES: lambda: classify(classifier, folder / "small"),
        ROWS: lambda: classify(classifier, parquet),
        READY: ready(np.ascontiguousarray(pixels)),
    }
    return {"images": count, **turns(runs, rounds, READY)}


def memory(folder: Path, counts: tuple[int, int]) -> dict[str, float]:
    """The peak memory of `vtzoo predict` in megabytes, as Linux counts it, by the number of small files."""
    found = {}
    for count in counts:
        write_small(folder / str(count), count)
        out = folder / f"{count}.jsonl"
        command = [sys.executable, str(HERE), "--peak", str(folder / str(count)), str(out)]
        found[str(count)] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert out.read_bytes().count(b"\n") == count
    return found


def print_peak(folder: str, out: str) -> None:
    """Print the peak memory of the process that `memory` starts."""
    from vtzoo.cli import app

    app(["predict", folder, "--out", out], standalone_mode=False)
    # The peak of this program alone: getrusage includes the memory of the process before it started this program.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) / 1000)


def render(measured: dict[str, Any]) -> str:
    """The Markdown tables of a measurement, as in docs/benchmarks.md."""
    rounds = f"Medians of {measured['rounds']} rounds" if measured["rounds"] > 1 else "One round"
    lines = [f"{rounds}; {measured['machine']}; {versions(measured)}."]
    titles = {
        "photographs": "photographs, Swin-T at 224 px",
        "small": f"images of 32 px, {DEFAULT_MODEL}",
    }
    for key, title in titles.items():
        found = measured[key]
        base = next(name for name in found["images_per_second"] if name not in found["ratios"])
        lines += ["", f"| {found['images']:,} {title} | images/s | of {base} |", "| --- | --- | --- |"]
        for name, speed in found["images_per_second"].items():
            ratio = f"{found['ratios'][name]:.2f}" if name in found["ratios"] else ""
            lines.append(f"| {name} | {speed:,.0f} | {ratio} |")
    (few, less), (many, more) = measured["memory"].items()
    lines += ["", f"`vtzoo predict` needs {less:,.0f} MB at its peak for {int(few):,} of the small images, and"]
    lines += [f"{more:,.0f} MB for {int(many):,}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the results as Markdown or JSON; with --save, also store them and update docs/benchmarks.md."""
    parser = options(__file__, __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of")
    parser.add_argument("--quick", action="store_true", help="few images, to try it")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(*arguments.peak)
        return
    if arguments.quick and arguments.save:
        parser.error("--quick measures too little to --save")
    sizes = SIZES[arguments.quick]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = {
            **circumstances("torch", "timm", "onnxruntime-gpu", "pillow"),
            "rounds": arguments.rounds,
            "memory": memory(folder, sizes["memory"]),
            "small": small_images(folder, sizes["small"], arguments.rounds),
            "photographs": photographs(folder, sizes["photos"], arguments.rounds),
        }
    tell(__file__, measured, render, arguments)


if __name__ == "__main__":
    main()
