"""Classification on ONNX Runtime: correct numbers, and only verified files."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, load_model
from safetensors.numpy import save_file
from scipy.special import softmax

import vtzoo
from vtzoo.data.transform import Preprocess
from vtzoo.errors import VtzooError
from vtzoo.predict import onnx
from vtzoo.predict.load import load

PHOTOS = Path(__file__).parents[1] / "photos"
SIZE = 8  # pixels, of the hand-made model's images
Write = Callable[..., Path]


def refusal(model: Path, **options: Any) -> VtzooError:
    with pytest.raises(VtzooError) as caught:
        load(model, **options)
    return caught.value


def assert_answers(classifier: Any, hand: Any) -> None:
    images = hand.pixels(7)
    logits, features = hand.answers(images)
    np.testing.assert_allclose(classifier(images), softmax(logits, axis=1), atol=1e-6)
    np.testing.assert_allclose(classifier.embed(images), features, rtol=1e-6)


def test_a_model_folder_gives_the_probabilities_of_its_weights(hand: Any, handmade: Path) -> None:
    classifier = load(handmade)
    assert classifier.labels == tuple(hand.labels)
    assert_answers(classifier, hand)


def test_a_bare_file_needs_nothing_beside_it(hand: Any, bare: Write) -> None:
    classifier = load(bare())
    assert classifier.labels == tuple(hand.labels)
    assert classifier.preprocess == Preprocess(size=SIZE, interpolation="bicubic", crop=1.0)
    assert_answers(classifier, hand)


def test_a_folder_whose_graph_holds_its_weights_needs_no_hash(hand: Any, handmade: Path) -> None:
    hand.write_graph(handmade, hand.graph(hand.inlined()))
    (handmade / "result.json").unlink()
    assert_answers(load(handmade), hand)


def test_prediction_imports_neither_torch_nor_onnx_nor_safetensors(handmade: Path) -> None:
    blocked = ("torch", "timm", "torchvision", "onnx", "onnxscript", "safetensors", "datasets", "sklearn", "matplotlib")
    script = f"""
import sys
sys.modules.update(dict.fromkeys({blocked!r}))
import vtzoo
print(vtzoo.load({str(handmade)!r})({str(PHOTOS / "rocket.jpg")!r}).shape)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(1, 4)\n", "")


def test_the_public_load_is_the_same(handmade: Path) -> None:
    assert vtzoo.load is load


def test_a_name_with_no_model_is_unknown() -> None:
    with pytest.raises(VtzooError, match="unknown model 'no-such-model'"):
        load("no-such-model")


# --- a model folder that is not what it says ---------------------------------------------------------------------


def test_changed_weights_are_refused(hand: Any, handmade: Path) -> None:
    save_file({"head.weight": hand.weight * 2, "other": np.ones(3, np.float32)}, handmade / "model.safetensors")
    assert "model.safetensors does not have the sha256" in refusal(handmade).message


def test_a_changed_graph_is_refused(handmade: Path) -> None:
    file = handmade / "onnx" / "model.onnx"
    file.write_bytes(file.read_bytes() + b"\n\x00")
    assert "model.onnx does not have the sha256" in refusal(handmade).message


def test_weights_that_no_hash_vouches_for_are_refused(handmade: Path) -> None:
    (handmade / "result.json").write_text("{}", encoding="utf-8")
    assert "has no sha256 of model.safetensors" in refusal(handmade).message


@pytest.mark.parametrize("file", ["model.safetensors", "onnx/model.onnx", "config.json"])
def test_an_incomplete_folder_names_what_is_missing(file: str, handmade: Path) -> None:
    (handmade / file).unlink()
    beginnings = {
        "model.safetensors": "cannot read",
        "onnx/model.onnx": f"{handmade} has no onnx/model.onnx",
        "config.json": f"'{handmade}' is not a model folder",
    }
    assert refusal(handmade, backend="onnx").message.startswith(beginnings[file])


@pytest.mark.parametrize("file", ["model.safetensors", "onnx/model.onnx"])
def test_truncated_files_are_refused_even_if_their_hash_is_right(hand: Any, file: str, handmade: Path) -> None:
    content = (handmade / file).read_bytes()
    for length in (0, 4, len(content) // 2, len(content) - 1):
        (handmade / file).write_bytes(content[:length])
        hand.sign(handmade)
        assert file in refusal(handmade).message


def test_weights_that_are_not_finite_are_refused(hand: Any, handmade: Path) -> None:
    damaged = hand.weight.copy()
    damaged[1, 2] = np.nan
    save_file({"head.weight": damaged}, handmade / "model.safetensors")
    hand.write_graph(handmade, hand.graph(hand.pointing(hand.offset_of(handmade))))
    assert "head.weight in" in refusal(handmade).message


@pytest.mark.parametrize(
    "change",
    [
        {"entries": {"location": "model.safetensors"}},
        {"entries": {"location": "../../model.safetensors"}},
        {"entries": {"location": "../model.safetensors/../../secret"}},
        {"entries": {"location": "/etc/passwd"}},
        {"entries": {"offset": "8"}},
        {"entries": {"length": "8"}},
        {"entries": {"checksum": "0"}},
        {"name": "other"},
        {"name": "nowhere"},
        {"dims": (4, 3)},
        {"dims": (12,)},
        {"data_type": TensorProto.BFLOAT16},
    ],
    ids=str,
)
def test_a_graph_that_points_anywhere_but_at_its_own_weight_is_refused(hand: Any, change: Any, handmade: Path) -> None:
    astray = hand.graph(hand.pointing(hand.offset_of(handmade), **change))
    astray.doc_string = "../model.safetensors"  # so that it is taken for a packaged graph
    hand.write_graph(handmade, astray)
    assert "does not point at" in refusal(handmade).message


def test_a_graph_that_points_at_a_file_beside_it_is_refused(hand: Any, handmade: Path) -> None:
    shutil.copy(handmade / "model.safetensors", handmade / "onnx" / "weights.bin")
    hand.write_graph(handmade, hand.graph(hand.pointing(hand.offset_of(handmade), entries={"location": "weights.bin"})))
    assert "keeps its weights in other files" in refusal(handmade).message


def test_a_folder_whose_class_names_do_not_fit_its_graph_is_refused(hand: Any, handmade: Path) -> None:
    config = json.loads((handmade / "config.json").read_text(encoding="utf-8"))
    config |= {"num_classes": 3, "label_names": hand.labels[:3]}
    (handmade / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "does not return `features` and float32 `logits` for 3 classes" in refusal(handmade).message


# --- a bare file that is none of ours ----------------------------------------------------------------------------


def test_a_bare_file_with_weights_elsewhere_is_refused(hand: Any, bare: Write) -> None:
    path = bare(weight=hand.pointing(0, entries={"location": "weights.bin"}))
    (path.parent / "weights.bin").write_bytes(hand.weight.tobytes())
    assert "bare.onnx keeps its weights in other files" in refusal(path).message


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_text("Dear diary, today", encoding="utf-8")
    assert "x.onnx is not an ONNX file" in refusal(tmp_path / "x.onnx").message


def test_a_missing_bare_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "x.onnx").message.endswith("x.onnx: No such file or directory")


@pytest.mark.parametrize(
    ("name", "kind", "shape"),
    [
        ("input", TensorProto.UINT8, ["batch", 3, SIZE, SIZE]),
        ("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE]),
        ("images", TensorProto.UINT8, ["batch", 3, SIZE, SIZE + 1]),
        ("images", TensorProto.UINT8, [1, 3, SIZE, SIZE]),
    ],
)
def test_a_graph_with_other_inputs_is_refused(name: str, kind: int, shape: list[Any], bare: Write) -> None:
    adapter = [] if name == "images" else [helper.make_node("Identity", [name], ["images"])]
    path = bare(images=helper.make_tensor_value_info(name, kind, shape), nodes=adapter)
    assert f"does not take uint8 `images` (batch, 3, {SIZE}, {SIZE})" in refusal(path).message


@pytest.mark.parametrize("left_out", ["logits", "features"])
def test_a_graph_with_other_outputs_is_refused(left_out: str, bare: Write) -> None:
    kept = [("logits", 4), ("features", 3)]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in kept
        if name != left_out
    ]
    message = refusal(bare(outputs=outputs)).message
    assert "does not return `features` and float32 `logits` for 4 classes" in message


def test_a_bare_file_whose_class_names_do_not_fit_it_is_refused(hand: Any, bare: Write) -> None:
    metadata = hand.metadata | {"vtzoo.labels": '["apple", "rocket"]'}
    assert "float32 `logits` for 2 classes" in refusal(bare(metadata=metadata)).message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vtzoo.labels": None}, "it has no vtzoo.labels"),
        ({"vtzoo.preprocess": None}, "it has no vtzoo.preprocess"),
        ({"vtzoo.labels": "apple"}, "cannot be read"),
        ({"vtzoo.labels": "[1, 2, 3, 4]"}, "vtzoo.labels is not a list of names"),
        ({"vtzoo.preprocess": "[]"}, "cannot be read"),
        ({"vtzoo.preprocess": '{"size": 8}'}, "cannot be read"),
        ({"vtzoo.preprocess": '{"size": 8, "interpolation": "sharp", "crop": 1}'}, "unknown interpolation"),
    ],
)
def test_metadata_that_say_too_little_are_refused(
    hand: Any, changes: dict[str, Any], message: str, bare: Write
) -> None:
    metadata = {key: value for key, value in (hand.metadata | changes).items() if value is not None}
    assert message in refusal(bare(metadata=metadata)).message


def test_a_foreign_file_of_the_right_kind_gives_numbers_for_names_and_says_so(
    hand: Any, bare: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = bare(metadata={})
    classifier = load(path)
    assert classifier.labels == ("0", "1", "2", "3")
    assert classifier.preprocess == Preprocess(size=SIZE, interpolation="bicubic", crop=1.0)
    assert caplog.messages == [
        f"{path} has no class names and no preprocessing: using class numbers and bicubic centre crops"
    ]
    assert_answers(classifier, hand)


@pytest.mark.parametrize(
    ("kind", "shape", "stated"),
    [
        (TensorProto.FLOAT, ["batch", 3, SIZE, SIZE], "images, tensor(float) (batch, 3, 8, 8)"),
        (TensorProto.UINT8, ["batch", 3, "height", "width"], "images, tensor(uint8) (batch, 3, height, width)"),
    ],
)
def test_a_foreign_file_with_other_inputs_is_refused(kind: int, shape: list[Any], stated: str, bare: Write) -> None:
    path = bare(images=helper.make_tensor_value_info("images", kind, shape), metadata={})
    error = refusal(path)
    assert error.message == f"{path} takes {stated}, not uint8 `images` (batch, 3, height, width)"
    assert "vtzoo export" in str(error.hint)


@pytest.mark.parametrize(("versions", "named"), [({"ir": 99}, "IR version"), ({"opset": 99}, "opset")])
def test_a_file_of_a_newer_onnx_is_refused_with_a_way_out(versions: dict[str, int], named: str, bare: Write) -> None:
    path = bare()
    model = load_model(path)
    model.ir_version = versions.get("ir", model.ir_version)
    model.opset_import[0].version = versions.get("opset", model.opset_import[0].version)
    path.write_bytes(model.SerializeToString())
    error = refusal(path)
    assert error.message.startswith("ONNX Runtime cannot open the model: ")
    assert named in error.message
    assert "--opset" in str(error.hint)


def test_any_truncation_of_a_bare_file_is_refused(bare: Write) -> None:
    path = bare()
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        assert refusal(path).message


def test_a_graph_that_onnx_runtime_cannot_open_is_refused_in_one_sentence(bare: Write) -> None:
    error = refusal(bare(nodes=[helper.make_node("NoSuchOperator", ["images"], ["z"])]))
    assert error.message.startswith("ONNX Runtime cannot open the model: ")
    assert "NoSuchOperator" in error.message
    assert "\n" not in error.message


def test_a_failing_run_is_one_sentence(handmade: Path) -> None:
    classifier = load(handmade)
    with pytest.raises(VtzooError, match="ONNX Runtime could not run the model"):
        classifier.run(np.zeros((1, 3, SIZE, SIZE + 1), np.uint8))


# --- devices -----------------------------------------------------------------------------------------------------


def test_cuda_that_does_not_load_is_an_error_and_silent(
    handmade: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    error = refusal(handmade, device="cuda")
    assert error.message == "ONNX Runtime cannot use CUDA here"
    assert error.hint is not None
    assert "--device cpu" in error.hint
    assert capfd.readouterr() == ("", "")


def test_auto_falls_back_to_the_cpu_in_silence_where_cuda_does_not_load(
    hand: Any, handmade: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(onnx.machine, "has_driver", lambda: True)
    classifier: Any = load(handmade)
    assert classifier.session.get_providers() == ["CPUExecutionProvider"]
    assert_answers(classifier, hand)
    assert capfd.readouterr() == ("", "")


def test_a_session_that_left_cuda_out_is_not_taken_for_cuda(handmade: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_cuda(graph: bytes, weights: bytes | None, *providers: Any) -> Any:
        return opened(graph, weights, "CPUExecutionProvider")

    opened = onnx.open_session
    monkeypatch.setattr(onnx, "open_session", without_cuda)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert refusal(handmade, device="cuda").message == "ONNX Runtime cannot use CUDA here"


def test_a_build_without_cuda_says_so(handmade: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert refusal(handmade, device="cuda").message == "ONNX Runtime cannot use CUDA here"
