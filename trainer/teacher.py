"""Teachers: from pictures to features and logits, behind one protocol."""

from typing import NamedTuple, Protocol

from torch import Tensor


class TeacherChannels(NamedTuple):
    """Channels of a teacher's maps."""

    stage3: int
    stage4: int
    decoder: int


class TeacherOutput(NamedTuple):
    """What a student learns from; no gradient leads back."""

    stage3: Tensor
    """`(B, channels.stage3, H/16, W/16)`."""
    stage4: Tensor
    """`(B, channels.stage4, H/32, W/32)`."""
    decoder: Tensor
    """`(B, channels.decoder, H/4, W/4)`: the fused feature before the classifier."""
    logits: Tensor
    """`(B, classes, H/4, W/4)`, in the order of the student's classes."""


class Teacher(Protocol):
    """A network that is better than the student, in evaluation mode, and never learns."""

    @property
    def channels(self) -> TeacherChannels:
        """Channels of its maps."""
        ...

    def __call__(self, images: Tensor) -> TeacherOutput:
        """Look at pictures `(B, 3, H, W)`, RGB normalised with ImageNet's mean and deviation."""
        ...
