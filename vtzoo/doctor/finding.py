"""One thing that was looked at, and whether it is well."""

from dataclasses import dataclass
from typing import Literal

# ok: as it should be. absent: optional, and not here. warning: something that it serves does not work, or may not.
# error: predicting on the CPU, which is what the package is for, cannot work.
State = Literal["ok", "absent", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found of one thing, and what to do about it where it is not well."""

    group: str
    name: str
    says: str
    state: State = "ok"
    advice: str | None = None
