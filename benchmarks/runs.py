"""Folders of runs, which a benchmark goes on with when it is started again."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

_FILE = "command.json"


def keep_to_command(folder: Path, command: Sequence[str]) -> None:
    """Hold a folder to the command that its run was begun with: else its score would be reported as another's.

    Args:
        folder: the run's; made if missing.
        command: arguments of the training, without the folder.

    Raises:
        click.ClickException: it holds the run of another command.
    """
    file = folder / _FILE
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(list(command)) + "\n")
    elif json.loads(file.read_text()) != list(command):
        raise click.ClickException(f"{folder} holds the run of another command, see {_FILE} there: give another --runs")
