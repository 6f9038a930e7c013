"""Recipes changed by a TOML file or by the command line, and written down for both."""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from bsdnet.errors import ConfigError, TrainingError
from trainer.recipes import OptimizerRecipe

_Recipe = TypeVar("_Recipe", bound=OptimizerRecipe)

_NONE = "none"


def override(recipe: _Recipe, settings: Mapping[str, object]) -> _Recipe:
    """Change fields of a recipe.

    `iterations` and `epochs` exclude each other: setting one of them clears the other.

    Args:
        recipe: what to start from.
        settings: new values by field, as TOML or Python has them; a list stands for a tuple, an int for a float, and
            the text `none` for None.

    Raises:
        ConfigError: there is no such field, or its value is of another type or cannot work.
    """
    kinds = _field_types(recipe)
    changes: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=3) or sorted(kinds)
            raise ConfigError(f"a recipe has no field {name!r}; did you mean {', '.join(near)}?")
        changes[name] = _convert(name, value, kinds[name])
    for name, other in (("iterations", "epochs"), ("epochs", "iterations")):
        if changes.get(name) is not None and other not in changes:
            changes[other] = None
    return dataclasses.replace(recipe, **changes)


def parse_settings(recipe: OptimizerRecipe, settings: Sequence[str]) -> dict[str, object]:
    """Read `FIELD=VALUE` as the command line gives it.

    Tuples are written with commas, `scale_range=0.5,2`, and sizes as everywhere on the command line,
    `crop_size=480x352`, width first.

    Args:
        recipe: whose fields they are.
        settings: the texts.

    Returns:
        Values by field, for `override`.

    Raises:
        ConfigError: a text has no `=`, or its value is none of the field's type.
    """
    kinds = _field_types(recipe)
    values: dict[str, object] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"{setting!r} is no setting; expected FIELD=VALUE, such as lr=0.001")
        values[name] = _parse(name, text, kinds[name]) if name in kinds else text
    return values


def read_toml(path: Path) -> dict[str, object]:
    """Read settings from a TOML file, such as the `recipe.toml` of a run.

    Raises:
        ConfigError: the file is missing or no TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}") from error


def write_toml(path: Path, recipe: OptimizerRecipe) -> None:
    """Write every field of a recipe, so that `read_toml` and `override` give it back.

    Raises:
        TrainingError: the file cannot be written.
    """
    lines = [f"{field.name} = {_as_toml(getattr(recipe, field.name))}" for field in dataclasses.fields(recipe)]
    try:
        path.write_text("\n".join(lines) + "\n")
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror or error}") from error


def _field_types(recipe: OptimizerRecipe) -> dict[str, Any]:
    hints = typing.get_type_hints(type(recipe))
    return {field.name: hints[field.name] for field in dataclasses.fields(recipe)}


def _convert(name: str, value: object, kind: Any) -> Any:  # noqa: ANN401 - a type annotation, and a value of it
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None or value == _NONE:
            return None
        return _convert(name, value, next(argument for argument in arguments if argument is not types.NoneType))
    if origin is Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{name} must be {', '.join(arguments[:-1])} or {arguments[-1]}, got {value!r}")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name} must be a list, got {value!r}")
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise ConfigError(f"{name} must have {len(arguments)} entries, got {value!r}")
        return tuple(_convert(name, entry, arguments[0]) for entry in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{name} must be of the type {kind.__name__}, got {value!r}")
    return value


def _parse(name: str, text: str, kind: Any) -> object:  # noqa: ANN401 - a type annotation
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return None if text == _NONE else _parse(name, text, arguments[0])
    if origin is tuple:
        if name.endswith("_size"):
            width, _, height = text.partition("x")
            return [_parse(name, height, int), _parse(name, width, int)]
        return [_parse(name, part, arguments[0]) for part in text.split(",") if part]
    if kind is bool:
        if text not in ("true", "false"):
            raise ConfigError(f"{name} must be true or false, got {text!r}")
        return text == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            form = "WIDTHxHEIGHT" if name.endswith("_size") else f"of the type {kind.__name__}"
            raise ConfigError(f"{name} must be {form}, got {text!r}") from None
    return text


def _as_toml(value: object) -> str:
    if value is None:
        return f'"{_NONE}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_as_toml(entry) for entry in value)}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'"{escaped}"'
    return repr(value)
