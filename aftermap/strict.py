"""Plain tables of TOML as dataclasses, strictly: a key that is not known and a value of another type are errors."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from aftermap.errors import UnknownNameError, UsageError


def refuse(what: str, repair: str = "correct the recipe") -> UsageError:
    """What is wrong with a page."""
    return UsageError(what, repair=repair, code="recipe-invalid")


def setting(said: str) -> tuple[str, Any]:
    """ "KEY=VALUE" as a key and a plain value. Raises UsageError."""
    name, equals, value = said.partition("=")
    if not equals:
        raise UsageError(f"--set {said} has no value", repair="say --set KEY=VALUE")
    try:
        return name.strip(), ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name.strip(), {"true": True, "false": False}.get(value, value)


def override(table: dict[str, Any], said: str) -> None:
    """Puts "steps.0.train.lr=1e-4" into the parsed table; `value` then judges it."""
    key, told = setting(said)
    at: Any = table
    *way, last = key.split(".")
    for part in way:
        if isinstance(at, list):
            if not part.isdigit() or int(part) >= len(at):
                raise refuse(f"--set {said}: there are {len(at)} steps, counted from 0", "say steps.0. and so on")
            at = at[int(part)]
        else:
            at = at.setdefault(part, {})
        if not isinstance(at, dict | list):
            raise refuse(f"--set {said}: {part} is no table", "name a key of the recipe")
    if not isinstance(at, dict):
        raise refuse(f"--set {said} names no key", "say steps.0.train.lr=..., for example")
    at[last] = list(told) if isinstance(told, tuple) else told


def value(given: Any, kind: Any, where: str) -> Any:
    """A value of TOML as the annotation has it. Raises UnknownNameError ("unknown-key") and UsageError ("recipe-invalid")."""
    origin, inside = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _table(given, kind, where)
    if origin is tuple and isinstance(given, list):
        return tuple(value(one, inside[0], f"{where}[{k}]") for k, one in enumerate(given))
    if origin is Mapping or getattr(origin, "__name__", "") == "Mapping":
        if isinstance(given, dict):
            return {k: value(v, inside[1], f"{where}.{k}") for k, v in given.items()}
    elif type(None) in inside:
        return value(given, inside[0], where)
    elif kind is Any:
        return given
    elif kind is float and isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    elif kind in (str, int, bool) and type(given) is kind:
        return given
    raise refuse(f"{where} is {given!r}, and has to be {_words(kind)}")


def _table(given: Any, kind: Any, where: str) -> Any:
    if not isinstance(given, dict):
        raise refuse(f"{where} is {given!r}, and has to be a table of {', '.join(f.name for f in fields(kind))}")
    hints = get_type_hints(kind)
    for name in given.keys() - hints.keys():
        raise UnknownNameError("key", f"{where}.{name}".strip("."), [f"{where}.{k}".strip(".") for k in hints])
    for f in fields(kind):
        if f.default is MISSING and f.default_factory is MISSING and f.name not in given:
            raise refuse(f"{where or 'the recipe'} does not say {f.name}", f"add {f.name}: {_words(hints[f.name])}")
    return kind(**{k: value(v, hints[k], f"{where}.{k}".strip(".")) for k, v in given.items()})


def _words(kind: Any) -> str:
    origin, inside = get_origin(kind), get_args(kind)
    if origin is tuple:
        return f"a list, each {_words(inside[0])}"
    if is_dataclass(kind) or getattr(origin, "__name__", "") == "Mapping":
        return "a table"
    plain = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return plain.get(kind) or " or ".join(_words(k) for k in inside if k is not type(None)) or "a value"
