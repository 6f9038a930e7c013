"""Speeds that the paper gives, on its own hardware."""

from dataclasses import dataclass
from typing import Literal

HARDWARE = "NVIDIA A6000, PyTorch 1.11"
"""What the paper measured on (section 4)."""

SEG50, SEG75, SEG100 = (512, 1024), (768, 1536), (1024, 2048)
CAMVID, ADE20K = (720, 960), (512, 512)


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperSpeed:
    """A row of tables 1 to 3."""

    table: Literal[1, 2, 3]
    """1 is Cityscapes, 2 CamVid, 3 ADE20K."""
    method: str
    """The network, as the paper calls it, without the suffix for its size."""
    size: tuple[int, int]
    """Height and width of the input in pixels."""
    fps: float
    """Pictures a second."""


def _table(table: Literal[1, 2, 3], rows: tuple[tuple[str, tuple[int, int], float], ...]) -> tuple[PaperSpeed, ...]:
    return tuple(PaperSpeed(table=table, method=method, size=size, fps=fps) for method, size, fps in rows)


SPEEDS: tuple[PaperSpeed, ...] = (
    *_table(
        1,
        (
            ("BSDNet-S", SEG50, 178.4),
            ("BSDNet-S", SEG75, 175.8),
            ("BSDNet-B", SEG50, 168.0),
            ("BSDNet-B", SEG75, 116.3),
            ("BSDNet-B", SEG100, 70.6),
            ("SCTNet-S", SEG75, 153.6),
            ("SCTNet-B", SEG100, 68.3),
            ("DDRNet-23-S", SEG100, 116.7),
            ("DDRNet-23", SEG100, 66.7),
            ("PIDNet-S", SEG100, 103.2),
            ("RTFormer-S", SEG100, 99.6),
            ("RTFormer-B", SEG100, 58.2),
        ),
    ),
    *_table(
        2,
        (
            ("BSDNet-S", CAMVID, 254.6),
            ("BSDNet-B", CAMVID, 135.1),
            ("DDRNet-23-S", CAMVID, 253.0),
            ("DDRNet-23", CAMVID, 126.5),
            ("RTFormer-S", CAMVID, 241.1),
            ("RTFormer-B", CAMVID, 127.0),
        ),
    ),
    *_table(
        3,
        (
            ("BSDNet-S", ADE20K, 189.4),
            ("BSDNet-B", ADE20K, 180.7),
            ("SCTNet-S", ADE20K, 174.7),
            ("SCTNet-B", ADE20K, 170.4),
            ("RTFormer-S", ADE20K, 105.6),
            ("RTFormer-B", ADE20K, 104.7),
        ),
    ),
)
"""BSDNet and its nearest relatives, by method and size; the paper has more of other kinds."""

BLOCKS: dict[str, tuple[str, float, float]] = {
    "res": ("ResBlock", 69.2, 15.1),
    "segformer": ("SegFormerBlock", 60.3, 20.3),
    "gfa": ("GFABlock", 68.5, 15.7),
    "mscan": ("MSCANBlock", 64.1, 19.0),
    "cf": ("CFBlock", 69.3, 16.9),
    "fcb": ("FCB", 70.6, 16.1),
}
"""Table 4, BSDNet-B at 2048x1024: name, pictures a second, millions of parameters; by `BSDNetConfig.block`."""

CONTEXTS: dict[str, tuple[str, float, float]] = {
    "aspp": ("ASPP", 71.2, 17.3),
    "dappm": ("DAPPM", 65.3, 20.2),
    "dasp-max": ("DASP, max pooling", 67.4, 19.0),
    "dasp-avg": ("DASP, average pooling", 70.6, 16.1),
}
"""Table 5, likewise; by `BSDNetConfig.context`."""
