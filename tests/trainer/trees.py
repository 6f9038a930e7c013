"""Small data sets on disk, in the layouts of the published ones."""

import zipfile
from pathlib import Path

import cv2
import numpy as np

SIZE = (24, 32)


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A picture that differs from that of any other number, `(H, W, 3)` uint8."""
    return np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)


def write(path: Path, pixels: np.ndarray) -> Path:
    """Write RGB pictures, or label maps, as OpenCV knows the format by its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels[:, :, ::-1] if pixels.ndim == 3 else pixels)
    return path


def cityscapes(root: Path) -> Path:
    """Two cities to train on, one each to judge by and to be tested on."""
    for split, cities in (("train", ("aachen", "bochum")), ("val", ("lindau",)), ("test", ("berlin",))):
        for city in cities:
            for number in range(2):
                stem = f"{city}_{number:06d}_000019"
                pixels = picture(ord(city[0]) + number)
                write(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", pixels)
                labels = np.arange(np.prod(SIZE), dtype=np.uint8).reshape(SIZE) % 34
                write(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", labels)
                write(root / "gtFine" / split / city / f"{stem}_gtFine_color.png", picture(7))
    return root


def camvid_original(root: Path) -> Path:
    """One picture of each kind of frame that the split tells apart, with labels of three colours."""
    names = ("0001TP_008520", "0001TP_008550", "0006R0_f00930", "0016E5_07920", "0016E5_07959", "Seq05VD_f00000")
    for number, name in enumerate(names):
        labels = np.zeros((*SIZE, 3), np.uint8)
        labels[:8], labels[8:16] = (128, 128, 128), (128, 0, 192)  # sky, a lane marking, and void
        write(root / "701_StillsRaw_full" / f"{name}.png", picture(number))
        write(root / "LabeledApproved_full" / f"{name}_L.png", labels)
    return root


def ade20k(root: Path) -> Path:
    """Four pictures of two sizes with all values that labels may have."""
    for part, folder, count in (("train", "training", 2), ("val", "validation", 2)):
        for number in range(1, count + 1):
            size = (24 + number, 32)
            name = f"ADE_{part}_{number:08d}"
            write(root / "images" / folder / f"{name}.jpg", picture(len(folder) + number, size))
            labels = np.arange(np.prod(size)).reshape(size) % 151
            write(root / "annotations" / folder / f"{name}.png", labels.astype(np.uint8))
    return root


def labelmefacade(root: Path) -> Path:
    """Three pictures of two sizes with all colours that labels may have, in 16 bits and with an opaque alpha."""
    colors = [(0, 0, 0), (128, 0, 0), (128, 0, 128), (128, 128, 0), (128, 128, 128), (128, 64, 0), (0, 128, 128),
              (0, 128, 0), (0, 0, 128)]  # fmt: skip
    for number, name in enumerate("abc"):
        size = (24 + number // 2, 32)
        write(root / "images" / f"{name}.jpg", picture(number, size))
        rgba = np.full((*size, 4), 255, np.uint16)
        rgba[:, :, :3] = np.array(colors)[np.arange(np.prod(size)).reshape(size) % 9]
        bgra = cv2.cvtColor(rgba * 257, cv2.COLOR_RGBA2BGRA)
        (root / "labels").mkdir(exist_ok=True)
        assert cv2.imwrite(str(root / "labels" / f"{name}.png"), bgra)
    (root / "train.txt").write_text("images/b.jpg\n")
    (root / "test.txt").write_text("images/a.jpg\nimages/c.jpg\n")
    return root


def image_folder(root: Path) -> Path:
    """Two classes of pictures of different sizes, one class with a picture to judge by."""
    for number, name in enumerate(("train/n02/a.png", "train/n01/b.PNG", "train/n01/c.png", "val/n02/d.png")):
        write(root / name, picture(number, (10 + number, 12)))
    return root


def turned(path: Path, orientation: int = 6, size: tuple[int, int] = (8, 16)) -> Path:
    """A JPEG that asks to be shown turned, by a quarter unless told otherwise."""
    plain = cv2.imencode(".jpg", picture(0, size))[1].tobytes()
    tag = b"\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + b"\0\0"
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + tag + b"\0\0\0\0"
    path.write_bytes(plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:])
    return path


def zipped(path: Path, names: list[str], size: int = 8) -> Path:
    """A zip file of grey pictures, each as bright as its number in `names`."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            grey = np.full((size, size, 3), number, np.uint8)
            archive.writestr(name, cv2.imencode(".png", grey)[1].tobytes())
    return path
