"""The data sets by the names of the command line: their splits, their recipes, and what a run does with them."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bsdnet.checkpoint import load_checkpoint
from bsdnet.classes import IGNORE_INDEX, ClassSet
from bsdnet.errors import ConfigError, DatasetError, TrainingError
from trainer import recipes
from trainer.datasets.ade20k import ADE20K
from trainer.datasets.camvid import CamVid, CamVidOriginal
from trainer.datasets.cityscapes import Cityscapes
from trainer.datasets.combining import Part, Relabelled, Together
from trainer.datasets.contract import LabelledImages
from trainer.datasets.demo import DemoStreet
from trainer.datasets.folder import LabelledFolder
from trainer.datasets.labelmefacade import LabelMeFacade
from trainer.datasets.mosaic import Mosaics
from trainer.datasets.video import UnlabelledImages, is_medium
from trainer.evaluation import EvaluationOptions, segment
from trainer.recipes import SegmentationRecipe, TeacherRecipe
from trainer.segmentation import SegmentationData
from trainer.teacher import Teacher, read_class_mapping

DATASETS = ("cityscapes", "camvid", "ade20k", "folder", "demo", "video")
"""The names of `--dataset`; `folder` is one's own labelled pictures, `video` one's own without labels."""

FURTHER = ("labelmefacade", "cityscapes", "camvid", "ade20k", "folder")
"""The names of `--further`."""

SPLITS = ("train", "val", "test", "trainval")
"""The names of `--eval`."""

RECIPES: dict[str, SegmentationRecipe] = {
    "cityscapes-seg100": recipes.CITYSCAPES_SEG100,
    "cityscapes-seg75": recipes.CITYSCAPES_SEG75,
    "cityscapes-seg50": recipes.CITYSCAPES_SEG50,
    "camvid-720": recipes.CAMVID_720,
    "camvid-360": recipes.CAMVID_360,
    "ade20k": recipes.ADE20K,
    "folder": recipes.FOLDER,
    "demo": recipes.DEMO,
    "video": recipes.UNLABELLED,
}
"""The names of `--recipe`."""

_PUBLIC_TEACHERS = {
    ("cityscapes", "s"): "nvidia/segformer-b2-finetuned-cityscapes-1024-1024",
    ("cityscapes", "b"): "nvidia/segformer-b3-finetuned-cityscapes-1024-1024",
    ("ade20k", "s"): "nvidia/segformer-b2-finetuned-ade-512-512",
    ("ade20k", "b"): "nvidia/segformer-b3-finetuned-ade-512-512",
}
"""By data set and student: which size teaches which student is ours, the paper says SegFormer alone."""


class Recordings(LabelledImages, Protocol):
    """A data set that knows which recording each picture comes from."""

    @property
    def groups(self) -> list[str]:
        """The recordings, sorted; empty where pictures stand alone."""
        ...

    def group(self, index: int) -> str:
        """Give the recording that a picture comes from, of `groups`; empty where there are none."""
        ...


def open_split(
    name: str, root: Path | None, split: str, *, only: Sequence[str] | None = None, without: Sequence[str] = ()
) -> Recordings:
    """Open a part of a labelled data set.

    Args:
        name: one of `DATASETS` but `video`.
        root: its folder; the demo has none.
        split: one of `SPLITS`.
        only: recordings to keep; None keeps all.
        without: recordings to leave out.

    Raises:
        DatasetError: it is missing or incomplete.
        ConfigError: it has no recordings to choose by, or needs a folder.
    """
    if name == "demo":
        return DemoStreet(split, only=only, without=without)
    if name == "video":
        raise ConfigError("videos have no labels to evaluate with")
    if root is None:
        raise ConfigError(f"--data-dir is missing: the folder of {name}")
    if name == "ade20k":
        if only is not None or without:
            raise ConfigError("ADE20K has no recordings to hold out")
        return ADE20K(root, split)
    if name == "cityscapes":
        return Cityscapes(root, split, only=only, without=without)
    if name == "folder":
        return LabelledFolder(root, split, only=only, without=without)
    original = (root / "701_StillsRaw_full").is_dir()
    return (CamVidOriginal if original else CamVid)(root, split, only=only, without=without)


def open_data(
    name: str,
    root: Path | None,
    train_split: str,
    hold_out: str | None,
    *,
    initial: Path | None = None,
    every: int = 1,
) -> SegmentationData:
    """Open what a run learns from and is judged by.

    Args:
        name: one of `DATASETS`.
        root: its folder.
        train_split: `train` or `trainval`.
        hold_out: a recording to leave out of training and to judge by; None judges by val.
        initial: the weights that a run without labels goes on from: they say the classes.
        every: of videos, the step from one frame to the next.

    Raises:
        DatasetError: it is missing or incomplete.
        ConfigError: the options contradict one another.
        CheckpointError: `initial` cannot be read.
    """
    description: dict[str, object] = {"dataset": name, "train_split": train_split, "hold_out": hold_out}
    if name == "video":
        if train_split != "train":
            raise ConfigError("videos have no splits: --train-split is of no use")
        return _open_unlabelled(root, initial, every, hold_out, description)
    if hold_out is None:
        train, val = open_split(name, root, train_split), open_split(name, root, "val")
    else:
        train = open_split(name, root, train_split, without=[hold_out])
        val = open_split(name, root, train_split, only=[hold_out])
    if name == "folder":  # where the user may change them before the run is resumed
        description["classes"] = list(train.classes.names)
    return SegmentationData(train=train, val=val, description=description)


def with_unlabelled(
    data: SegmentationData, sources: Sequence[Path], every: int, recipe: SegmentationRecipe
) -> SegmentationData:
    """Add pictures without labels to what a run learns from.

    Args:
        data: the rest.
        sources: videos, pictures, folders and patterns of such, and folders with the zip files of small pictures
            (Tiny-ImageNet), which are laid to mosaics; nothing is changed if there are none.
        every: of videos and folders, the step from one frame or picture to the next.
        recipe: the size of the mosaics.

    Raises:
        ConfigError: the recipe has no teacher, the data have no labels themselves, or a folder holds both small
            pictures and others.
        DatasetError: a source is missing, or cannot be read.
    """
    if not sources:
        return replace(data, description={**data.description, "unlabelled": None})
    if recipe.distill == "none" or not data.labelled:
        what = "a teacher: not --distill none" if data.labelled else "labelled data beside them, not --dataset video"
        raise ConfigError(f"--unlabelled needs {what}")
    classes = data.train.classes
    small = [source for source in sources if Mosaics.lie_in(source)]
    for source in small:
        if any(is_medium(file) for file in source.iterdir()):
            raise ConfigError(
                f"{source} holds small pictures (train*.zip or train/) and others beside them: name these"
            )
    parts: list[LabelledImages] = [Mosaics(source, classes, recipe.train_size) for source in small]
    others = [source for source in sources if source not in small]
    if others:
        parts.append(UnlabelledImages(others, classes, every=every))
    described = {"unlabelled": [source.absolute().name for source in sources], "every": every}
    return replace(data, unlabelled=Together(parts), description={**data.description, **described})


def with_further(
    data: SegmentationData,
    name: str,
    sources: Sequence[tuple[str, Path]],
    classes: Path | None,
    *,
    root: Path | None = None,
) -> SegmentationData:
    """Add pictures of other data sets to what a run learns from, as far as their labels say what its own do.

    Args:
        data: the rest.
        name: the run's own data set.
        sources: names of `FURTHER` with their folders, of which the pictures to train on are taken, or all where the
            data set is not one of those that are judged by; nothing is changed if there are none.
        classes: TOML file of which of their classes make which of the run's, see `read_class_mapping`; None takes those
            of the same name.
        root: the folder of the run's own data set: that of one's own labels may have others of its kind beside it.

    Raises:
        ConfigError: the run has no labels itself, a source is its own data set, the file cannot be read or has classes
            that are nowhere, or no class of a source is one of the run's.
        DatasetError: a data set is missing or incomplete.
    """
    if not sources:
        return replace(data, description={**data.description, "further": None})
    if not data.labelled:
        raise ConfigError("--further needs labelled data beside them, not --dataset video")
    names = [source for source, _ in sources]
    for source, folder in sources:  # whose pictures would be those to judge by, where some are held out
        is_other = name == "folder" and root is not None and folder.resolve() != root.resolve()
        if source == name and not is_other:
            raise ConfigError(f"--further {name} is the data set of --dataset itself")
    found = [
        LabelMeFacade(folder, "all") if source == "labelmefacade" else open_split(source, folder, "train")
        for source, folder in sources
    ]
    mapping = None if classes is None else read_class_mapping(classes)
    if mapping is not None:
        known = {theirs.lower() for images in found for theirs in images.classes.names}
        for theirs in sorted({theirs for group in mapping.values() for theirs in group}):
            if theirs.lower() not in known:
                raise ConfigError(f"{classes}: none of {', '.join(names)} has a class {theirs!r}")
    parts = [Relabelled(images, data.train.classes, mapping) for images in found]
    described = {
        "further": names,
        "further_images": sum(map(len, parts)),
        "further_classes": None if classes is None else classes.name,
    }
    return replace(data, further=Together(parts), description={**data.description, **described})


def default_recipe(name: str, data: SegmentationData) -> SegmentationRecipe:
    """Give the recipe that a data set is trained with unless another is asked for."""
    if name == "cityscapes":
        return recipes.CITYSCAPES_SEG100
    if name == "camvid":
        return recipes.CAMVID_720 if isinstance(data.train, CamVidOriginal) else recipes.CAMVID_360
    return RECIPES[name]


def default_teacher_recipe(name: str, data: SegmentationData) -> TeacherRecipe:
    """Give the recipe that a teacher is trained with: the student's crops, scales and steps, the teacher's rates."""
    if name == "camvid" and not isinstance(data.train, CamVidOriginal):
        return recipes.TEACHER_CAMVID_360
    return recipes.teacher_recipe(default_recipe(name, data))


def with_teachers(recipe: SegmentationRecipe, name: str) -> SegmentationRecipe:
    """Put the data set's public teacher into a recipe that distils and names none.

    Raises:
        TrainingError: there is no public one.
        ConfigError: the data set has no labels, and the recipe learns from labels alone.
    """
    if name == "video" and recipe.distill == "none":
        raise ConfigError("videos have no labels, so a teacher is needed: --distill sidm, cwd or ofa, with --teacher")
    if recipe.distill == "none" or recipe.teachers:
        return recipe
    if name == "video":
        raise TrainingError("videos are labelled by a teacher of the classes of --init: pass its folder as --teacher")
    if (name, recipe.model) not in _PUBLIC_TEACHERS:
        raise TrainingError(
            f"there is no public SegFormer for {name} to learn from: train one with 'bsdnet-train teacher --dataset "
            f"{name}' and pass its folder as --teacher, or pass --distill none to learn from the labels alone"
        )
    return replace(recipe, teachers=(_PUBLIC_TEACHERS[name, recipe.model],))


class TaughtImages:
    """Pictures whose labels are what a teacher says of them.

    Args:
        images: pictures whose labels mark valid pixels.
        teacher: who labels them.
        device: the teacher's.
        options: how it looks at a picture.
    """

    def __init__(
        self, images: LabelledImages, teacher: Teacher, device: torch.device, options: EvaluationOptions
    ) -> None:
        self.classes: ClassSet = images.classes
        self._images, self._teacher, self._device, self._options = images, teacher, device, options
        self._lock = threading.Lock()  # pictures are read by several threads, and the teacher looks at one at a time

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read a picture `(H, W, 3)` uint8 RGB and label it, `(H, W)` uint8 with 255 where it is not valid."""
        rgb, valid = self._images[index]
        with self._lock:
            labels = segment(lambda x: self._teacher(x).logits, rgb, self._device, options=self._options)
        return rgb, np.where(valid == IGNORE_INDEX, valid, labels)

    def name(self, index: int) -> str:
        """Give the picture's name."""
        return self._images.name(index)


def _open_unlabelled(
    root: Path | None, initial: Path | None, every: int, hold_out: str | None, description: dict[str, object]
) -> SegmentationData:
    """Open pictures without labels; a recording or the last tenth is judged by, and by the teacher's word."""
    if root is None:
        raise ConfigError("--data-dir is missing: the folder of the videos or pictures")
    if initial is None:
        raise ConfigError("--init is missing: the weights to adapt, whose classes the videos are to be labelled with")
    classes = load_checkpoint(initial).metadata.class_set
    described = {**description, "every": every}
    if hold_out is not None:
        rest = UnlabelledImages([root], classes, every=every, without=[hold_out])
        held = UnlabelledImages([root], classes, every=every, only=[hold_out])
        return SegmentationData(train=rest, val=held, labelled=False, description=described)
    images = UnlabelledImages([root], classes, every=every)
    border = len(images) * 9 // 10
    if border == 0:
        raise DatasetError(f"{root} gives one frame alone: nothing is left to judge by")
    train, val = Part(images, range(border)), Part(images, range(border, len(images)))
    return SegmentationData(train=train, val=val, labelled=False, description=described)
