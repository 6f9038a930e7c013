"""How far a measurement is."""

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm


class Rounds:
    """A bar over the rounds, where there is a terminal for it.

    Args:
        total: how many there will be.
    """

    def __init__(self, total: int) -> None:
        self._bar = tqdm(
            total=total, unit=" rounds", file=sys.stderr, disable=not sys.stderr.isatty(), dynamic_ncols=True,
            leave=False,
        )  # fmt: skip

    def step(self) -> None:
        """Count a round."""
        self._bar.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
