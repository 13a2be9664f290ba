"""The kit for a borrowed machine, tests/bench/borrowed, on this machine; a copy of the tree replaces the transfer."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from borrowed import fitting, harvest, packing, pieces, smoking, training
from borrowed.fitting import Pace
from borrowed.machine import Machine
from borrowed.training import Order
from hypothesis import given, settings
from hypothesis import strategies as st

from vtzoo.data import named, named_reader
from vtzoo.errors import VtzooError
from vtzoo.evaluate.run import measure
from vtzoo.predict.load import load
from vtzoo.train.run import hardware
from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.recipe_files import load_recipe, locate, parse_recipe

ROOT = Path(__file__).resolve().parents[2]
NAME, BASELINE = "swin_t-drloc-cifar10", "swin_t-baseline-cifar10"
FOLDER = {
    "config.json", "curves.png", "localizer.safetensors", "log", "metrics.jsonl", "model.safetensors",
    "onnx/model.onnx", "README.md", "recipe.toml", "result.json",
}  # fmt: skip
FACTS = {
    "name", "dataset", "seed", "steps", "batch", "train_seconds", "train_images", "train_manifest", "train_skipped",
    "processes", "hardware", "versions", "recipe_sha256", "weights",
}  # fmt: skip
TEACHER = '\n[teacher]\nname = "swin_t-baseline-cifar10"\nweight = 0.8\ntemperature = 2.0\n'

Edit = Callable[..., str]


def checkout(folder: Path) -> Path:
    """A checkout with the code that a training needs, weights, and wheels without code."""
    for part in ("vtzoo", "recipes", "model_cards", "tests/bench/borrowed"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    (folder / ".gitignore").write_text("/.borrowed/\n__pycache__/\n")
    (folder / "vtzoo/weights/big").mkdir(parents=True)
    (folder / "vtzoo/weights/big/model.safetensors").write_bytes(bytes(1000))
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    for name in packing.WHEELS:
        wheel = folder / ".borrowed/wheels" / f"{name}-{version(name)}-py3-none-any.whl"
        wheel.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr(f"{name}-of-a-wheel/METADATA", "")
    return folder


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    """The folder `cifar10` with the tiny data set."""
    return Path(shutil.copytree(tiny_data, tmp_path / "cifar10"))


@pytest.fixture
def machine(tiny_data: Path, tmp_path: Path) -> Machine:
    """A machine where the tiny data set has arrived."""
    shutil.copytree(tiny_data, tmp_path / "machine/cargo/data/cifar10")
    return Machine(folder=tmp_path / "machine")


def command(folder: Path, *arguments: object) -> list[str]:
    return [sys.executable, str(folder / "tests/bench/borrowed"), *map(str, arguments)]


def run(folder: Path, *arguments: object) -> str:
    """Runs a command of the kit in a checkout, and returns its output."""
    done = subprocess.run(command(folder, *arguments), capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pack_train_harvest_and_join_make_a_complete_model_folder(
    recipe_text: Edit, data: Path, tmp_path: Path
) -> None:
    home, there, at = checkout(tmp_path / "home"), tmp_path / "there", tmp_path / "machine"
    (home / "tiny.toml").write_text(recipe_text())
    assert "part1" in run(home, "pack", "--data", data, "--no-hold")
    shutil.copytree(home, there, ignore=shutil.ignore_patterns("weights", "wheels"))
    run(there, "train", "tiny.toml", 2, "--most", 3, "--trial", 0.3, "--at", at, "--device", "cpu")
    output = run(there, "harvest", NAME, "--out", tmp_path / "out", "--wait", 100, "--at", at)
    assert f"{NAME}: done" in output, (at / "runs" / NAME / "log").read_text()
    assert (at / "site/timm-of-a-wheel").is_dir()

    result = harvest.join(tmp_path / "out", tmp_path / "model", data)
    folder = tmp_path / "model"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == FOLDER
    recipe = load_recipe(folder / "recipe.toml")
    assert (recipe.schedule.epochs, recipe.schedule.cosine_epochs, recipe.drloc.schedule_epochs) == (3, 3, 3)
    assert (result.steps, result.train_images, result.hardware) == (9, 24, hardware(torch.device("cpu")))
    test = named_reader.read(named.named_set("cifar10"), "test", data)
    assert measure(load(folder), test)["top1"] == result.top1
    with pytest.raises(VtzooError, match="holds a model already"):
        harvest.join(tmp_path / "out", folder, data)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=6), room=st.integers(1, 40),
    largest=st.integers(1, 40),
)  # fmt: skip
def test_pieces_hold_every_byte_once_within_the_limits_of_pieces_and_folders(
    sizes: list[int], room: int, largest: int
) -> None:
    files = {f"file{number}": size for number, size in enumerate(sizes)}
    planned = pieces.plan(files, room=room, largest=largest)
    for file, size in files.items():
        own = [piece for piece in planned if piece.file == file]
        assert [piece.start for piece in own] == [sum(p.size for p in own[:n]) for n in range(len(own))]
        assert sum(piece.size for piece in own) == size
    assert max(piece.size for piece in planned) <= largest
    for folder in {piece.folder for piece in planned}:
        assert sum(piece.size for piece in planned if piece.folder == folder) <= room


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Three files in two parts, the second file cut in two."""
    for name, size in (("a", 6), ("b", 8), ("c", 2)):
        (tmp_path / name).write_bytes(os.urandom(size))
    paths = {f"in/{name}": tmp_path / name for name in "abc"}
    return pieces.cut(paths, lambda number: tmp_path / f"part{number}", room=10, largest=10)


def test_a_file_is_joined_once_all_its_pieces_have_come(parts: list[Path], tmp_path: Path) -> None:
    assert [path.name for path in parts] == ["part0", "part1"]
    assert pieces.join(parts[:1], tmp_path / "there") == ["in/b", "in/c"]
    assert pieces.join(parts, tmp_path / "there") == []
    shutil.rmtree(parts[0])
    assert pieces.join(parts[1:], tmp_path / "there") == []  # joined files need no pieces any more
    for name in "abc":
        assert (tmp_path / "there/in" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_damaged_pieces_and_parts_of_two_packs_are_refused(parts: list[Path], tmp_path: Path) -> None:
    piece = next(parts[0].glob("in.a.*"))
    piece.write_bytes(b"x" * 6)
    with pytest.raises(VtzooError, match=r"in\.a\.000 is damaged"):
        pieces.join(parts, tmp_path / "there")
    (tmp_path / "c").write_bytes(b"another")
    other = pieces.cut({"in/c": tmp_path / "c"}, lambda _: tmp_path / "other", room=10, largest=10)
    with pytest.raises(VtzooError, match="are not of one pack"):
        pieces.join([parts[1], *other], tmp_path / "there")
    (parts[1] / pieces.MANIFEST).unlink()
    with pytest.raises(VtzooError, match="it is not whole"):
        pieces.join(parts, tmp_path / "there")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_tree_has_no_weights_while_pack_holds_and_has_them_after_a_signal(
    number: signal.Signals, tmp_path: Path
) -> None:
    home = checkout(tmp_path / "home")
    weights = home / "vtzoo/weights/big/model.safetensors"
    with holding_pack(home) as process:
        assert not weights.exists()
        process.send_signal(number)
        assert process.wait(20) == 0
    assert weights.stat().st_size == 1000


def test_weights_that_a_killed_pack_left_aside_are_put_back(tmp_path: Path) -> None:
    home = checkout(tmp_path / "home")
    with holding_pack(home) as process:
        process.kill()
    assert "1 folders" in run(home, "pack", "--back")
    assert (home / "vtzoo/weights/big/model.safetensors").stat().st_size == 1000
    shutil.copytree(home / "vtzoo/weights/big", home / ".borrowed/aside/big")
    with pytest.raises(VtzooError, match="is there again"):
        packing.put_back(home)


def holding_pack(home: Path) -> "subprocess.Popen[str]":
    """A process of `pack` that keeps the weights out of the tree."""
    process = subprocess.Popen(command(home, "pack"), stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert any("is empty" in line for line in process.stdout)
    return process


def test_unknown_data_incomplete_models_and_trees_without_git_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match="unknown dataset 'photos'"):
        packing.pack(checkout(tmp_path / "home"), [tmp_path / "photos"], [])
    with pytest.raises(VtzooError, match=r"it has no config.json"):
        packing.pack(tmp_path / "home", [], [tmp_path])
    with pytest.raises(VtzooError, match="no git checkout"):
        packing.tree_bytes(tmp_path)


def test_a_tree_that_fills_a_call_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "CALL", packing.SPARE + 10)
    with pytest.raises(VtzooError, match="larger than a call takes"):
        packing.pack(checkout(tmp_path / "home"), [], [])


def test_the_hint_on_a_missing_wheel_names_the_folder_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "WHEELS", ("datasets",))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(VtzooError, match="no wheel of datasets") as raised:
        packing.wheels(tmp_path)
    assert str(tmp_path) in (raised.value.hint or "")


def test_parts_outlast_the_calls_that_brought_them(data: Path, tmp_path: Path) -> None:
    """Each call brings one part, and removes the part of the call before."""
    home, at = checkout(tmp_path / "home"), tmp_path / "machine"
    packed = packing.pack(home, [data], [])
    size = sum(path.stat().st_size for path in packed[0].iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "CALL", packing.SPARE + packing.tree_bytes(home) + size // 3)
        packed = packing.pack(home, [data], [])
    assert len(packed) > 1
    for part in packed:
        others = [other.rename(tmp_path / other.name) for other in packed if other != part and other.exists()]
        arrived = run_arrival(home, at)
        for other in others:
            other.rename(home / ".borrowed" / other.name)
    assert arrived == []
    assert {path.name for path in (at / "cargo/data/cifar10").iterdir()} == {path.name for path in data.iterdir()}


def run_arrival(home: Path, at: Path) -> list[str]:
    """Calls `arrive` in a new process, because `arrive` changes the environment; returns the missing files."""
    code = "import sys; sys.path[:0] = sys.argv[1:3]; from borrowed.machine import Machine; from pathlib import Path;"
    code += "print(*Machine(folder=Path(sys.argv[3])).arrive())"
    arguments = [sys.executable, "-c", code, str(home), str(home / "tests/bench"), str(at)]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()


def test_a_data_set_that_has_not_arrived_is_refused(machine: Machine) -> None:
    machine.require("cifar10", ["data/cifar100/train-0.parquet"])
    with pytest.raises(VtzooError, match=r"data/cifar100/train-0\.parquet has not arrived"):
        machine.require("cifar100", ["data/cifar100/train-0.parquet"])
    with pytest.raises(VtzooError, match="data/svhn has not arrived"):
        machine.require("svhn", [])


def test_a_fitted_recipe_is_annealed_in_the_epochs_that_fit() -> None:
    text = locate("swin_t-drloc-cifar10").read_text()
    pace = Pace(steps_per_second=100, steps_per_epoch=390)
    assert pace.epochs(480) == int(0.9 * 480 * 100 / 390) == 110
    assert pace.epochs(480, most=7) == 7
    before, after = parse_recipe(text), parse_recipe(fitting.fitted(text, 110, 390))
    assert (after.schedule.epochs, after.schedule.cosine_epochs, after.drloc.schedule_epochs) == (110, 110, 110)
    assert after.schedule.warmup_epochs == after.drloc.warmup_epochs == 10
    assert after.schedule.ema_decay == pytest.approx(1 - 20 / (110 * 390))
    assert replace(after, schedule=before.schedule, drloc=before.drloc) == before


def test_a_short_run_warms_up_in_a_tenth_of_its_epochs() -> None:
    short = parse_recipe(fitting.fitted(locate("swin_t-drloc-cifar10").read_text(), 4, 390))
    assert short.schedule.warmup_epochs == short.drloc.warmup_epochs == pytest.approx(0.4)


def test_a_long_run_keeps_the_decay_of_its_average() -> None:
    long = parse_recipe(fitting.fitted(locate("swin_t-drloc-cifar10").read_text(), 400, 390))
    assert long.schedule.ema_decay == 0.9998


def test_a_time_too_short_for_an_epoch_is_an_error() -> None:
    with pytest.raises(VtzooError, match=r"no epoch of 390 steps fits into 30 s at 2\.00 steps"):
        Pace(steps_per_second=2, steps_per_epoch=390).epochs(30)


def test_a_twin_differs_only_in_its_name_and_in_drloc() -> None:
    text = fitting.fitted(locate("swin_t-drloc-cifar10").read_text(), 5, 390)
    recipe, twin = parse_recipe(text), parse_recipe(fitting.twin(text))
    assert twin == replace(recipe, name=BASELINE, drloc=None)
    with pytest.raises(VtzooError, match="is a baseline"):
        fitting.twin(fitting.twin(text))


def make_order(**facts: object) -> Order:
    return Order(**{"ends": time.time() + 600, "compiled": False, "seed": 0, "device": "cpu", "trial": 0.1, **facts})


def test_a_trial_measures_steps_per_second_and_steps_per_epoch(
    recipe_text: Edit, machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "tiny.toml").write_text(recipe_text())
    pace = training.try_out(machine, tmp_path / "tiny.toml", make_order(), None)
    assert pace.steps_per_epoch == 3
    assert 1 < pace.steps_per_second < 10_000


def test_a_run_whose_time_is_over_leaves_its_last_checkpoint_as_a_model(recipe_text: Edit, machine: Machine) -> None:
    fit_unfinished(machine, BASELINE, recipe_text(baseline=True), make_order(ends=time.time()))
    folder = fit_unfinished(machine, NAME, recipe_text() + TEACHER, make_order(ends=time.time()))
    assert training.read_state(folder)["phase"] == "cut"
    result = json.loads((folder / "result.json").read_text())
    assert (result["steps"], result["train_images"], result["batch"]) == (20, 24, 8)
    assert result["teacher"]["name"] == BASELINE
    assert result.keys() - {"top1", "top5", "images", "manifest", "teacher"} == FACTS
    assert load(folder, backend="torch").labels == named.labels("cifar10")


def fit_unfinished(machine: Machine, name: str, text: str, order: Order) -> Path:
    """Trains a recipe with a thousand epochs until the order's time is over, and returns the run's folder."""
    folder = machine.runs / name
    folder.mkdir(parents=True)
    (folder / "fitted.toml").write_text(fitting.fitted(text, 1000, 3))
    (folder / "order.json").write_text(json.dumps(vars(order)))
    training.fit(machine, folder, order, machine.model(BASELINE))
    return folder


def test_a_harvest_of_an_unfinished_run_has_weights_only_with_now(
    recipe_text: Edit, machine: Machine, tmp_path: Path
) -> None:
    folder = fit_unfinished(machine, BASELINE, recipe_text(baseline=True), make_order(ends=time.time()))
    for name in ("model.safetensors", "result.json"):
        (folder / name).unlink()
    training.write_state(folder, "training")
    for now in (False, True):
        harvest.harvest(machine, BASELINE, tmp_path / "out", wait=0, now=now, record=False)
        assert (tmp_path / "out/model.safetensors.000").exists() == now


def test_an_unfinished_run_without_a_checkpoint_has_no_weights_to_harvest(
    recipe_text: Edit, machine: Machine, tmp_path: Path
) -> None:
    folder = fit_unfinished(machine, BASELINE, recipe_text(baseline=True), make_order(ends=time.time()))
    (folder / "checkpoint.safetensors").unlink()
    training.write_state(folder, "training")
    with pytest.raises(VtzooError, match="has no checkpoint yet"):
        harvest.harvest(machine, BASELINE, tmp_path / "out", wait=0, now=True, record=False)


def test_a_teacher_is_trained_first_and_only_once(
    recipe_text: Edit, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "teacher.toml").write_text(recipe_text(baseline=True))
    monkeypatch.setattr(training, "locate", lambda name: tmp_path / "teacher.toml")
    folder = machine.runs / NAME
    folder.mkdir(parents=True)
    (folder / "wanted.toml").write_text(recipe_text() + TEACHER)
    training._train(machine, folder, make_order(most=2))
    teacher, student = (json.loads((machine.runs / name / "result.json").read_text()) for name in (BASELINE, NAME))
    assert (teacher["steps"], student["steps"]) == (4 * 3, 2 * 3)
    assert student["teacher"]["weights"] == teacher["weights"]["model.safetensors"]
    monkeypatch.setattr(training, "try_out", None)
    assert training.teacher_of(machine, BASELINE, folder, make_order()) == machine.runs / BASELINE


def test_a_failed_run_keeps_its_error_and_is_not_started_again(
    recipe_text: Edit, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = machine.runs / NAME
    folder.mkdir(parents=True)
    (folder / "wanted.toml").write_text(recipe_text(patch_size=5))
    (folder / "order.json").write_text(json.dumps(vars(make_order())))
    with pytest.raises(SystemExit):
        training.work(machine, folder)
    state = training.read_state(folder)
    assert harvest.sentence(NAME, state).startswith(f"{NAME}: failed, ")
    assert "Traceback" in capsys.readouterr().err
    with pytest.raises(VtzooError, match="holds a run already: failed"):
        training.launch(machine, folder, recipe_text(), make_order())


def replace_worker(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Makes `launch` start this script instead of the kit; its second argument is the folder to train in."""
    path = folder / "tests" / "bench" / "borrowed"
    path.parent.mkdir(parents=True)
    path.write_text(script)
    monkeypatch.setattr(Machine, "code", lambda self, name: folder)


def test_launch_returns_once_the_state_names_the_workers_process(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = """import json, os, sys, time
time.sleep(0.5)
with open(sys.argv[2] + "/new", "w") as file:
    json.dump({"phase": "done", "process": os.getpid()}, file)
os.replace(file.name, sys.argv[2] + "/state.json")
"""
    replace_worker(monkeypatch, tmp_path / "code", script)
    training.launch(machine, machine.runs / NAME, "", make_order())
    state = training.read_state(machine.runs / NAME)
    assert (state["phase"], state["process"] == os.getpid()) == ("done", False)


def test_a_run_whose_process_ends_at_once_has_failed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replace_worker(monkeypatch, tmp_path / "code", "raise SystemExit('no such module')")
    with pytest.raises(VtzooError, match="ended at once"):
        training.launch(machine, machine.runs / NAME, "", make_order())
    assert training.read_state(machine.runs / NAME)["phase"] == "failed"
    assert "no such module" in (machine.runs / NAME / "log").read_text()


def test_a_twin_starts_only_if_smoke_measured_a_sufficient_speed_of_two_processes(
    recipe_text: Edit, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[Order] = []
    monkeypatch.setattr(training, "launch", lambda machine, folder, text, order: started.append(order))
    (tmp_path / "tiny.toml").write_text(recipe_text())
    for share in (None, 0.79, 0.9):
        (machine.folder / "smoke.json").write_text(json.dumps({"beside": share}))
        options = {"compiled": False, "seed": 0, "device": "cpu"}
        training.start(machine, str(tmp_path / "tiny.toml"), 1, twin=True, **options)
    assert [(order.twin, order.share) for order in started] == [(False, 1.0), (False, 1.0), (True, 0.9)]


def test_a_harvest_of_an_unknown_run_lists_the_existing_runs(machine: Machine, tmp_path: Path) -> None:
    (machine.runs / NAME).mkdir(parents=True)
    with pytest.raises(VtzooError, match="no run 'other'") as raised:
        harvest.harvest(machine, "other", tmp_path / "out", wait=0, now=False, record=False)
    assert NAME in (raised.value.hint or "")


def test_a_run_whose_process_is_gone_has_failed_and_its_log_is_harvested(machine: Machine, tmp_path: Path) -> None:
    folder, out = machine.runs / NAME, tmp_path / "out"
    folder.mkdir(parents=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    training.write_state(folder, "training", process=gone.pid)
    (folder / "log").write_text("out of memory")
    state = harvest.harvest(machine, NAME, out, wait=5, now=True, record=False)
    assert state["error"] == "its process is gone: see its log"
    with pytest.raises(VtzooError, match="is not over: its log and metrics are in"):
        harvest.join(out, tmp_path / "home", tmp_path)
    assert (tmp_path / "home/log").read_text() == "out of memory"


@pytest.fixture
def finished(machine: Machine) -> Path:
    """A finished run of 55 MB of random weights."""
    folder = machine.runs / NAME
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(os.urandom(55_000_000))
    (folder / "result.json").write_text(json.dumps({"top1": 0.5, "images": 20}))
    training.write_state(folder, "done")
    return folder


def test_weights_travel_home_in_files_of_less_than_16_mebibytes(
    finished: Path, machine: Machine, tmp_path: Path
) -> None:
    harvest.harvest(machine, NAME, tmp_path / "out", wait=0, now=False, record=False)
    written = list((tmp_path / "out").iterdir())
    assert len(written) == 6
    assert max(path.stat().st_size for path in written) < 16 * 2**20
    assert pieces.join([tmp_path / "out"], tmp_path / "home") == []
    assert (tmp_path / "home/model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()


def test_a_record_has_no_weights(finished: Path, machine: Machine, tmp_path: Path) -> None:
    harvest.harvest(machine, NAME, tmp_path / "out", wait=0, now=False, record=True)
    assert harvest.join(tmp_path / "out", tmp_path / "home", tmp_path).top1 == 0.5
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["result.json"]


def test_weights_too_large_for_one_harvest_are_refused(
    finished: Path, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harvest, "TOTAL", 40 * 2**20)
    with pytest.raises(VtzooError, match="too large to travel at once"):
        harvest.harvest(machine, NAME, tmp_path / "out", wait=0, now=False, record=False)
    harvest.harvest(machine, NAME, tmp_path / "out", wait=0, now=False, record=True)  # as the hint advises
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"manifest.json", "rest.zip.000"}
    monkeypatch.setattr(harvest, "TOTAL", 200 * 2**20)
    monkeypatch.setattr(harvest, "FILES", 5)
    with pytest.raises(VtzooError, match="too large to travel at once"):
        harvest.harvest(machine, NAME, tmp_path / "out", wait=0, now=False, record=False)


def test_a_table_begins_with_the_rows_nearest_to_the_recipe(tiny: Callable[..., Recipe]) -> None:
    rows = smoking.planned_rows(tiny(), (8, 16))
    assert [(row.optimizer, row.compiled, row.batch) for row in rows[:2]] == [("adamw", False, 8), ("adamw", True, 8)]
    assert len(rows) == 8
    for row in rows:
        changed = smoking.recipe_for(tiny(), row).optimizer
        assert (changed.name or "adamw", changed.batch_size) == (row.optimizer, row.batch)


def test_a_row_has_its_speed_or_its_error(tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, cpu = tiny(), torch.device("cpu")
    row = smoking.measure(recipe, smoking.planned_rows(recipe, (8,))[0], 2, cpu)
    assert f"{row.images_per_second:,.0f} images/s" in smoking.line(row, 8, recipe)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(smoking, "begin", fails)
    assert smoking.line(smoking.measure(recipe, row, 2, cpu), 8, recipe).endswith("RuntimeError: CUDA out of memory.")


@pytest.mark.stress
def test_two_processes_together_keep_a_part_of_their_speed(recipe_text: Edit, machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(recipe_text())
    helper = smoking.Helper(machine, str(tmp_path / "tiny.toml"), "cpu")
    helper.wait()
    share = helper.share(parse_recipe(recipe_text()), torch.device("cpu"), 30)
    helper.end()
    assert helper.process.returncode == 0
    assert share
    assert 0.1 < share < 2


def test_losses_agree_within_two_percent() -> None:
    assert smoking.agree([[4.60, 4.50], [4.65, 4.45]])
    assert not smoking.agree([[4.60, 4.50], [4.60, 4.60]])
    assert smoking.verdict([[4.6, 4.5], [4.6, 5.0]]).endswith("WRONG")
    assert not smoking.agree([[4.6, 4.5], [4.6, float("nan")]])
