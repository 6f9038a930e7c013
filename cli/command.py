"""What every command does around its work: errors as one line, closed streams, log messages, broken installations."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import click

from bsdnet.errors import BsdnetError, ConfigError, one_line

logger = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USAGE = 2


def run_command(command: click.Command, name: str, arguments: Sequence[str] | None) -> NoReturn:
    """Run a command and exit: errors that a user can mend are one line on stderr.

    Args:
        command: what it returns is the exit code; None is 0.
        name: what the user calls it.
        arguments: None for those of the process.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _open_missing_streams()
    try:
        code = command.main(arguments, prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = 128 + signal.SIGINT
    except (BsdnetError, OSError) as error:
        if "--debug" in arguments:
            raise
        click.echo(f"{name}: error: {one_line(error)}", err=True)
        code = EXIT_USAGE if isinstance(error, ConfigError) else EXIT_ERROR
    sys.exit(EXIT_OK if code is None else code)


def configure_logging(name: str, *, debug: bool, level: int = logging.NOTSET) -> None:
    """Send warnings to stderr under the command's name, and name an installation that is broken.

    Args:
        name: the command's.
        debug: show all that bsdnet logs, with times.
        level: show what bsdnet itself logs from this level on; by default, warnings like everybody's.
    """
    from cli.terminal import LogHandler  # help and errors of usage do without what it needs

    logging.basicConfig(level=logging.WARNING, handlers=[LogHandler(name, debug=debug)], force=True)
    for package in ("bsdnet", "cli"):
        logging.getLogger(package).setLevel(logging.DEBUG if debug else level)
    logging.getLogger("bsdnet.runtime.engine_cache").setLevel(logging.INFO)  # building can take minutes: say so
    _warn_of_two_opencvs()


def _open_missing_streams() -> None:
    """Put the null device where stdin, stdout or stderr is closed, or the next file that is opened takes its place."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w"))  # noqa: SIM115


def _warn_of_two_opencvs() -> None:
    """Name a broken installation before it shows itself as a crash."""
    installed = {name for name in ("opencv-python", "opencv-contrib-python") if _is_installed(name)}
    if installed and _is_installed("opencv-python-headless"):
        logger.warning(
            "%s and opencv-python-headless are both installed and overwrite each other's files; "
            "uninstall both and install opencv-python-headless again",
            " and ".join(sorted(installed)),
        )


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
