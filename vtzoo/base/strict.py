"""A dataclass out of a TOML table that holds exactly its keys: what is unknown, missing or mistyped is named."""

from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from vtzoo.errors import VtzooError, unknown


def build(kind: Any, table: dict[str, Any], where: str, hint: str | None = None) -> Any:
    """The dataclass `kind` with a TOML table's values; `where` names the table in errors, which are VtzooErrors.

    A field whose type is "or None" may be absent from the table, and is then None; `hint` says what to do where
    another one is.
    """
    wanted = {field.name: field.type for field in fields(kind)}
    for key in table:
        if key not in wanted:
            raise unknown("key", f"{where}: {key}", [f"{where}: {name}" for name in wanted])
    values = {}
    for key, annotation in wanted.items():
        optional = get_origin(annotation) is UnionType and NoneType in get_args(annotation)
        if key in table:
            wanted_type = get_args(annotation)[0] if optional else annotation
            values[key] = _typed(wanted_type, table[key], f"{where}: {key}", hint)
        elif optional:
            values[key] = None
        else:
            raise VtzooError(f"{where}: {key} is missing", hint)
    return kind(**values)


def _typed(annotation: Any, value: Any, where: str, hint: str | None) -> Any:
    """The value as its annotation wants it; whole numbers serve as floats, booleans never as numbers."""
    if hasattr(annotation, "__dataclass_fields__"):
        if isinstance(value, dict):
            return build(annotation, value, where, hint)
    elif get_origin(annotation) is tuple:
        if isinstance(value, list) and len(value) == len(get_args(annotation)):
            return tuple(_typed(one, each, where, hint) for one, each in zip(get_args(annotation), value, strict=True))
    elif get_origin(annotation) is dict:
        if isinstance(value, dict):
            return value
    elif annotation is float and type(value) in (int, float):
        return float(value)
    elif type(value) is annotation:
        return value
    raise VtzooError(f"{where} must be {_name(annotation)}, not {value!r}")


def _name(annotation: Any) -> str:
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a string"}
    if get_origin(annotation) is tuple:
        return f"a list of {len(get_args(annotation))} numbers"
    return names.get(annotation, "a table")
