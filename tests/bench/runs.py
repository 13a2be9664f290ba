"""Many measurements of minutes each, in parallel, with stored results."""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any


def measured_once(
    wanted: dict[Path, tuple[Any, ...]], measure: Callable[..., dict[str, Any]], jobs: int
) -> list[dict[str, Any]]:
    """The results of `measure` for each tuple of arguments, in order, computed in parallel processes.

    Each result is stored in its file; a measurement with a stored result is not repeated.
    """
    for file in wanted:
        file.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(measure, *run): file for file, run in wanted.items() if not file.exists()}
        for future in as_completed(futures):
            futures[future].write_text(json.dumps(future.result()) + "\n")
            print(futures[future].read_text(), end="", file=sys.stderr, flush=True)
    return [json.loads(file.read_text()) for file in wanted]
