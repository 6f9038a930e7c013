"""Training recipes: every number of a run, frozen before it starts.

A comment says where a default comes from: the BSDNet paper, or our own choice.
"""

from trainer.recipes.base import OptimizerRecipe, Precision, iterations_of, recipe_as_dict
from trainer.recipes.pretraining import IMAGENET, TINY_IMAGENET, TINY_IMAGENET_SEGFORMER, PretrainRecipe
from trainer.recipes.segmentation import (
    ADE20K,
    CAMVID_360,
    CAMVID_720,
    CITYSCAPES_SEG50,
    CITYSCAPES_SEG75,
    CITYSCAPES_SEG100,
    DEMO,
    FOLDER,
    UNLABELLED,
    Distillation,
    SegmentationRecipe,
)
from trainer.recipes.teacher import TEACHER_CAMVID_360, TeacherRecipe, teacher_recipe

__all__ = [
    "ADE20K",
    "CAMVID_360",
    "CAMVID_720",
    "CITYSCAPES_SEG50",
    "CITYSCAPES_SEG75",
    "CITYSCAPES_SEG100",
    "DEMO",
    "FOLDER",
    "IMAGENET",
    "TEACHER_CAMVID_360",
    "TINY_IMAGENET",
    "TINY_IMAGENET_SEGFORMER",
    "UNLABELLED",
    "Distillation",
    "OptimizerRecipe",
    "Precision",
    "PretrainRecipe",
    "SegmentationRecipe",
    "TeacherRecipe",
    "iterations_of",
    "recipe_as_dict",
    "teacher_recipe",
]
