"""Many measurements that take minutes each: side by side, and each of them once."""

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
    """What `measure` says of each tuple of arguments, in order: so many at a time, in processes of their own.

    Each is kept in its file, and not measured again where that exists.
    """
    for file in wanted:
        file.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(measure, *run): file for file, run in wanted.items() if not file.exists()}
        for future in as_completed(futures):
            futures[future].write_text(json.dumps(future.result()) + "\n")
            print(futures[future].read_text(), end="", file=sys.stderr, flush=True)
    return [json.loads(file.read_text()) for file in wanted]
