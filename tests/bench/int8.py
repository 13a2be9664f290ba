"""What int8 loses and gains, three ways: `python tests/bench/int8.py --data FOLDER [--rounds N] [--json] [--save]`.

The graphs of `vtzoo export --precision int8` are compared with ONNX Runtime's own quantize_dynamic and quantize_static,
which get the graph after its quant_pre_process. The same 512 training images calibrate all of them. The output has the
agreement with fp32 in the first class and the accuracy on 2,000 test images, and the images/s of one thread, in batches
of 1 and of 64: medians over rounds in which all graphs run in turns, and the median of each round's ratio to fp32.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from figures import circumstances, options, tell, versions
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

MODELS = {"swin_t-drloc-cifar100": "cifar100", "cvt_13-drloc-flowers102": "flowers102_64px"}  # folders of the datasets
CALIBRATION, TEST = 512, 2000  # images
BATCHES = {1: 32, 64: 1}  # batch size: runs per round
PRODUCTS = ["MatMul", "Gemm"]
FP32, OURS = "fp32", "vtzoo"
ALL, BOTH, WEIGHTS = "all operators", "MatMul, Gemm", "MatMul, Gemm by weights, float32 out"
# The quantized operators and the method of calibration; weights have one scale per channel.
STATIC = [
    (ALL, "MinMax"),
    (BOTH, "MinMax"),
    (BOTH, "Percentile"),
    (WEIGHTS, "MinMax"),
    (WEIGHTS, "Percentile"),
    (WEIGHTS, "Entropy"),
]


class Reader(CalibrationDataReader):
    """Calibration images in batches of 16; in parts, because histograms keep a part's activations in memory."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images
        self.set_range(0, len(images))

    def __len__(self) -> int:
        return len(self.images)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Continue with only these images."""
        self.batches = iter([self.images[i : i + 16] for i in range(start_index, end_index, 16)])

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
        """The next batch by the name of the input, or None."""
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def traced(name: str, data: Path) -> tuple[onnx.ModelProto, np.ndarray, Any]:
    """The fp32 graph, calibration images, uint8 (n, 3, height, width), and the test split's VerificationImages."""
    from vtzoo.export import images
    from vtzoo.export.tracing import predictor_of, trace
    from vtzoo.hub import fetch
    from vtzoo.predict.torch import TorchClassifier

    entry = fetch.model_folder(name, use="torch")
    classifier = TorchClassifier.from_folder(entry, "cpu")
    predictor = predictor_of(classifier.model, entry.config.content)
    graph = trace(predictor, entry.config.architecture, classifier.preprocess, optimize=True, opset=None)
    images.CALIBRATION = CALIBRATION
    tested = images.verification_images(entry, classifier, TEST, data)
    return graph, images.calibration_images(entry, classifier, data), tested


def graphs(graph: onnx.ModelProto, images: np.ndarray, folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of the graph in fp32 and in 8 bits, by the name of the method."""
    from vtzoo.export import int8

    before, made = folder / "before.onnx", folder / "made.onnx"
    for name, changed in ((FP32, graph), (OURS, int8.quantize(graph, images))):
        onnx.save(changed, made)
        yield name, made
    quant_pre_process(graph, str(before))
    for per_channel in (False, True):
        quantize_dynamic(before, made, PRODUCTS, per_channel)
        yield f"dynamic: {BOTH}{', per channel' if per_channel else ''}", made
    for operators, method in STATIC:
        extra: dict[str, Any] = {"CalibStridedMinMax": 64}
        if operators == WEIGHTS:
            extra["OpTypesToExcludeOutputQuantization"] = PRODUCTS
        quantize_static(
            before, made, Reader(images), op_types_to_quantize=None if operators == ALL else PRODUCTS,
            nodes_to_quantize=_by_weights(onnx.load(before)) if operators == WEIGHTS else None, per_channel=True,
            activation_type=QuantType.QUInt8, calibrate_method=CalibrationMethod[method], extra_options=extra,
        )  # fmt: skip
        yield f"static, {method}: {operators}, per channel", made


def _by_weights(graph: onnx.ModelProto) -> list[str]:
    """The names of the products with constants."""
    constants = {tensor.name for tensor in graph.graph.initializer}
    return [node.name for node in graph.graph.node if node.op_type in PRODUCTS and node.input[1] in constants]


def runner(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images to logits, on one thread, with 8-bit sums as exact as in the zoo's own sessions."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(["logits"], {"images": images})[0])


def speeds(runners: dict[str, Any], images: np.ndarray, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """The images/s of each method by batch, and the ratio to fp32: medians over the rounds after an untimed one."""
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in runners}
    for batch, runs in BATCHES.items():
        taken: dict[str, list[float]] = {name: [] for name in runners}
        for turn in range(rounds + 1):
            for name, run in runners.items():
                began = time.perf_counter()
                for _ in range(runs):
                    run(images[:batch])
                if turn:
                    taken[name].append(batch * runs / (time.perf_counter() - began))
        for name, rates in taken.items():
            ratio = statistics.median(own / fp32 for own, fp32 in zip(rates, taken[FP32], strict=True))
            found[name][f"batch {batch}"] = {"images_per_second": statistics.median(rates), "ratio": ratio}
    return found


def bench(name: str, data: Path, rounds: int) -> dict[str, Any]:
    """A model's rows by method: agreement and accuracy as fractions, megabytes, and speeds."""
    graph, calibration, tested = traced(name, data)
    rows, runners, truth = {}, {}, np.zeros(0)
    with tempfile.TemporaryDirectory() as folder:
        for way, file in graphs(graph, calibration, Path(folder)):
            run = runners[way] = runner(file)
            parts = [run(tested.pixels[start : start + 50]) for start in range(0, len(tested.pixels), 50)]
            classes = np.concatenate(parts).argmax(1)
            truth = classes if way == FP32 else truth
            agreement, accuracy = float((classes == truth).mean()), float((classes == tested.labels).mean())
            rows[way] = {"agreement": agreement, "top1": accuracy, "megabytes": file.stat().st_size / 1e6}
    return {way: rows[way] | speed for way, speed in speeds(runners, tested.pixels, rounds).items()}


def render(measured: dict[str, Any]) -> str:
    """The Markdown table of a measurement: one row per method, for each model."""
    lines = [f"{measured['images']} test images; one thread; {measured['machine']}; {versions(measured)}.", ""]
    lines += ["| model | way | agreement with fp32 | top-1 | MB | images/s, batch 1 | images/s, batch 64 |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for name, rows in measured["models"].items():
        for way, row in rows.items():
            cells = [f"{row['agreement']:.2%}", f"{row['top1']:.2%}", f"{row['megabytes']:.1f}"]
            speed = [row[f"batch {batch}"] for batch in BATCHES]
            cells += [f"{one['images_per_second']:.0f} (x{one['ratio']:.2f})" for one in speed]
            lines.append(f"| {name} | {way} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the results as Markdown or JSON; with --save, also store them and update docs/benchmarks.md."""
    parser = options(__file__, __doc__)
    parser.add_argument("--data", type=Path, required=True, help=f"folder that holds {', '.join(MODELS.values())}")
    parser.add_argument("--rounds", type=int, default=11, help="rounds to take the median of")
    arguments = parser.parse_args()
    models = {name: bench(name, arguments.data / folder, arguments.rounds) for name, folder in MODELS.items()}
    facts = circumstances("torch", "onnx", "onnxruntime-gpu")
    tell(__file__, {**facts, "images": TEST, "rounds": arguments.rounds, "models": models}, render, arguments)


if __name__ == "__main__":
    main()
