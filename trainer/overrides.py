"""Settings of a recipe, changed by name: on the command line, or in a TOML file that a run also leaves behind."""

import dataclasses
import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from bsdnet.errors import ConfigError, TrainingError
from trainer.recipes import OptimizerRecipe

_RecipeT = TypeVar("_RecipeT", bound=OptimizerRecipe)

_NONE = "none"
"""None, in words: TOML has no such value."""
_SIZE = tuple[int, int]
"""The type of a height and a width; no recipe has another pair of whole numbers."""
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", _SIZE: "a height and a width"}


def override(recipe: _RecipeT, settings: Mapping[str, object]) -> _RecipeT:
    """Change fields of a recipe by name.

    Of `iterations` and `epochs` the one that is given alone takes the other's place.

    Args:
        recipe: where all other fields come from.
        settings: values as Python or TOML has them: a list will do for a tuple, a whole number for any number, and
            `"none"` for None where a field may have none.

    Raises:
        ConfigError: there is no such field, a value has another type, or the recipe refuses it.
    """
    hints = _fields(type(recipe))
    changes = {name: _convert(name, value, _hint(hints, name, type(recipe))) for name, value in settings.items()}
    for name, other in (("iterations", "epochs"), ("epochs", "iterations")):
        if changes.get(name) is not None and other not in changes:
            changes[other] = None
    return dataclasses.replace(recipe, **changes)


def parse_settings(texts: Iterable[str], recipe: type[OptimizerRecipe]) -> dict[str, object]:
    """Read settings as the command line has them, such as `lr=1e-3`, for `override`.

    Sizes are `WIDTHxHEIGHT`, the other tuples' values are separated by commas, and `none` is None.

    Args:
        texts: `key=value` each; of two with the same key the later one counts.
        recipe: whose fields they are.

    Raises:
        ConfigError: there is no such field, or its value cannot be read.
    """
    hints = _fields(recipe)
    settings = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise ConfigError(f"{text!r} is no setting; expected key=value, such as lr=1e-3")
        hint = _hint(hints, name, recipe)
        try:
            settings[name] = _parse(value, hint)
        except ValueError as error:
            expected = "WIDTHxHEIGHT, such as 480x352" if _SIZE in (hint, *get_args(hint)) else _describe(hint)
            raise ConfigError(f"{name} must be {expected}, got {value!r}") from error
    return settings


def read_toml(path: Path) -> dict[str, object]:
    """Read settings from a TOML file for `override`; sizes are `[height, width]` there.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or has a table.
    """
    try:
        with path.open("rb") as opened:
            settings = tomllib.load(opened)
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # what is no TOML, and what is no UTF-8
        raise ConfigError(f"{path} is no TOML file: {error}") from error
    tables = [name for name, value in settings.items() if isinstance(value, dict)]
    if tables:
        raise ConfigError(f"{path} has a table [{tables[0]}]; expected settings alone, such as lr = 1e-3")
    return settings


def write_toml(path: Path, recipe: OptimizerRecipe) -> None:
    """Write all fields of a recipe as settings: over any recipe of its kind, `override` makes the same of them.

    None is written as `"none"`, since a field that is left out would keep the other recipe's value.

    Raises:
        TrainingError: the file cannot be written.
    """
    lines = [f"{field.name} = {_toml(getattr(recipe, field.name))}\n" for field in dataclasses.fields(recipe)]
    try:
        path.write_text("".join(lines), encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise TrainingError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _fields(recipe: type[OptimizerRecipe]) -> dict[str, Any]:
    """Give the types of a recipe's fields by name."""
    hints = get_type_hints(recipe)
    return {field.name: hints[field.name] for field in dataclasses.fields(recipe)}


def _hint(hints: Mapping[str, Any], name: str, recipe: type[OptimizerRecipe]) -> Any:  # noqa: ANN401 - a type
    if name not in hints:
        near = difflib.get_close_matches(name, hints, n=3)
        advice = f"did you mean {' or '.join(near)}?" if near else f"its settings are: {', '.join(hints)}"
        raise ConfigError(f"{recipe.__name__} has no setting {name!r}; {advice}")
    return hints[name]


def _convert(name: str, value: object, hint: Any) -> Any:  # noqa: ANN401 - any value, any type
    try:
        return _converted(value, hint)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{name} must be {_describe(hint)}, got {value!r}") from error


def _converted(value: Any, hint: Any) -> Any:  # noqa: ANN401 - any value, any type
    """Bring a value to a type, or raise TypeError or ValueError."""
    if _is_optional(hint):
        return None if value in (None, _NONE) else _converted(value, _inner(hint))
    if get_origin(hint) is tuple:
        return _converted_tuple(value, get_args(hint))
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError
        return value
    wanted = (int, float) if hint is float else hint
    if not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        raise TypeError
    if hint is float and not math.isfinite(value):
        raise ValueError
    return hint(value)


def _converted_tuple(value: Any, items: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ANN401 - any value
    if not isinstance(value, list | tuple):
        raise TypeError
    if items[-1] is Ellipsis:
        items = (items[0],) * len(value)
    return tuple(_converted(item, hint) for item, hint in zip(value, items, strict=True))


def _parse(text: str, hint: Any) -> object:  # noqa: ANN401 - a type
    """Read a value of the command line, or raise ValueError."""
    if _is_optional(hint):
        return None if text.lower() == _NONE else _parse(text, _inner(hint))
    if hint == _SIZE:
        match = re.fullmatch(r"(\d+)x(\d+)", text)
        if match is None:
            raise ValueError
        return int(match[2]), int(match[1])
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        return tuple(_parse(part.strip(), item) for part in text.split(",")) if text else ()
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    return hint(text) if hint in (int, float) else text


def _is_optional(hint: Any) -> bool:  # noqa: ANN401 - a type
    return get_origin(hint) in (Union, UnionType)


def _inner(hint: Any) -> Any:  # noqa: ANN401 - a type
    """Give X of `X | None`, the only union that recipes have."""
    (inner,) = (part for part in get_args(hint) if part is not NoneType)
    return inner


def _describe(hint: Any) -> str:  # noqa: ANN401 - a type
    """Say in words what a type takes."""
    if _is_optional(hint):
        return f"{_describe(_inner(hint))} or {_NONE!r}"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) is tuple and hint not in _WORDS:
        items = get_args(hint)
        return f"a list, each {_describe(items[0])}" if items[-1] is Ellipsis else f"{len(items)} numbers"
    return _WORDS[hint]


def _toml(value: object) -> str:
    """Write a recipe's value as TOML does."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    # JSON's quoted texts are TOML's, but for one control character.
    return json.dumps(_NONE if value is None else value, ensure_ascii=False).replace("\x7f", "\\u007f")
