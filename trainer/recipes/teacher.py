"""Recipes of a teacher's own training."""

from dataclasses import dataclass, fields

from bsdnet.errors import ConfigError
from trainer.recipes.segmentation import Distillation, SegmentationRecipe

_STUDENTS = frozenset({
    "dasp_rates", "block", "context", "auxiliary_weight",
    "teachers", "theta", "temperature", "cwd_weight", "ofa_weight", "ofa_class_weights", "unlabelled_share",
})  # fmt: skip
"""Fields that shape a student, or say how it learns from a teacher: nothing reads them where a teacher is trained."""


@dataclass(frozen=True, kw_only=True)
class TeacherRecipe(SegmentationRecipe):
    """Supervised training of a SegFormer or an EfficientNet on labelled pictures.

    Raises:
        ConfigError: a field has a value that cannot work; the message names it.
    """

    model: str = "segformer-b2"
    """One of `trainer.segformer.VARIANTS` or `trainer.efficientnet.EFFICIENTNETS`."""
    distill: Distillation = "none"
    """A teacher learns from labels: `none`."""
    head_lr_factor: float = 10.0  # the SegFormer paper's
    """Learning rate of the decoder, which starts from random weights unless a trained teacher is gone on from, as a
    multiple of the encoder's."""

    def __post_init__(self) -> None:
        """Reject values that cannot work."""
        super().__post_init__()
        if self.distill != "none":
            raise ConfigError(f"distill must be none for a teacher, got {self.distill!r}")
        for field in fields(self):
            if field.name in _STUDENTS and getattr(self, field.name) != field.default:
                value = getattr(self, field.name)
                raise ConfigError(f"{field.name} is a student's, and a teacher has none: leave it out, got {value!r}")
        if not self.head_lr_factor > 0:
            raise ConfigError(f"head_lr_factor must be greater than 0, got {self.head_lr_factor}")


TEACHER_CAMVID_360 = TeacherRecipe(
    model="segformer-b1",
    epochs=24,  # about 35 minutes on two CPU cores
    batch_size=8,
    lr=2e-4,
    head_lr_factor=5.0,
    weight_decay=0.01,  # the SegFormer paper's
    warmup_iterations=100,
    crop_size=(352, 480),
    train_size=(540, 720),  # the student's, which shows it its crops
    scale_range=(0.5, 2.0),
    color_jitter=0.4,
    class_weight_offset=1.1,
)
"""A small teacher for CamVid at 480x360, from an encoder that saw Tiny-ImageNet; ours but for what is marked."""


def teacher_recipe(student: SegmentationRecipe) -> TeacherRecipe:
    """Take over the crops, scales and steps of a student's recipe, with the SegFormer paper's rates."""
    return TeacherRecipe(
        iterations=student.iterations,
        epochs=student.epochs,
        batch_size=student.batch_size,
        lr=6e-5,
        weight_decay=0.01,
        warmup_iterations=student.warmup_iterations,
        crop_size=student.crop_size,
        train_size=student.train_size,
        scale_range=student.scale_range,
    )
