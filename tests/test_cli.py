"""The command line: its output on stdout and stderr, and its exit codes.

The logits of the model are an image's mean red, green and blue, 0 to 1, so every probability can be computed by hand.
"""

import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import vtzoo
from vtzoo.base import progress
from vtzoo.cli import app
from vtzoo.errors import VtzooError
from vtzoo.zoo import resources

COMMANDS = ("predict", "list", "show", "evaluate", "train", "sweep", "recipe", "export")
NAME = "colours-drloc-cifar10"
PURE = math.e / (math.e + 2)  # softmax of (1, 0, 0)
CONFIG = {
    "architecture": "colours",
    "num_classes": 3,
    "model_args": {},
    "label_names": ["red", "green", "blue"],
    "pretrained_cfg": {"input_size": [3, 8, 8], "interpolation": "bicubic", "crop_pct": 1.0},
}
RESULT = {
    "dataset": "cifar10", "top1": 0.61234, "top5": 1.0, "images": 10_000, "seed": 0, "steps": 1200, "batch": 128,
    "hardware": "an abacus", "versions": {"torch": "2.9.0"},
    "certificate": {"images": 256, "max_logit_difference": 1.2e-06, "top1_agreement": 1.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def weights(colours: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of embedded models that holds the colour model."""
    folder = tmp_path_factory.mktemp("weights")
    model = folder / NAME
    (model / "onnx").mkdir(parents=True)
    (model / "onnx" / "model.onnx").write_bytes(colours)
    (model / "config.json").write_text(json.dumps(CONFIG))
    (model / "result.json").write_text(json.dumps(RESULT))
    return folder


@pytest.fixture(autouse=True)
def embedded(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the colour model the only embedded one."""
    monkeypatch.setattr(resources, "weights_folder", lambda: weights)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a red and a blue image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (20, 10), (255, 0, 0)).save(folder / "a.png")
    Image.new("RGB", (9, 9), (0, 0, 255)).save(folder / "b.png")
    return folder


def vt(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="vtzoo")


def process(*arguments: Any, **settings: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "vtzoo", *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=120, **settings)


# Help


def test_help_describes_every_command_in_an_uncut_sentence() -> None:
    result = vt("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z].*\.$", result.stdout, re.MULTILINE), command
    assert "..." not in result.stdout.split("Commands:")[1]


@pytest.mark.parametrize("command", [*COMMANDS, "recipe show", "recipe copy"])
def test_every_option_of_a_command_is_explained(command: str) -> None:
    result = vt(*command.split(), "--help")
    assert result.exit_code == 0
    options = result.stdout.split("Options:\n")[1]
    entries = re.split(r"\n(?=  -)", options)
    assert all(re.search(r"[A-Za-z][^.]{8,}\.", " ".join(entry.split())) for entry in entries), options
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_help_and_h_are_the_same() -> None:
    assert vt("predict", "-h").stdout == vt("predict", "--help").stdout


def test_version_is_the_installed_one() -> None:
    assert vt("--version").stdout == f"vtzoo {vtzoo.__version__}\n"


# Exit code 2, only for arguments that do not parse


@pytest.mark.parametrize(
    "arguments",
    [
        ["forecast"],
        ["predict"],
        ["predict", "a.png", "--tok-k", "3"],
        ["predict", "a.png", "--top-k", "0"],
        ["predict", "a.png", "--top-k", "many"],
        ["predict", "a.png", "--backend", "tensorflow"],
        ["predict", "a.png", "--device", "tpu"],
        ["train", "some-recipe", "--seed", "-1"],
        ["train", "some-recipe", "--accumulate", "0"],
        ["train", "some-recipe", "--workers", "0"],
        ["recipe", "show"],
        ["recipe", "copy", "some-recipe"],
        ["recipe", "edit", "some-recipe"],
        ["export"],
        ["show", "one", "two"],
    ],
)
def test_arguments_that_do_not_parse_exit_with_2_and_print_no_result(arguments: list[str]) -> None:
    result = vt(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr


# predict


def test_predict_prints_the_classes_best_first_with_percentages(photos: Path) -> None:
    result = vt("predict", "--model", NAME, photos / "a.png", "--top-k", 2)
    assert result.exit_code == 0
    assert result.stdout == f"{photos / 'a.png'}\n   57.6%  red\n   21.2%  green\n"
    assert result.stderr == ""


def test_predict_json_is_one_list_in_the_order_of_the_arguments(photos: Path) -> None:
    result = vt("predict", "-m", NAME, "--json", "-k", 1, photos / "b.png", photos)
    rows = json.loads(result.stdout)
    assert [row["image"] for row in rows] == [str(photos / name) for name in ("b.png", "a.png", "b.png")]
    assert [row["predictions"][0]["label"] for row in rows] == ["blue", "red", "blue"]
    assert all(set(row) == {"image", "predictions", "error"} and row["error"] is None for row in rows)
    assert rows[1]["predictions"] == [{"label": "red", "probability": pytest.approx(PURE, abs=1e-6)}]
    assert (result.exit_code, result.stderr) == (0, "")


def test_predict_and_load_give_the_same_numbers(photos: Path) -> None:
    (row,) = json.loads(vt("predict", "-m", NAME, "--json", "-k", 3, photos / "a.png").stdout)
    classify = vtzoo.load(NAME)
    by_label = dict(zip(classify.labels, classify(photos / "a.png")[0].tolist(), strict=True))
    assert {entry["label"]: entry["probability"] for entry in row["predictions"]} == by_label


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_predict_takes_a_model_folder_and_an_onnx_file(kind: str, weights: Path, photos: Path) -> None:
    model = weights / NAME if kind == "folder" else weights / NAME / "onnx" / "model.onnx"
    (row,) = json.loads(vt("predict", "-m", model, photos / "a.png", "--json").stdout)
    assert row["predictions"][0]["label"] == "red"


def test_one_bad_file_among_500_is_named_and_the_others_are_answered(tmp_path: Path) -> None:
    red = io.BytesIO()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(red, "png")
    for number in range(500):
        (tmp_path / f"{number:03}.png").write_bytes(red.getvalue() if number != 250 else b"no image at all")
    result = vt("predict", "-m", NAME, tmp_path, "--json")
    rows = json.loads(result.stdout)
    assert result.exit_code == 1
    assert len(rows) == 500
    bad = [row for row in rows if row["error"] is not None]
    assert [(row["image"], row["predictions"]) for row in bad] == [(str(tmp_path / "250.png"), [])]
    assert "250.png" in bad[0]["error"]
    assert all(row["predictions"][0]["label"] == "red" for row in rows if row not in bad)


def test_a_bad_file_is_reported_on_stderr_and_the_next_is_still_answered(photos: Path) -> None:
    result = vt("predict", "-m", NAME, photos / "nowhere.png", photos / "b.png", "-k", 1)
    assert result.exit_code == 1
    assert result.stdout == f"{photos / 'b.png'}\n   57.6%  blue\n"
    assert result.stderr.startswith(f"Error: {photos / 'nowhere.png'}: there is no file")
    assert result.stderr.count("\n") == 1


def test_json_is_ascii_so_that_any_terminal_can_show_it(photos: Path) -> None:
    name = photos / "Fjällräv.png"
    (photos / "a.png").rename(name)
    result = vt("predict", "-m", NAME, name, "--json")
    assert result.stdout.isascii()
    assert json.loads(result.stdout)[0]["image"] == str(name)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_file_name_that_is_not_utf8_is_printed_escaped(options: list[str], photos: Path) -> None:
    (photos / "a.png").rename(os.fsdecode(os.fsencode(photos) + b"/\xff.png"))
    result = vt("predict", "-m", NAME, photos, *options)
    assert result.exit_code == 0, result.exception
    assert "\\udcff.png" in result.stdout


# Unknown names


def test_the_error_for_an_unknown_model_has_the_nearest_name_and_the_next_command(photos: Path) -> None:
    result = vt("predict", "-m", "colours-drlok-cifar10", photos)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: unknown model 'colours-drlok-cifar10'\nHint: ")
    assert NAME in result.stderr
    assert "vtzoo list" in result.stderr


def test_the_error_for_an_unknown_recipe_has_the_nearest_name_and_the_next_command(tmp_path: Path) -> None:
    result = vt("train", "swin_t-drlok-cifar100", "--out", tmp_path / "run")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: unknown recipe 'swin_t-drlok-cifar100'\nHint: ")
    assert "swin_t-drloc-cifar100" in result.stderr
    assert "vtzoo list --recipes" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["show", "train"])
def test_a_path_without_a_file_exits_with_1_and_one_sentence(command: str, tmp_path: Path) -> None:
    result = vt(command, tmp_path / "nothing.toml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert "nothing.toml" in result.stderr


# list and show


def stale(name: str) -> str:
    """The warning about a model whose recipe does not ship with vtzoo."""
    return f"the weights of {name} are stale: their recipe is gone from recipes/"


def own_recipes() -> set[str]:
    return {path.stem for path in resources.recipes_folder().glob("*-*.toml")}


def test_list_gives_each_model_with_its_accuracy_and_its_size_before_the_recipes(weights: Path) -> None:
    size = sum(file.stat().st_size for file in (weights / NAME).rglob("*") if file.is_file())
    result = vt("list")
    head, first, *others = result.stdout.splitlines()
    assert head.split() == ["model", "top-1", "twin's", "MB", "where"]
    assert first.split() == [NAME, "61.23%", f"{size / 1e6:.1f}", "here"]
    assert {tuple(line.split()) for line in others} == {(name, "recipe") for name in own_recipes()}
    assert result.stderr == f"Warning: {stale(NAME)}\n"
    measured = {key: RESULT[key] for key in ("dataset", "top1", "top5", "images")}
    rows = json.loads(vt("list", "--json").stdout)
    assert rows[0] == {"name": NAME, "place": "here", **measured, "bytes": size, "stale": stale(NAME)}
    assert {row["name"] for row in rows[1:]} == own_recipes()


def test_an_unmeasured_model_is_listed_without_an_accuracy(weights: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "fresh").mkdir()
    config = (weights / NAME / "config.json").read_text()
    (tmp_path / "fresh" / "config.json").write_text(config)
    monkeypatch.setattr(resources, "weights_folder", lambda: tmp_path)
    assert vt("list").stdout.splitlines()[1].split() == ["fresh", "0.0", "here"]
    row = {"name": "fresh", "place": "here", "bytes": len(config), "stale": stale("fresh")}
    assert json.loads(vt("list", "--json").stdout)[0] == row
    assert "top1" not in json.loads(vt("show", "fresh", "--json").stdout)


def test_list_recipes_names_files_that_train_takes() -> None:
    rows = json.loads(vt("list", "--recipes", "--json").stdout)
    assert "swin_t-drloc-cifar100" in [row["name"] for row in rows]
    assert all(Path(row["file"]).stem == row["name"] and Path(row["file"]).is_file() for row in rows)
    lines = vt("list", "--recipes").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [row["name"] for row in rows]


def test_list_recipes_counts_the_steps_of_each() -> None:
    lines = dict(line.split(maxsplit=1) for line in vt("list", "--recipes").stdout.splitlines())
    assert lines["swin_t-drloc-svhn"] == "114,400 steps of   128 images,  32 px"  # 200 epochs of 73,257 // 128 = 572


def test_show_json_has_the_facts_of_config_and_result(weights: Path) -> None:
    facts = json.loads(vt("show", NAME, "--json").stdout)
    labels = ["red", "green", "blue"]
    stated = {"name": NAME, "architecture": "colours", "classes": 3, "image_size": 8, "labels": labels}
    assert stated.items() <= facts.items()
    assert RESULT.items() <= facts.items()
    files = [file for file in (weights / NAME).rglob("*") if file.is_file()]
    assert facts["bytes"] == sum(len(file.read_bytes()) for file in files)


def test_show_is_readable() -> None:
    lines = vt("show", NAME).stdout.splitlines()
    words = {re.split(r"  +", line)[0]: re.split(r"  +", line)[1] for line in lines if not line.startswith(" ")}
    assert words["top1"] == "61.23%"
    assert words["labels"] == "red, green, blue"
    assert words["versions"] == "torch 2.9.0"
    assert words["certificate"] == "images 256, max logit difference 1.2e-06, top1 agreement 1"
    assert max(map(len, lines)) <= 100 or any(len(word) > 60 for line in lines for word in line.split())


# Errors


class Recorder:
    """A function that records its last call, and returns `gives`, or raises it if it is an exception."""

    def __init__(self, gives: Any) -> None:
        self.gives, self.called = gives, ((), {})

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        self.called = arguments, settings
        if isinstance(self.gives, BaseException):
            raise self.gives
        return self.gives


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder(RESULT)
    monkeypatch.setattr("vtzoo.train.run.train", recorder)
    return recorder


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (VtzooError("the loss is not finite", "lower it"), 1, "Error: the loss is not finite\nHint: lower it\n"),
        (VtzooError("the loss is not finite"), 1, "Error: the loss is not finite\n"),
        (PermissionError(13, "Permission denied", "/runs"), 1, "Error: /runs: Permission denied\n"),
        (OSError("the disk is on fire"), 1, "Error: the disk is on fire\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (BrokenPipeError(32, "Broken pipe"), 0, ""),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            1,
            "Error: this needs torch, which is not installed\n"
            'Hint: install the extra `train`: pip install "vtzoo[train]"\n',
        ),
    ],
)
def test_a_failure_is_a_sentence_on_stderr_and_an_exit_code(
    trained: Recorder, error: BaseException, code: int, sentence: str
) -> None:
    trained.gives = error
    result = vt("train", "swin_t-drloc-cifar100")
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", sentence)


def test_a_missing_module_of_vtzoo_itself_is_a_traceback(trained: Recorder) -> None:
    trained.gives = ModuleNotFoundError("No module named 'vtzoo.nothing'", name="vtzoo.nothing")
    assert vt("train", "swin_t-drloc-cifar100").exception is trained.gives


def test_a_closed_pipe_ends_the_command_silently_with_0(weights: Path, photos: Path) -> None:
    for arguments in (["--help"], ["predict", "-m", weights / NAME, "--json", photos]):
        reader, writer = os.pipe()
        os.close(reader)
        done = process(*arguments, stdout=writer)
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, ""), arguments


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to write to")
def test_a_full_disk_is_a_sentence_and_exit_code_1() -> None:
    with Path("/dev/full").open("w") as full:
        done = process("list", "--recipes", stdout=full)
    assert (done.returncode, done.stderr) == (1, "Error: No space left on device\n")


# Progress


class Terminal(io.StringIO):
    """A terminal that keeps its output."""

    def isatty(self) -> bool:
        return True


def watch(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make stderr a terminal. This is no fixture, because pytest replaces stderr after a test's fixtures."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


def test_a_bar_counts_many_images_on_a_terminal_and_never_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watch(monkeypatch)
    assert list(progress.counted(range(progress.MANY), "predicting", progress.MANY)) == list(range(progress.MANY))
    assert terminal.getvalue() == ""
    assert list(progress.counted(range(100), "predicting", 100)) == list(range(100))
    assert "100/100" in terminal.getvalue()


def test_a_training_bar_shows_step_loss_and_speed_without_colours_under_no_color(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vtzoo.train.loop import Progress

    terminal = watch(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    with progress.training("swin_t") as report:
        report(Progress(step=7, steps=10, loss=1.25, accuracy=0.5, images_per_second=320.0))
    shown = terminal.getvalue()
    assert re.search(r"7/10 +loss 1\.250  accuracy 50\.0%  320 images/s", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown))
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown)  # the codes that set a colour


def test_a_training_bar_counts_decoded_images_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watch(monkeypatch)
    with progress.training("swin_t") as report:
        report(900)
        report(334)
    assert "1,234 images decoded" in terminal.getvalue()


def test_only_rank_0_draws_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {}
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        terminal = watch(monkeypatch)
        list(progress.counted(range(100), "predicting", 100))
        shown[rank] = terminal.getvalue()
    assert "100/100" in shown["0"]
    assert shown["1"] == ""


def test_no_bar_is_drawn_if_stderr_is_no_terminal(monkeypatch: pytest.MonkeyPatch, photos: Path) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = vt("predict", "-m", NAME, *[photos] * 20, "--json")
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    with progress.training("swin_t") as report:
        report(None)  # type: ignore[arg-type]
