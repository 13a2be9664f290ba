"""The losses of ten steps of a fixed recipe with all features on, against pinned.json."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("pinned.py")
ELSEWHERE = 1e-5  # relative: what another CPU's or another torch's sums may change in ten steps


def run() -> dict[str, list[str] | str]:
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])}
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def test_ten_steps_have_the_losses_on_record_bit_for_bit_where_they_were_recorded() -> None:
    found, record = run(), json.loads(SCRIPT.with_suffix(".json").read_text())
    assert len(found["losses"]) == 10
    numbers, wanted = ([float.fromhex(loss) for loss in one["losses"]] for one in (found, record))
    assert numbers == pytest.approx(wanted, rel=ELSEWHERE)
    if all(found[name] == record[name] for name in ("torch", "machine", "cpu")):
        assert found["losses"] == record["losses"]
