"""What is measured: our networks, and anybody's."""

import copy
import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bsdnet.checkpoint import Checkpoint, CheckpointMetadata, default_weights, load_checkpoint
from bsdnet.classes import CITYSCAPES_19
from bsdnet.errors import ConfigError
from bsdnet.foreign import factory_of, file_of, load_module, names_factory
from bsdnet.modeling import BSDNet
from bsdnet.modeling.bsdnet import B_CONFIG, S_CONFIG

logger = logging.getLogger(__name__)

CONFIGS = {"s": S_CONFIG, "b": B_CONFIG}
_TRAIN_SIZE = (1024, 2048)  # of random weights; every measurement names its own size


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network to be measured."""

    name: str
    """For the table."""
    spec: str
    """What `load_candidate` made it of."""
    model: nn.Module
    """In evaluation mode, fp32, on the CPU."""
    weights: str
    """Where its weights are from, and what it tells apart."""
    checkpoint: Checkpoint | None = None
    """Of ours; None of a foreign one, which can only be measured alone."""

    @property
    def parameters(self) -> int:
        """How many parameters the network has, nothing folded."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def load_candidate(spec: str) -> Candidate:
    """Load what the command line names.

    Args:
        spec: `s` or `b` for the weights that ship; such a letter, a colon and `block=NAME` or `context=NAME` for one of
            the paper's alternatives, with random weights of 19 classes; FILE.py:FACTORY; or a weights file.

    Raises:
        ConfigError: FILE.py:FACTORY cannot be loaded, or there is no such alternative.
        CheckpointError: the weights cannot be loaded.
    """
    if names_factory(spec):
        return _foreign(spec)
    name, _, change = spec.partition(":")
    if change and name in CONFIGS:
        field, _, value = change.partition("=")
        if field not in ("block", "context"):
            raise ConfigError(f"{spec} names no alternative; expected {name}:block=NAME or {name}:context=NAME")
        return _random(spec, value, BSDNet(replace(CONFIGS[name], **{field: value})), name)  # type: ignore[arg-type]
    if name not in CONFIGS:
        checkpoint = load_checkpoint(Path(spec))
        return _ours(spec, Path(spec).stem, checkpoint, Path(spec).name)
    shipped = default_weights(name)
    return _ours(spec, f"BSDNet-{name.upper()}", load_checkpoint(shipped), shipped.name)


def load_candidates(specs: Iterable[str]) -> list[Candidate]:
    """Load all that the command line names; see `load_candidate`.

    Files that are called alike, as `last.safetensors` of two runs, and functions of two files get the names of as many
    folders in front as it takes to tell them apart.
    """
    candidates = [load_candidate(spec) for spec in specs]
    named = list(candidates)
    for depth in range(1, max((len(_parts(candidate)) for candidate in candidates), default=0) + 1):
        specs_of: dict[str, set[str]] = {}
        for candidate in named:
            specs_of.setdefault(candidate.name, set()).add(candidate.spec)
        named = [
            replace(new, name=_long_name(candidate, depth)) if len(specs_of[new.name]) > 1 else new
            for new, candidate in zip(named, candidates, strict=True)
        ]
    return named


def count_macs(model: nn.Module, size: tuple[int, int]) -> int | None:
    """Count multiply-accumulates of one picture: those of convolutions and matrix products, nothing else.

    Nothing is computed: the network runs on tensors without values.

    Args:
        model: any network.
        size: height and width of the input.

    Returns:
        The count, or None if the network needs values to run.
    """
    try:
        hollow = copy.deepcopy(model).to("meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            hollow(torch.empty(1, 3, *size, device="meta"))
    except Exception as error:  # a foreign network may do anything with its input
        logger.debug("multiply-accumulates cannot be counted", exc_info=error)
        return None
    return int(counter.get_total_flops()) // 2  # it counts a multiplication and an addition as two


def fold_foreign(model: nn.Module) -> nn.Module | None:
    """Fold batch norms into the convolutions before them, wherever the network's code puts them.

    Returns:
        A folded copy, or None if torch.fx cannot trace the network.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what torch.fx itself imports
        from torch.fx.experimental.optimization import fuse
    try:
        folded: nn.Module = fuse(model)
    except Exception:  # whatever a network does that cannot be traced
        return None
    return folded


def _parts(candidate: Candidate) -> tuple[str, ...]:
    """The path of the file that a candidate is from, without its suffix; empty if it is from none."""
    if candidate.spec in CONFIGS:
        return ()
    file = file_of(candidate.spec) if names_factory(candidate.spec) else Path(candidate.spec)
    return file.with_suffix("").parts


def _long_name(candidate: Candidate, depth: int) -> str:
    """A candidate's name with the last `depth` parts of its path."""
    path = "/".join(_parts(candidate)[-depth:])
    return f"{path}:{candidate.name}" if names_factory(candidate.spec) else path or candidate.name


def _ours(spec: str, name: str, checkpoint: Checkpoint, weights: str) -> Candidate:
    described = f"{weights}, {len(checkpoint.metadata.class_set)} classes"
    return Candidate(name=name, spec=spec, model=checkpoint.model, weights=described, checkpoint=checkpoint)


def _random(spec: str, name: str, model: BSDNet, letter: str) -> Candidate:
    metadata = CheckpointMetadata(architecture=f"bsdnet_{letter}", class_set=CITYSCAPES_19, train_size=_TRAIN_SIZE)
    return _ours(spec, name, Checkpoint(model=model.eval(), metadata=metadata), "random")


def _foreign(spec: str) -> Candidate:
    try:
        model = load_module(spec)
    except ConfigError as error:
        raise ConfigError(f"--module {error}") from error
    return Candidate(name=factory_of(spec), spec=spec, model=model, weights="its own")
