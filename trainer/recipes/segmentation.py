"""Recipes of the student's training on each data set."""

from dataclasses import dataclass
from typing import Literal, get_args

from bsdnet.errors import ConfigError
from trainer.recipes.base import OptimizerRecipe

Distillation = Literal["none", "cwd", "ofa", "sidm"]


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe(OptimizerRecipe):
    """Training of the whole student: on labels, on a teacher, or on both.

    Raises:
        ConfigError: a field has a value that cannot work; the message names it.
    """

    crop_size: tuple[int, int]
    """Height and width of the training crops in pixels."""
    train_size: tuple[int, int]
    """Height and width that a whole picture has at scale 1 and in evaluation, kept as the weights' metadata."""
    scale_range: tuple[float, float] = (0.25, 1.5)  # the paper's
    """Smallest and largest random scale, relative to `train_size`, drawn log-uniformly."""
    flip_probability: float = 0.5  # the paper's
    """Probability of a horizontal flip."""
    dasp_rates: tuple[int, ...] = (6, 12, 18)  # the paper's
    """Rates of DASP's atrous convolutions in pixels at stride 32."""
    block: str = "fcb"  # the paper's
    """Block that closes stage 3 and forms stage 4; the others are the paper's table 4."""
    context: str = "dasp-avg"  # the paper's
    """Context module on stage 4; the others are the paper's table 5."""

    distill: Distillation = "sidm"  # the paper's
    """What is learnt from the teacher: features (`cwd`), logits (`ofa`), both (`sidm`), nothing (`none`)."""
    teachers: tuple[str, ...] = ()
    """Folders and Hugging Face names of teachers, and files of BSDNets; several form an ensemble."""
    theta: float = 1.5  # the paper's best
    """Exponent of OFA's target term (equation 7)."""
    temperature: float = 4.0  # ours; CWD's paper uses it for features
    """T of the channel-wise distributions (equation 4)."""
    cwd_weight: float = 15.0  # ours
    """Weight of the features' distillation beside the cross-entropy."""
    ofa_weight: float = 3.0  # ours
    """Weight of the logits' distillation beside the cross-entropy."""

    unlabelled_share: float = 0.25  # beyond the paper
    """Share of the crops that are of pictures without labels, where a run has such pictures (`--unlabelled`)."""
    further_share: float = 0.5  # beyond the paper
    """Share of the other crops that are of other data sets, where a run has such pictures (`--further`)."""
    color_jitter: float = 0.0  # beyond the paper, off
    """Strength of the random change of colours, 0 to 0.9; see `trainer.augment.jitter_colors`."""
    degradation: float = 0.0  # beyond the paper, off
    """Probability that a crop is degraded as by bad light, lens, sensor or compression; see `trainer.degrade`."""
    class_mix: float = 0.0  # beyond the paper, off
    """Probability that half of the classes of another crop are put over a crop; see `trainer.augment.paste_classes`."""
    class_weight_offset: float | None = None  # beyond the paper, off
    """c in the class weight `1 / ln(c + share of pixels)`; None weighs all classes alike."""
    ofa_class_weights: bool = False  # beyond the paper, off
    """Whether the logits' distillation weighs classes as the cross-entropy does (`class_weight_offset`)."""
    class_balance: float = 0.0  # beyond the paper, off
    """Share of the crops that are drawn to show a class, each class alike, instead of anywhere."""
    hard_pixel_share: float = 1.0  # beyond the paper, off
    """Share of the valid pixels, those of the largest loss, that the cross-entropy learns from; 1 takes all.

    With several processes or `accumulation` they are the hardest of each part of a step by itself.
    """
    lovasz_weight: float = 0.0  # beyond the paper, off
    """Weight of the Lovasz-softmax loss beside the cross-entropy; see `trainer.lovasz`. 0 has none.

    With several processes or `accumulation` it is that of each part of a step by itself, averaged.
    """
    auxiliary_weight: float = 0.0  # beyond the paper, off
    """Weight of the cross-entropy of an auxiliary head on stage 3, which exists in training only; 0 has none."""

    def __post_init__(self) -> None:
        """Reject values that cannot work."""
        super().__post_init__()
        for name in ("crop_size", "train_size"):
            if len(getattr(self, name)) != 2 or min(getattr(self, name)) < 32:
                raise ConfigError(f"{name} must be a height and a width of at least 32, got {getattr(self, name)}")
        if len(self.scale_range) != 2 or not 0 < self.scale_range[0] <= self.scale_range[1]:
            raise ConfigError(f"scale_range must be two growing numbers above 0, got {self.scale_range}")
        fractions = (
            "flip_probability",
            "degradation",
            "class_mix",
            "class_balance",
            "unlabelled_share",
            "further_share",
        )
        for name in fractions:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.color_jitter <= 0.9:
            raise ConfigError(f"color_jitter must be in [0, 0.9], got {self.color_jitter}")
        if self.class_weight_offset is not None and not self.class_weight_offset > 1:
            raise ConfigError(f"class_weight_offset must be greater than 1, got {self.class_weight_offset}")
        if self.ofa_class_weights and self.class_weight_offset is None:
            raise ConfigError("ofa_class_weights takes the weights of class_weight_offset, which is none")
        if self.distill not in get_args(Distillation):
            raise ConfigError(f"distill must be none, cwd, ofa or sidm, got {self.distill!r}")
        for name in ("theta", "temperature"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be greater than 0, got {getattr(self, name)}")
        for name in ("cwd_weight", "ofa_weight", "lovasz_weight", "auxiliary_weight"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 < self.hard_pixel_share <= 1:
            raise ConfigError(f"hard_pixel_share must be in (0, 1], got {self.hard_pixel_share}")


CITYSCAPES_SEG100 = SegmentationRecipe(
    iterations=160_000,  # ours
    batch_size=16,  # ours
    lr=4e-4,  # the paper's, as are weight decay, poly power, scales and flips above
    warmup_iterations=1500,  # ours
    crop_size=(1024, 1024),  # the paper's larger one
    train_size=(1024, 2048),
)
"""Cityscapes at 2048x1024."""

CITYSCAPES_SEG75 = SegmentationRecipe(
    iterations=160_000,  # ours
    batch_size=16,  # ours
    lr=4e-4,  # the paper's
    warmup_iterations=1500,  # ours
    crop_size=(512, 1024),  # one of the paper's two; which belongs to 1536x768 it does not say
    train_size=(768, 1536),
)
"""Cityscapes at 1536x768."""

CITYSCAPES_SEG50 = SegmentationRecipe(
    iterations=160_000,  # ours
    batch_size=16,  # ours
    lr=4e-4,  # the paper's
    warmup_iterations=1500,  # ours
    crop_size=(512, 1024),  # the paper's smaller one
    train_size=(512, 1024),
)
"""Cityscapes at 1024x512."""

CAMVID_720 = SegmentationRecipe(
    epochs=400,  # ours
    batch_size=16,  # ours
    lr=1e-3,  # the paper's
    warmup_iterations=200,  # ours
    crop_size=(720, 960),  # the paper's
    train_size=(720, 960),
)
"""CamVid at its original 960x720, trained on train + val in the paper."""

CAMVID_360 = SegmentationRecipe(
    epochs=160,  # ours: about 45 minutes for S on two CPU cores, without a teacher
    batch_size=8,  # ours
    lr=1e-3,  # the paper's
    warmup_iterations=200,  # ours
    crop_size=(352, 480),  # ours: less than half of an enlarged picture
    train_size=(540, 720),  # ours: enlarged 1.5 times, for what is thinner than the network's strides
    scale_range=(0.5, 2.0),  # ours: pictures 360 to 1440 pixels wide; the paper's are 240 to 1440
    color_jitter=0.4,  # ours: the test drives differ from the training drives in light
    class_weight_offset=1.1,  # ours
    dasp_rates=(2, 4, 6),  # ours: the paper's rates, scaled from its 32x32 map to 15x11
)
"""CamVid at 480x360, the recipe of the shipped weights; the model card says how they went on from its first run."""

ADE20K = SegmentationRecipe(
    iterations=160_000,  # ours
    batch_size=16,  # ours
    lr=5e-4,  # the paper's
    weight_decay=0.01,  # the paper's
    warmup_iterations=1500,  # ours
    crop_size=(512, 512),  # the paper's
    train_size=(512, 683),  # ours: pictures vary, and this is 4:3; their short side is brought to 512
)
"""ADE20K, 150 classes."""

FOLDER = SegmentationRecipe(
    epochs=160,
    batch_size=8,
    lr=1e-3,
    warmup_iterations=200,
    crop_size=(512, 512),
    train_size=(544, 960),  # shapes of pictures may vary: their short side is brought to 544
    scale_range=(0.5, 2.0),
    color_jitter=0.4,
    class_weight_offset=1.1,
)
"""One's own labelled pictures, some hundreds of them, as from a dashcam; all numbers ours, after those for CamVid."""

DEMO = SegmentationRecipe(
    epochs=4,
    batch_size=8,
    lr=1e-3,
    warmup_iterations=50,
    crop_size=(352, 480),
    train_size=(360, 480),
    scale_range=(0.5, 1.5),
)
"""The drawn street, to try the trainer without data; all numbers ours."""

UNLABELLED = SegmentationRecipe(
    epochs=10,
    batch_size=8,
    lr=2e-4,  # a fifth of what a fresh network learns with: this one knows its classes
    warmup_iterations=100,
    crop_size=(512, 512),
    train_size=(512, 1024),
    scale_range=(0.5, 1.5),
)
"""One's own videos and pictures without labels, learnt from a teacher alone; all numbers ours."""
