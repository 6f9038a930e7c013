"""SegFormer, the teacher's architecture, through Hugging Face transformers (the extra `train`).

Source: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", 2021.
"""

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from bsdnet.classes import ClassSet
from bsdnet.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from transformers import SegformerConfig

VARIANTS = ("segformer-b0", "segformer-b1", "segformer-b2", "segformer-b3", "segformer-b4", "segformer-b5")
"""The sizes of the SegFormer paper, small to large."""

_WIDTHS = {"segformer-b0": (32, 64, 160, 256)}
_DEPTHS = {
    "segformer-b0": (2, 2, 2, 2),
    "segformer-b1": (2, 2, 2, 2),
    "segformer-b2": (3, 4, 6, 3),
    "segformer-b3": (3, 4, 18, 3),
    "segformer-b4": (3, 8, 27, 3),
    "segformer-b5": (3, 6, 40, 3),
}


def require_transformers() -> None:
    """Say how to install transformers where it is missing.

    Raises:
        TrainingError: it is missing.
    """
    if importlib.util.find_spec("transformers") is None:
        raise TrainingError("SegFormer needs the package transformers: pip install 'bsdnet[train]'")


def segformer_config(variant: str, num_classes: int) -> "SegformerConfig":
    """Give the shape of one variant, as in table 6 of the SegFormer paper.

    Raises:
        ConfigError: there is no such variant.
        TrainingError: transformers is not installed.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"no SegFormer {variant!r}; expected one of {', '.join(VARIANTS)}")
    require_transformers()
    from transformers import SegformerConfig

    return SegformerConfig(
        num_labels=num_classes,
        hidden_sizes=list(_WIDTHS.get(variant, (64, 128, 320, 512))),
        depths=list(_DEPTHS[variant]),
        decoder_hidden_size=256 if variant in ("segformer-b0", "segformer-b1") else 768,
        semantic_loss_ignore_index=255,
    )


class SegFormerClassifier(nn.Module):
    """SegFormer's encoder with a classifier, for pretraining.

    Args:
        variant: one of `VARIANTS`.
        num_classes: classes to tell apart.

    Raises:
        ConfigError: there is no such variant.
        TrainingError: transformers is not installed.
    """

    def __init__(self, variant: str, num_classes: int) -> None:
        super().__init__()
        config = segformer_config(variant, num_classes)
        from transformers import SegformerForImageClassification

        self.network = SegformerForImageClassification(config)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised pictures `(B, 3, H, W)` to logits `(B, num_classes)`."""
        logits: Tensor = self.network(pixel_values=x).logits
        return logits

    def save(self, path: Path) -> None:
        """Write a folder that `bsdnet-train teacher --pretrained` and transformers read; its name is without suffix.

        Raises:
            TrainingError: the folder cannot be written.
        """
        save_folder(self.network, path.with_suffix(""))


def save_folder(network: Any, folder: Path) -> None:  # noqa: ANN401 - transformers is optional
    """Write a transformers model as a folder that is there whole or not at all.

    Raises:
        TrainingError: the folder cannot be written.
    """
    try:
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            partial.chmod(0o755)
            network.save_pretrained(partial)
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written: {error.strerror or error}") from error


class SegFormerSegmenter(nn.Module):
    """SegFormer with its decoder, to be trained as a teacher.

    Args:
        variant: one of `VARIANTS`.
        classes: what the logits mean; kept with the weights.

    Raises:
        ConfigError: there is no such variant.
        TrainingError: transformers is not installed.
    """

    def __init__(self, variant: str, classes: ClassSet) -> None:
        super().__init__()
        config = segformer_config(variant, len(classes))
        config.id2label = dict(enumerate(classes.names))
        config.label2id = {name: index for index, name in enumerate(classes.names)}
        from transformers import SegformerForSemanticSegmentation

        self.network = SegformerForSemanticSegmentation(config)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised pictures `(B, 3, H, W)` to logits `(B, num_classes, H/4, W/4)`."""
        logits: Tensor = self.network(pixel_values=x).logits
        return logits

    def head_parameters(self) -> list[nn.Parameter]:
        """Give the decoder's parameters, which start from random weights."""
        return list(self.network.decode_head.parameters())

    def load_encoder(self, name: str) -> None:
        """Take over a pretrained encoder, whole.

        Args:
            name: folder from `bsdnet-train pretrain`, or a Hugging Face name such as `nvidia/mit-b2`.

        Raises:
            TrainingError: it cannot be loaded, or has another shape.
        """
        encoder = load_pretrained("SegformerForImageClassification", name).segformer
        try:
            self.network.segformer.load_state_dict(encoder.state_dict(), strict=True)
        except RuntimeError as error:
            raise TrainingError(f"the encoder {name} is not that of the model: it has another shape") from error

    def save(self, folder: Path) -> None:
        """Write a folder that `trainer.teacher.load_teacher` and transformers read.

        Raises:
            TrainingError: it cannot be written.
        """
        save_folder(self.network, folder)


def load_pretrained(kind: str, name: str) -> Any:  # noqa: ANN401 - transformers is optional
    """Load a model of transformers, all of whose weights have to be there.

    Args:
        kind: name of its class.
        name: a folder, or a Hugging Face name, which is downloaded unless it is in the cache.

    Raises:
        TrainingError: transformers is not installed, or the model cannot be found, read, or is another one.
    """
    require_transformers()
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        model, found = getattr(transformers, kind).from_pretrained(name, output_loading_info=True)
    except Exception as error:  # it raises whatever its parts do: OSError, ValueError, safetensors' own
        reason = " ".join(str(error).split())
        raise TrainingError(f"{name} cannot be loaded as a SegFormer: {reason[:200]}") from error
    for problem in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if found.get(problem):
            first = sorted(map(str, found[problem]))[0]
            raise TrainingError(
                f"{name} is no {kind} of its configuration: {len(found[problem])} {problem.replace('_', ' ')}, such as "
                f"{first}"
            )
    return model
