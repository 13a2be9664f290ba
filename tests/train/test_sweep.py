"""`vtzoo sweep` with the real `vtzoo train`."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vtzoo.sweep import TrainOptions, sweep, train_process
from vtzoo.sweep.run_progress import read_progress

# `vtzoo train` with the fixtures' small cifar10, and without the work after the last step.
TRAIN = """
import sys
from dataclasses import replace
from vtzoo.data import named
from vtzoo.cli import main
from vtzoo.train import run
def finish(*_, out, result, **__):
    result = replace(result, top1=0.5, top5=1.0, images=20)
    result.write(out / "result.json")
    (out / "README.md").touch()
    return result
named.DATASETS["cifar10"], run.finish = replace(named.named_set("cifar10"), train=24, test=20), finish
sys.argv.insert(1, "train")
main()
"""


def test_a_sweep_trains_and_a_second_sweep_skips_the_finished_runs(
    recipe_text: Callable[..., str], tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(train_process, "TRAIN", (sys.executable, "-W", "error", "-c", TRAIN))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "tiny.toml").write_text(recipe_text(epochs=2))
    options = TrainOptions(data=tiny_data, device="cpu")
    first, second = (sweep([str(tmp_path / "tiny.toml")], [3], out=tmp_path, options=options) for _ in range(2))
    (run,) = first.runs
    assert run.error is None
    assert second == first
    assert capsys.readouterr().err.splitlines()[-1].endswith("; finished before")
    progress = read_progress(Path(run.folder))
    assert progress
    assert progress.step == run.steps == 6
    log = (Path(run.folder) / "train.log").read_text()
    assert f"\n{run.folder}: top-1 50.00%, top-5 100.00% on 20 test images\n" in log
