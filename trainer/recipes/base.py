"""What all recipes share: AdamW, its schedule, and the arithmetic of a step."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

from bsdnet.errors import ConfigError

Precision = Literal["bf16", "fp16", "fp32"]


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe:
    """AdamW with linear warm-up and polynomial decay.

    Raises:
        ConfigError: a field has a value that cannot work; the message names it.
    """

    model: str = "s"
    """Network: `s` or `b`, or where a teacher is trained one of its variants, such as `segformer-b1`."""
    iterations: int | None = None
    """Steps of the run; exactly one of `iterations` and `epochs` is given."""
    epochs: int | None = None
    """Passes over the data set."""
    batch_size: int
    """Pictures in a step, over all processes together."""
    accumulation: int = 1
    """Parts that each process computes its share of a step in, one after the other, to save memory."""
    lr: float
    """Peak learning rate."""
    weight_decay: float = 0.0125  # the paper's
    """AdamW's decay of the convolution kernels; batch norm and biases have none."""
    poly_power: float = 0.9  # the paper's
    """Power of the polynomial decay to zero."""
    warmup_iterations: int
    """Steps of linear warm-up."""
    clip_grad_norm: float = 5.0  # ours
    """Largest L2 norm of all gradients together."""
    label_smoothing: float = 0.0  # ours
    """Share of the target that is spread over all classes."""
    ema_decay: float = 0.0
    """Decay of the weights' exponential moving average, which is evaluated and kept; 0 keeps the weights themselves."""
    precision: Precision = "bf16"  # ours
    """Number format of autocast; `fp32` computes without.

    The command takes `fp32` instead where the device does not compute in bf16 itself.
    """
    channels_last: bool = True  # ours
    """Memory order of pictures and kernels; False is PyTorch's default order, which convolutions are slower in."""
    seed: int = 0
    """Seed of the initial weights, the order of the data and every augmentation."""

    def __post_init__(self) -> None:
        """Reject values that cannot work."""
        if (self.iterations is None) == (self.epochs is None):
            raise ConfigError(
                f"exactly one of iterations and epochs must be given, got {self.iterations} and {self.epochs}"
            )
        for name, low in (
            ("iterations", 1), ("epochs", 1), ("batch_size", 2), ("accumulation", 1), ("warmup_iterations", 0),
            ("seed", 0),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"{name} must be at least {low}, got {value}")
        if self.seed >= 2**63:
            raise ConfigError(f"seed must be below 2**63, got {self.seed}")
        for name in ("lr", "poly_power", "clip_grad_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be greater than 0, got {getattr(self, name)}")
        if not self.weight_decay >= 0:
            raise ConfigError(f"weight_decay must be at least 0, got {self.weight_decay}")
        for name in ("label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision must be bf16, fp16 or fp32, got {self.precision!r}")


def iterations_of(recipe: OptimizerRecipe, num_examples: int) -> int:
    """Count the steps of a run: incomplete batches do not exist, an epoch's rest goes into the next."""
    if recipe.iterations is not None:
        return recipe.iterations
    return max(1, (recipe.epochs or 1) * num_examples // recipe.batch_size)


def recipe_as_dict(recipe: OptimizerRecipe) -> dict[str, object]:
    """Give the recipe's fields as plain values, as they are written beside a run."""
    return dataclasses.asdict(recipe)
