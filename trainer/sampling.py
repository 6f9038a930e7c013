"""The order of training examples as a function of the seed and the position alone, so that a run resumes exactly."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from trainer.distributed import Processes


class PositionSampler(Sampler[list[tuple[int, int]]]):
    """Batches of `(example, position)`, position counting every example that the run has drawn.

    Each pass over the data is a permutation of its own, drawn from the seed and the number of the pass. Batches run
    across the border between two passes, so none is smaller than the others. Several processes share each batch
    without overlap, and what it holds does not depend on how many they are.

    Args:
        num_examples: examples in the data set.
        batch_size: examples in a batch of all processes together, a multiple of their number.
        seed: seed of the permutations.
        start: first iteration; a resumed run starts where it was stopped.
        stop: iteration at which the batches end.
        processes: which share of each batch this process draws.
    """

    def __init__(
        self,
        num_examples: int,
        batch_size: int,
        *,
        seed: int,
        start: int,
        stop: int,
        processes: Processes = Processes(),  # noqa: B008 - frozen
    ) -> None:
        self._num_examples = num_examples
        self._batch_size = batch_size
        self._seed = seed
        self._start = start
        self._stop = stop
        self._share = batch_size // processes.count
        self._offset = processes.rank * self._share
        self._pass = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def __len__(self) -> int:
        return max(0, self._stop - self._start)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for iteration in range(self._start, self._stop):
            first = iteration * self._batch_size + self._offset
            yield [(self._example(position), position) for position in range(first, first + self._share)]

    def _example(self, position: int) -> int:
        number, offset = divmod(position, self._num_examples)
        if number != self._pass:
            self._pass = number
            self._order = np.random.default_rng((self._seed, number)).permutation(self._num_examples)
        return int(self._order[offset])
