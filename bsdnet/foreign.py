"""Anybody's networks: running somebody's Python file beside others that know nothing of it."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from torch import nn

from bsdnet.errors import ConfigError

_SPEC = re.compile(r".+\.py:[^/\\:]+")


def names_factory(spec: str) -> bool:
    """Say whether something is of the form `FILE.py:FACTORY`."""
    return _SPEC.fullmatch(spec) is not None


def file_of(spec: str) -> Path:
    """Give the file of `FILE.py:FACTORY`."""
    return Path(spec.rpartition(":")[0])


def factory_of(spec: str) -> str:
    """Give the function of `FILE.py:FACTORY`."""
    return spec.rpartition(":")[2]


def load_module(spec: str) -> nn.Module:
    """Call a function of somebody's file that gives a network.

    Args:
        spec: `FILE.py:FACTORY`; the function takes no arguments, and its file may import its neighbours.

    Returns:
        The network, in evaluation mode.

    Raises:
        ConfigError: there is no such file or function, it fails, or it gives something else.
    """
    path, factory = file_of(spec), factory_of(spec)
    if not path.is_file():
        raise ConfigError(f"{spec}: there is no file {path}; expected FILE.py:FACTORY")
    try:
        with neighbours_of(path):
            made = getattr(run_file(path), factory)()
    except (Exception, SystemExit) as error:  # foreign code raises anything, and a script may end its process
        raise ConfigError(f"{spec} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"{spec}: {factory}() gave a {type(made).__name__}, expected a torch.nn.Module")
    return made.eval()


def run_file(path: Path) -> ModuleType:
    """Run a file as a module that is called as the file is; what it raises comes out.

    Args:
        path: a file whose name ends in `.py`.
    """
    described = importlib.util.spec_from_file_location(path.stem, path)
    assert described is not None  # the name ends in .py
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    sys.modules[path.stem] = module  # dataclasses, among others, look there for the module that they are in
    described.loader.exec_module(module)
    return module


@contextmanager
def neighbours_of(path: Path) -> Iterator[None]:
    """Let a file import its neighbours, as when it is run, and forget them afterwards.

    What two files call `utils` or `models` is seldom the same: the second would silently get the first one's. So
    modules go that were found where the file lies, or in folders that it put on the path itself. The folders stay at
    the path's end, for what a network imports when it is first called.
    """
    modules, folders = sys.modules.copy(), sys.path.copy()
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        yield
    finally:
        new = [folder for folder in dict.fromkeys(sys.path) if folder not in folders]
        sys.path[:] = [*folders, *new]
        places = {Path(folder).resolve() for folder in new} | {path.parent.resolve()}
        imported = {name: module for name, module in sys.modules.copy().items() if modules.get(name) is not module}
        own = {name for name, module in imported.items() if "." not in name and _place(module) in places}
        for name in imported:
            if name.partition(".")[0] in own:
                del sys.modules[name]
                if name in modules:  # the file had taken its place
                    sys.modules[name] = modules[name]


def _place(module: ModuleType) -> Path | None:
    """The folder in which a module that is imported by its own name was found; None if it is in no folder."""
    file = getattr(module, "__file__", None)
    if file is not None:
        path = Path(file).resolve()
        return path.parent.parent if path.name == "__init__.py" else path.parent
    folders = list(getattr(module, "__path__", ()))  # of a package without __init__.py
    return Path(folders[0]).resolve().parent if folders else None
