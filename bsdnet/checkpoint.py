"""Weights on disk: safetensors with everything that is needed to use them, never pickle."""

import hashlib
import json
import math
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bsdnet.classes import ClassSet
from bsdnet.errors import CheckpointError, ConfigError
from bsdnet.modeling.bsdnet import Backbone, BSDNet, BSDNetConfig

FORMAT = "bsdnet-1"
"""The value of the `format` key: the layout that this module reads and writes."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of RGB scaled to 0..1, as is customary for pretrained networks."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of RGB scaled to 0..1."""
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.int64)  # the last: how many batches a batch norm saw


@dataclass(frozen=True, kw_only=True)
class CheckpointMetadata:
    """What a network's weights mean."""

    architecture: str
    """`bsdnet_s` or `bsdnet_b`, for people; the shape itself is the network's configuration."""
    class_set: ClassSet
    """Names and colours of the output channels."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of the training pictures' RGB, scaled to 0..1."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation of the training pictures' RGB, scaled to 0..1."""
    train_size: tuple[int, int]
    """Height and width of the training pictures: the scale that the network sees objects at."""

    def __post_init__(self) -> None:
        """Reject what no picture can be prepared with."""
        for name, count, low in (("mean", 3, -math.inf), ("std", 3, 0), ("train_size", 2, 0)):
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else ()
            right = [isinstance(number, int | float) and low < number < math.inf for number in numbers]
            if len(right) != count or not all(right):
                raise ConfigError(f"{name} must be {count} numbers{' above 0' if low == 0 else ''}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network with its weights and what they mean."""

    model: BSDNet
    """In evaluation mode, fp32, on the CPU."""
    metadata: CheckpointMetadata
    """What the output channels are, and how to prepare the input."""


def default_weights(name: str = "s") -> Path:
    """Find weights that ship with the package.

    Args:
        name: `s` or `b` for BSDNet-S or -B on CamVid's 11 classes.

    Raises:
        CheckpointError: no such weights ship.
    """
    folder = Path(__file__).parent / "weights"
    path = folder / f"bsdnet-{name}-camvid.safetensors"
    if not path.is_file():
        shipped = ", ".join(sorted(found.name.split("-")[1] for found in folder.glob("*.safetensors"))) or "none"
        raise CheckpointError(f"no weights {name!r} ship with bsdnet; shipped: {shipped}; or give a .safetensors file")
    return path


def save_checkpoint(path: Path, model: BSDNet, metadata: CheckpointMetadata) -> None:
    """Write a network: kernels in fp16, batch norms and biases in fp32; the file is there whole or not at all.

    Raises:
        CheckpointError: the file cannot be written, or a weight is not finite in fp16.
    """
    texts = {
        "kind": "network",
        "architecture": metadata.architecture,
        "config": json.dumps(asdict(model.config)),
        "class_set": json.dumps(asdict(metadata.class_set)),
        "preprocessing": json.dumps({"mean": metadata.mean, "std": metadata.std, "train_size": metadata.train_size}),
    }
    _write(path, model.state_dict(), texts)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a network.

    Raises:
        CheckpointError: the file is missing, broken, foreign, or its tensors do not fit the shape it names.
    """
    tensors, texts = _read(path, "network")
    try:
        model = BSDNet(BSDNetConfig(**_tuples(json.loads(texts["config"]))))
        metadata = CheckpointMetadata(
            architecture=texts["architecture"],
            class_set=ClassSet(**_tuples(json.loads(texts["class_set"]))),
            **_tuples(json.loads(texts["preprocessing"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError, ConfigError) as error:
        # PyTorch's RuntimeError: a damaged number asks for more memory than there is.
        raise CheckpointError(f"{path} has bsdnet's format, but its metadata cannot be used: {error}") from error
    if len(metadata.class_set) != model.config.num_classes:
        raise CheckpointError(
            f"{path} names {len(metadata.class_set)} classes for a network of {model.config.num_classes}"
        )
    _load_strictly(path, model, tensors)
    return Checkpoint(model=model.eval(), metadata=metadata)


def holds_backbone(path: Path) -> bool:
    """Tell a pretrained backbone's file from a whole network's, and from what `load_checkpoint` will refuse."""
    try:
        with safe_open(path, framework="pt") as opened:
            return (opened.metadata() or {}).get("kind") == "backbone"
    except (SafetensorError, OSError):
        return False


def sha256_of(path: Path) -> str:
    """Name a file of weights by its content, so that a result can say whose it is.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"the weights file {path} cannot be read: {error.strerror or error}") from error


def save_backbone(path: Path, backbone: Backbone, architecture: str) -> None:
    """Write a pretrained backbone, as `save_checkpoint` writes a network.

    Raises:
        CheckpointError: the file cannot be written, or a weight is not finite in fp16.
    """
    _write(path, backbone.state_dict(), {"kind": "backbone", "architecture": architecture})


def load_backbone(path: Path, backbone: Backbone) -> None:
    """Read a pretrained backbone's weights into one of the same shape.

    Raises:
        CheckpointError: the file is missing, broken, foreign, or made for another shape.
    """
    tensors, _ = _read(path, "backbone")
    _load_strictly(path, backbone, tensors)


def backbone_architecture(path: Path) -> str:
    """Name the network that a pretrained backbone belongs to, such as `bsdnet_s`; empty if the file does not say.

    Raises:
        CheckpointError: the file is missing, broken or foreign.
    """
    return _read(path, "backbone")[1].get("architecture", "")


def _write(path: Path, state: dict[str, Tensor], texts: dict[str, str]) -> None:
    tensors = {name: as_stored(name, tensor) for name, tensor in state.items()}
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as handle:
            partial = Path(handle.name)
        try:
            save_file(tensors, partial, {"format": FORMAT, **texts})
            partial.chmod(0o644)
            with partial.open("rb+") as written:  # Windows flushes only what may be written
                os.fsync(written.fileno())  # whole on disk before it takes the name, also if the power fails
            os.replace(partial, path)  # noqa: PTH105 - the name says what it guarantees
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"weights cannot be written to {path}: {reason}") from error


def as_stored(name: str, tensor: Tensor) -> Tensor:
    """Give a weight as files hold it, on the CPU: kernels in fp16, what has one dimension as it is.

    Raises:
        CheckpointError: it is not finite in fp16.
    """
    if tensor.ndim <= 1:
        return tensor.detach().cpu().contiguous()
    half = tensor.detach().cpu().half().contiguous()
    if not half.isfinite().all():
        raise CheckpointError(f"weights of {name} are not finite in fp16")
    return half


def _read(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"the weights file {path} {problem}; expected a .safetensors file made by bsdnet-train")
    try:
        path.open("rb").close()  # safetensors does not say why it cannot read
    except OSError as error:
        raise CheckpointError(f"the weights file {path} cannot be read: {error.strerror or error}") from error
    try:
        with safe_open(path, framework="pt") as opened:
            texts: dict[str, str] = opened.metadata() or {}
            names = list(opened.keys())
            tensors = {name: opened.get_tensor(name) for name in names} if texts.get("format") == FORMAT else {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no safetensors file, or it is damaged: {error}") from error
    if texts.get("format") != FORMAT:
        raise CheckpointError(f"{path} holds weights of another program; expected a file made by bsdnet-train")
    if texts.get("kind") != kind:
        raise CheckpointError(f"{path} holds a {texts.get('kind')}, expected a {kind}")
    return tensors, texts


def _load_strictly(path: Path, module: torch.nn.Module, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise CheckpointError(f"{path} holds {name} as {tensor.dtype}; expected fp16, bf16 or fp32")
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path} is damaged: {name} is not finite")
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{path} holds weights of another shape: {' '.join(str(error).split())[:300]}") from error


def _tuples(value: dict[str, Any]) -> dict[str, Any]:
    """Turn JSON's lists back into tuples."""
    return {key: _as_tuple(item) for key, item in value.items()}


def _as_tuple(value: Any) -> Any:  # noqa: ANN401 - JSON holds anything
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value
