"""Batches for pretraining: from memory, cropped on the device, or from files, cropped by worker processes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from bsdnet.checkpoint import IMAGENET_MEAN, IMAGENET_STD
from trainer.datasets.imagenet import ImageFolder, ZippedImages
from trainer.device import normalize, send
from trainer.distributed import Processes
from trainer.loading import load_batches
from trainer.recipes import PretrainRecipe
from trainer.sampling import PositionSampler

_MAX_LOG_RATIO = float(np.log(4 / 3))


class ClassificationData(Protocol):
    """Pictures to learn from and to judge by, in batches."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, by label."""
        ...

    def __len__(self) -> int:
        """Count the pictures to learn from."""
        ...

    def train(
        self, recipe: PretrainRecipe, sampler: PositionSampler, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Give augmented, normalised pictures `(B, 3, S, S)` and classes `(B,)` of the sampler's steps."""
        ...

    def val(
        self, recipe: PretrainRecipe, device: torch.device, processes: Processes
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Give this process's share of the pictures to judge by, normalised, and their classes."""
        ...


class ImagesInMemory:
    """Small pictures of one size, held in memory, and cropped and enlarged on the device.

    Args:
        train_images: pictures to learn from.
        val_images: pictures to judge by, with the same classes.
    """

    def __init__(self, train_images: ZippedImages, val_images: ZippedImages) -> None:
        self.classes = train_images.classes
        self._train, self._val = train_images, val_images

    def __len__(self) -> int:
        return len(self._train)

    def train(
        self, recipe: PretrainRecipe, sampler: PositionSampler, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Give augmented, normalised pictures and classes; see `ClassificationData`."""
        for batch in sampler:
            index = [example for example, _ in batch]
            images = send(torch.from_numpy(self._train.images[index]), device)
            iteration, offset = divmod(batch[0][1], recipe.batch_size)  # of this process's share in the whole batch
            # PyTorch's generator takes 32 bits of its seed: large odd factors keep two runs and two processes apart.
            seed = recipe.seed * 0x9E3779B1 + iteration + offset * 0x85EBCA6B
            generator = torch.Generator().manual_seed(seed % 2**32)
            normalized = normalize(images, IMAGENET_MEAN, IMAGENET_STD)
            augmented = random_resized_crop(normalized, recipe.image_size, recipe.min_area, generator)
            yield augmented, send(torch.from_numpy(self._train.labels[index]), device)

    def val(
        self, recipe: PretrainRecipe, device: torch.device, processes: Processes
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Give this process's share of the pictures to judge by; see `ClassificationData`."""
        mine = range(processes.rank, len(self._val), processes.count)
        for first in range(0, len(mine), recipe.batch_size):
            index = list(mine[first : first + recipe.batch_size])
            images = torch.from_numpy(self._val.images[index]).to(device)
            normalized = resized(normalize(images, IMAGENET_MEAN, IMAGENET_STD), recipe.image_size)
            yield normalized, torch.from_numpy(self._val.labels[index]).to(device)


class ImagesInFiles:
    """Pictures of any size, read and cropped by worker processes.

    Args:
        train_images: pictures to learn from.
        val_images: pictures to judge by, with the same classes.
        workers: worker processes; 0 reads in this one.
    """

    def __init__(self, train_images: ImageFolder, val_images: ImageFolder, workers: int) -> None:
        self.classes = train_images.classes
        self._train, self._val, self._workers = train_images, val_images, workers

    def __len__(self) -> int:
        return len(self._train)

    def train(
        self, recipe: PretrainRecipe, sampler: PositionSampler, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Give augmented, normalised pictures and classes; see `ClassificationData`."""
        return load_batches(_Crops(self._train, recipe), sampler, device, self._workers)

    def val(
        self, recipe: PretrainRecipe, device: torch.device, processes: Processes
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Give this process's share of the pictures to judge by; see `ClassificationData`."""
        mine = list(range(processes.rank, len(self._val), processes.count))
        batches = [mine[first : first + recipe.batch_size] for first in range(0, len(mine), recipe.batch_size)]
        return load_batches(_Centres(self._val, recipe.image_size), batches, device, self._workers)


def open_images(root: Path, workers: int) -> ClassificationData:
    """Open a folder for pretraining: in memory if it holds Tiny-ImageNet's zip files of small pictures.

    Raises:
        DatasetError: it is missing or incomplete.
    """
    small = ImageFolder(root, "val")
    if (root / "train").is_dir() or max(small[0][0].shape) > 96:
        train_images = ImageFolder(root, "train")
        return ImagesInFiles(train_images, ImageFolder(root, "val", train_images.classes), workers)
    in_memory = ZippedImages(sorted(root.glob("train*.zip")) or [root / "train-0.zip"])
    return ImagesInMemory(in_memory, ZippedImages(sorted(root.glob("val*.zip")), in_memory.classes))


def resized(images: Tensor, size: int) -> Tensor:
    """Bring pictures `(B, 3, H, W)` to squares `(B, 3, size, size)`, as they are seen when they are judged."""
    if tuple(images.shape[2:]) == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def random_resized_crop(images: Tensor, size: int, min_area: float, generator: torch.Generator) -> Tensor:
    """Show a random part of each picture as a square, flipped half of the time.

    Args:
        images: normalised pictures, `(B, 3, H, W)`.
        size: side of the square in pixels.
        min_area: smallest part of the area that is shown, in (0, 1]; its sides' ratio varies from 3:4 to 4:3.
        generator: the only source of chance, on the CPU.

    Returns:
        `(B, 3, size, size)`, channels_last.
    """
    count = len(images)
    area = torch.empty(count).uniform_(min_area, 1, generator=generator)
    ratio = torch.empty(count).uniform_(-_MAX_LOG_RATIO, _MAX_LOG_RATIO, generator=generator).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x_center = (2 * torch.rand(count, generator=generator) - 1) * (1 - width)
    y_center = (2 * torch.rand(count, generator=generator) - 1) * (1 - height)
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width * flip, x_center
    theta[:, 1, 1], theta[:, 1, 2] = height, y_center
    grid = F.affine_grid(send(theta, images.device), [count, images.shape[1], size, size], align_corners=False)
    cropped = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return cropped.contiguous(memory_format=torch.channels_last)


class _Crops(Dataset[tuple[Tensor, Tensor]]):
    """Random parts of pictures by `(example, position)`: chance depends on the seed and the position alone."""

    def __init__(self, images: ImageFolder, recipe: PretrainRecipe) -> None:
        self._images, self._recipe = images, recipe

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        example, position = key
        rgb, label = self._images[example]
        rng = np.random.default_rng((self._recipe.seed, 1, position))
        crop = random_crop(rgb, self._recipe.image_size, self._recipe.min_area, rng)
        return torch.from_numpy(crop), torch.tensor(label)


def random_crop(rgb: NDArray[np.uint8], size: int, min_area: float, rng: Generator) -> NDArray[np.uint8]:
    """Show a random part of a picture as a square, flipped half of the time.

    Args:
        rgb: picture, `(H, W, 3)` uint8.
        size: side of the square in pixels.
        min_area: smallest part of the area that is shown, in (0, 1]; its sides' ratio varies from 3:4 to 4:3.
        rng: the only source of chance.

    Returns:
        `(size, size, 3)` uint8.
    """
    height, width = rgb.shape[:2]
    area = rng.uniform(min_area, 1) * height * width
    ratio = float(np.exp(rng.uniform(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)))
    part_width = max(1, min(width, round((area * ratio) ** 0.5)))
    part_height = max(1, min(height, round((area / ratio) ** 0.5)))
    left, top = rng.integers(width - part_width + 1), rng.integers(height - part_height + 1)
    part = rgb[top : top + part_height, left : left + part_width]
    square = _resize(part, (size, size))
    return np.ascontiguousarray(square[:, ::-1]) if rng.random() < 0.5 else square


class _Centres(Dataset[tuple[Tensor, Tensor]]):
    """The middle of each picture: its short side is brought to 8/7 of the square's, as is customary on ImageNet."""

    def __init__(self, images: ImageFolder, size: int) -> None:
        self._images, self._size = images, size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rgb, label = self._images[index]
        side = min(rgb.shape[:2]) * 7 // 8
        top, left = ((length - side) // 2 for length in rgb.shape[:2])
        centre = _resize(rgb[top : top + side, left : left + side], (self._size, self._size))
        return torch.from_numpy(centre), torch.tensor(label)


def _resize(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    shrinks = size[0] < rgb.shape[0]
    return np.asarray(cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
