"""How far a measurement is."""

import logging
import sys
from types import TracebackType
from typing import Self

import click
from tqdm import tqdm

logger = logging.getLogger(__name__)


class Rounds:
    """A bar over the rounds, where there is a terminal for it.

    Args:
        total: how many there will be.
    """

    done = 0
    """How many there were."""

    def __init__(self, total: int) -> None:
        self._bar = tqdm(
            total=total, unit=" rounds", file=sys.stderr, disable=not sys.stderr.isatty(), dynamic_ncols=True,
            leave=False,
        )  # fmt: skip

    def step(self) -> None:
        """Count a round."""
        self.done += 1
        self._bar.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()


def require_all(done: int, asked: int) -> None:
    """Say, after the table is written, that Ctrl-C has left it fewer rounds than were asked for, and stop.

    Raises:
        click.Abort: it has.
    """
    if done < asked:
        logger.warning("interrupted: the figures are of %d of %d rounds", done, asked)
        raise click.Abort
