"""The losses of ten steps of a fixed recipe with all features on, against pinned.json."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("pinned.py")
TOLERANCE = 1e-5  # relative: another CPU or torch release may round sums differently, over ten steps


def run() -> dict[str, list[str] | str]:
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])}
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def test_ten_steps_have_the_losses_on_record_bit_for_bit_where_they_were_recorded() -> None:
    result, record = run(), json.loads(SCRIPT.with_suffix(".json").read_text())
    assert len(result["losses"]) == 10
    losses, expected = ([float.fromhex(loss) for loss in source["losses"]] for source in (result, record))
    assert losses == pytest.approx(expected, rel=TOLERANCE)
    if all(result[name] == record[name] for name in ("torch", "machine", "cpu")):
        assert result["losses"] == record["losses"]
