"""SegFormer, the teacher's architecture, through Hugging Face transformers (the extra `train`).

Source: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", 2021.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from bsdnet.classes import ClassSet
from bsdnet.errors import ConfigError, TrainingError, first_line
from trainer.folder import write_folder

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


def import_transformers() -> Any:  # noqa: ANN401 - an optional package
    """Import transformers, and keep its messages and progress bars out of the run's own.

    Raises:
        TrainingError: it is missing, or cannot be imported.
    """
    try:
        import transformers
    except ImportError as error:
        raise TrainingError(
            f"SegFormer needs the package transformers ({error}): pip install 'bsdnet[train]'"
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return transformers


def segformer_config(variant: str, num_classes: int) -> "SegformerConfig":
    """Give the shape of one variant, as in table 6 of the SegFormer paper.

    Raises:
        ConfigError: there is no such variant.
        TrainingError: transformers is not installed.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"no SegFormer {variant!r}; expected one of {', '.join(VARIANTS)}")
    return import_transformers().SegformerConfig(
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
        self.network = import_transformers().SegformerForImageClassification(config)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised pictures `(B, 3, H, W)` to logits `(B, num_classes)`."""
        logits: Tensor = self.network(pixel_values=x).logits
        return logits

    def save(self, path: Path) -> None:
        """Write a folder that `bsdnet-train teacher --pretrained` and transformers read; its name is without suffix.

        Raises:
            TrainingError: the folder cannot be written.
        """
        write_folder(self.network.save_pretrained, path.with_suffix(""))


class SegFormerSegmenter(nn.Module):
    """SegFormer with its decoder, to be trained as a teacher.

    Args:
        variant: one of `VARIANTS`.
        classes: what the logits mean; kept with the weights, as is `train_size`.
        train_size: height and width of the training pictures: the scale that the network sees objects at.

    Raises:
        ConfigError: there is no such variant.
        TrainingError: transformers is not installed.
    """

    def __init__(self, variant: str, classes: ClassSet, train_size: tuple[int, int]) -> None:
        super().__init__()
        config = segformer_config(variant, len(classes))
        config.id2label = dict(enumerate(classes.names))
        config.label2id = {name: index for index, name in enumerate(classes.names)}
        config.bsdnet_train_size = list(train_size)
        self.network = import_transformers().SegformerForSemanticSegmentation(config)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised pictures `(B, 3, H, W)` to logits `(B, num_classes, H/4, W/4)`."""
        logits: Tensor = self.network(pixel_values=x).logits
        return logits

    def head_parameters(self) -> list[nn.Parameter]:
        """Give the decoder's parameters, which start from random weights unless a trained network is gone on from."""
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
            config = encoder.config
            raise TrainingError(
                f"the encoder {name} has another shape than the model: {config.depths} blocks of {config.hidden_sizes} "
                "channels; pass a --pretrained of the same variant"
            ) from error

    def go_on_from(self, name: str) -> None:
        """Take over the weights of a trained one, whole.

        Args:
            name: folder that `save` wrote, or a Hugging Face name.

        Raises:
            TrainingError: it cannot be loaded, or is another variant's.
            ConfigError: it was trained on other classes.
        """
        other = load_pretrained("SegformerForSemanticSegmentation", name)
        names, own = (_class_names(config) for config in (other.config, self.network.config))
        if names != own:
            raise ConfigError(f"{name} was trained on other classes: {', '.join(names)}")
        try:
            self.network.load_state_dict(other.state_dict(), strict=True)
        except RuntimeError as error:
            shape = f"{other.config.depths} blocks of {other.config.hidden_sizes} channels"
            raise TrainingError(f"{name} has another shape than the model: {shape}; say --model") from error

    def save(self, folder: Path) -> None:
        """Write a folder that `trainer.teacher.load_teacher` and transformers read.

        Raises:
            TrainingError: it cannot be written.
        """
        write_folder(self.network.save_pretrained, folder)


def train_size_in(config: "SegformerConfig") -> tuple[int, int] | None:
    """Read the height and width of the training pictures; None where `bsdnet-train` has not written it."""
    match getattr(config, "bsdnet_train_size", None):
        case [int(height), int(width)] if min(height, width) > 0:
            return height, width
    return None


def _class_names(config: "SegformerConfig") -> list[str]:
    """Give the classes in their order, as published lists are compared: without case and surrounding spaces."""
    return [config.id2label[index].strip().lower() for index in range(config.num_labels)]


def load_pretrained(kind: str, name: str) -> Any:  # noqa: ANN401 - transformers is optional
    """Load a model of transformers, all of whose weights have to be there.

    Args:
        kind: name of its class.
        name: a folder, or a Hugging Face name, which is downloaded unless it is in the cache.

    Raises:
        TrainingError: transformers is not installed, or the model cannot be found, read, or is another one.
    """
    transformers = import_transformers()
    is_folder = Path(name).is_dir()
    if not is_folder and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise TrainingError(f"there is no folder {name}")
    try:
        found_type = transformers.SegformerConfig.get_config_dict(name)[0].get("model_type", "segformer")
        if found_type != "segformer":
            raise ValueError(f"it is a {found_type}")
        model, found = getattr(transformers, kind).from_pretrained(
            name,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # it raises whatever its parts do: OSError, ValueError, safetensors' own
        reason = first_line(error)
        where = f"the folder {name}" if is_folder else f"{name} is no folder here, and from Hugging Face it"
        raise TrainingError(f"{where} cannot be loaded as a SegFormer: {reason}") from error
    for problem in ("missing_keys", "mismatched_keys", "unexpected_keys"):  # which transformers passes over
        keys = sorted(key if isinstance(key, str) else key[0] for key in found[problem])
        keys = [key for key in keys if not key.endswith("num_batches_tracked")]  # a counter that nothing depends on
        if keys:
            problem = f"{len(keys)} {problem.replace('_', ' ')}, such as {keys[0]}"
            raise TrainingError(f"the weights of {name} do not make a {kind}: {problem}")
    return model.float()  # weights kept in half precision would stay in it
