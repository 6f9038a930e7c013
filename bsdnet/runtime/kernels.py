"""The per-frame work around the network as two GPU kernels, written in Triton.

One reads the decoder's planes and writes what the network takes; one reads the logits and writes labels, confidence
and the drawn frame, without the enlarged logits or a converted frame ever being in memory. Both do what
`Preprocessor.from_tensors`, `labels_on_device` and `Renderer.render_torch` do in many steps; those are for machines
without Triton, and the tests hold the two to each other.

Import this module only where Triton is installed. Its first launch compiles, for which Triton needs a C compiler.
"""

# ruff: noqa: ANN001, ANN202
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False, disallow-untyped-decorators=False
# mypy: disallow-incomplete-defs=False

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = (8, 128)
"""Rows and columns of the frame that one program decides. Eight is the network's stride: if it sees the frame at the
frame's own size, every pixel of a tile lies between the same two rows of logits, which are then read once a column."""
_BLOCK = 256
"""Pixels that one program normalises."""


def normalise(planes: Sequence[Tensor], affine: Tensor, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Resize a frame, convert it to RGB and normalise it, in one launch.

    Each plane is halved while it is twice the size or more, then resized bilinearly (align_corners=False), as
    `Preprocessor.from_tensors` does; where a plane has odd sizes, the averaged boxes are spread evenly instead of
    overlapping.

    Args:
        planes: uint8, as of a `Picture`; rows may lie further apart than their length.
        affine: `(3, 4)` float32: what takes R, G, B or Y, U, V to normalised R, G, B; see `Preprocessor.affine`.
        size: height and width to resize to.
        dtype: of the result.

    Returns:
        `(1, 3, height, width)`, channels_last.
    """
    height, width = size
    out = torch.empty((1, 3, height, width), dtype=dtype, device=affine.device, memory_format=torch.channels_last)
    channels = _channels(planes)
    boxes = [_box(channel.shape, size) for channel in channels]
    shapes = []
    for channel, box in zip(channels[:2], boxes, strict=False):  # the third one is like the second
        reduced = [side // box for side in channel.shape]
        shapes += [channel.stride(0), *channel.shape, *_scales(reduced, size)]
    _normalise_kernel[(triton.cdiv(height * width, _BLOCK),)](
        out,
        affine,
        *channels,
        *shapes,
        height,
        width,
        PIXEL_STRIDE=channels[0].stride(1),
        BOX=boxes[0],
        CHROMA_BOX=boxes[1],
        BLOCK=_BLOCK,
    )
    return out


def decide(
    logits: Tensor,
    labels: Tensor,
    confidence: Tensor | None = None,
    *,
    planes: Sequence[Tensor] = (),
    drawn: Sequence[Tensor] = (),
    table: Tensor | None = None,
) -> None:
    """Enlarge logits, choose the classes and draw them onto the frame, in one launch.

    What is written is that of `labels_on_device` and, the legend apart, of `Renderer.render_torch`.

    Args:
        logits: `(1, C, h, w)`, any floating dtype and memory format.
        labels: `(H, W)` uint8, to be written, rows without gaps.
        confidence: like `labels`; None if it is not wanted.
        planes: the frame's, uint8, as of a `Picture`.
        drawn: planes to be written, of the frame's size or twice its width; then the frame comes to the left.
        table: `(256, 3, 2)` float32: what each label keeps of the frame and what it adds; see `Renderer.table`. None
            if nothing is to be drawn; `planes` and `drawn` are then not used.
    """
    draw = table is not None
    size, logits_size = labels.shape, logits.shape[2:]
    sources, targets = (_channels(x) if draw else (labels,) * 3 for x in (planes, drawn))
    rows, columns = _TILE
    rows_in_band = triton.cdiv(size[0], logits_size[0])  # at most
    grid = (triton.cdiv(size[1], columns), logits_size[0] + 1, triton.cdiv(rows_in_band, rows))
    _decide_kernel[grid](
        logits,
        labels,
        labels if confidence is None else confidence,
        *sources,
        *targets,
        labels if table is None else table,
        *logits.stride()[1:],
        *logits_size,
        *_scales(logits_size, size),
        *size,
        *(channel.stride(0) for channel in (*sources[:2], *targets[:2])),
        CLASSES=logits.shape[1],
        CONFIDENCE=confidence is not None,
        DRAW=draw,
        BESIDE=targets[0].shape[1] > size[1],
        PIXEL_STRIDE=sources[0].stride(1),
        CHROMA_STEP=size[0] // sources[1].shape[0],
        ROWS=rows,
        COLUMNS=columns,
    )


def _channels(planes: Sequence[Tensor]) -> Sequence[Tensor]:
    """Three 2-D tensors: R, G, B or Y, U, V."""
    return planes[0].unbind(2) if len(planes) == 1 else planes


def _box(plane_size: Sequence[int], size: tuple[int, int]) -> int:
    """Sides of the squares to average before a plane is resized."""
    box = 1
    while plane_size[0] // box >= 2 * size[0] and plane_size[1] // box >= 2 * size[1]:
        box *= 2
    return box


def _scales(source: Sequence[int], target: Sequence[int]) -> tuple[float, float]:
    return source[0] / target[0], source[1] / target[1]


# What changes with the network's input is not specialised: another size must not mean another compilation.
@triton.jit(do_not_specialize=["y_scale", "x_scale", "chroma_y_scale", "chroma_x_scale", "height", "width"])
def _normalise_kernel(
    out,  # (height, width, 3)
    affine,
    first,
    second,
    third,
    row_stride,
    rows,
    columns,
    y_scale,
    x_scale,
    chroma_row_stride,
    chroma_rows,
    chroma_columns,
    chroma_y_scale,
    chroma_x_scale,
    height,
    width,
    PIXEL_STRIDE: tl.constexpr,
    BOX: tl.constexpr,
    CHROMA_BOX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < height * width
    y, x = pixel // width, pixel % width
    top, bottom, down = _taps(y, y_scale, rows, BOX)
    left, right, along = _taps(x, x_scale, columns, BOX)
    a = _sample(first, row_stride, top, bottom, left, right, down, along, inside, PIXEL_STRIDE, BOX)
    top, bottom, down = _taps(y, chroma_y_scale, chroma_rows, CHROMA_BOX)
    left, right, along = _taps(x, chroma_x_scale, chroma_columns, CHROMA_BOX)
    b = _sample(second, chroma_row_stride, top, bottom, left, right, down, along, inside, PIXEL_STRIDE, CHROMA_BOX)
    c = _sample(third, chroma_row_stride, top, bottom, left, right, down, along, inside, PIXEL_STRIDE, CHROMA_BOX)
    for channel in tl.static_range(3):
        row = affine + 4 * channel
        value = tl.load(row) * a + tl.load(row + 1) * b + tl.load(row + 2) * c + tl.load(row + 3)
        tl.store(out + 3 * pixel + channel, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _taps(position, scale, length, BOX: tl.constexpr):
    """Where the boxes before and after a position of the output begin, and how far it is from the first, 0 to 1."""
    boxes = length // BOX
    at = tl.maximum((position + 0.5) * scale - 0.5, 0.0)
    before = tl.minimum(at.to(tl.int32), boxes - 1)
    after = tl.minimum(before + 1, boxes - 1)
    return _box_start(before, length, boxes, BOX), _box_start(after, length, boxes, BOX), at - before


@triton.jit
def _box_start(box, length, boxes, BOX: tl.constexpr):
    """First pixel of a box: boxes are spread evenly where `length` is no multiple of BOX."""
    start = box
    if BOX > 1:
        start = ((2 * box + 1) * length // boxes - BOX + 1) // 2
    return start


@triton.jit
def _sample(
    plane, row_stride, top, bottom, left, right, down, along, inside, PIXEL_STRIDE: tl.constexpr, BOX: tl.constexpr
):
    """Interpolate between the means over four boxes of a plane."""
    total = along * 0.0  # as the loop leaves it: one for each pixel
    for row in range(BOX):  # not unrolled: boxes of 8, as an 8K frame has, would take minutes to compile
        upper, lower = plane + (top + row) * row_stride, plane + (bottom + row) * row_stride
        for column in tl.static_range(BOX):
            near, far = (left + column) * PIXEL_STRIDE, (right + column) * PIXEL_STRIDE
            above = _interpolate(_pixel(upper + near, inside), _pixel(upper + far, inside), along)
            below = _interpolate(_pixel(lower + near, inside), _pixel(lower + far, inside), along)
            total += _interpolate(above, below, down)
    return total / (BOX * BOX)


@triton.jit
def _pixel(pointer, inside):
    return tl.load(pointer, mask=inside, other=0).to(tl.float32)


@triton.jit
def _interpolate(a, b, share):
    return a + (b - a) * share


_LOGITS_GEOMETRY = ("class_stride", "logit_row_stride", "logit_stride", "logit_rows", "logit_columns")


@triton.jit(do_not_specialize=[*_LOGITS_GEOMETRY, "y_scale", "x_scale"])
def _decide_kernel(
    logits,
    labels,
    confidence,
    first,
    second,
    third,
    first_drawn,
    second_drawn,
    third_drawn,
    table,
    class_stride,
    logit_row_stride,
    logit_stride,
    logit_rows,
    logit_columns,
    y_scale,
    x_scale,
    height,
    width,
    row_stride,
    chroma_row_stride,
    drawn_row_stride,
    chroma_drawn_row_stride,
    CLASSES: tl.constexpr,
    CONFIDENCE: tl.constexpr,
    DRAW: tl.constexpr,
    BESIDE: tl.constexpr,
    PIXEL_STRIDE: tl.constexpr,
    CHROMA_STEP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # Bands of rows lie between the centres of two rows of logits: band 0 above the first, band 1 below it, and so on.
    band = tl.program_id(1)
    end = tl.minimum(_band_start(band + 1, height, logit_rows), height)
    y = _band_start(band, height, logit_rows) + tl.program_id(2) * ROWS + tl.arange(0, ROWS)[:, None]
    x = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (y < end) & (x < width)
    upper = logits + tl.maximum(band - 1, 0) * logit_row_stride
    lower = logits + tl.minimum(band, logit_rows - 1) * logit_row_stride
    down = (y + 0.5) * y_scale + 0.5 - band
    left, right, along = _taps(x, x_scale, logit_columns, 1)
    near, far = left * logit_stride, right * logit_stride
    label, total = _choose(upper, lower, near, far, class_stride, along, down, CLASSES, CONFIDENCE)

    tl.store(labels + y * width + x, label.to(tl.uint8), mask=inside)
    if CONFIDENCE:
        tl.store(confidence + y * width + x, tl.floor(255 / total + 0.5).to(tl.uint8), mask=inside)
    if DRAW:
        first_drawn += y * drawn_row_stride + x * PIXEL_STRIDE
        first += y * row_stride + x * PIXEL_STRIDE
        _draw(first, first_drawn, table, label, inside, width * PIXEL_STRIDE, BESIDE)
        # Chroma goes with the label of the upper left one of its pixels.
        inside &= (y % CHROMA_STEP == 0) & (x % CHROMA_STEP == 0)
        y, x = y // CHROMA_STEP, x // CHROMA_STEP * PIXEL_STRIDE
        chroma, drawn = y * chroma_row_stride + x, y * chroma_drawn_row_stride + x
        beside = width // CHROMA_STEP * PIXEL_STRIDE
        _draw(second + chroma, second_drawn + drawn, table + 2, label, inside, beside, BESIDE)
        _draw(third + chroma, third_drawn + drawn, table + 4, label, inside, beside, BESIDE)


@triton.jit
def _choose(
    upper,
    lower,
    near,  # (1, COLUMNS)
    far,  # (1, COLUMNS)
    class_stride,
    along,  # (1, COLUMNS)
    down,  # (ROWS, 1)
    CLASSES: tl.constexpr,
    CONFIDENCE: tl.constexpr,
):
    """Interpolate between the logits of two rows, at two offsets each.

    Gives the largest class, and the sum of exp(logit - largest logit) over all classes, both (ROWS, COLUMNS).
    """
    best = tl.full((down.shape[0], along.shape[1]), float("-inf"), tl.float32)
    total = tl.full((down.shape[0], along.shape[1]), 0.0, tl.float32)
    label = total.to(tl.int32)
    for index in range(CLASSES):
        start = index * class_stride
        above = _interpolate(_logit(upper + start + near), _logit(upper + start + far), along)
        below = _interpolate(_logit(lower + start + near), _logit(lower + start + far), along)
        logit = _interpolate(above, below, down)
        larger = logit > best
        if CONFIDENCE:
            ratio = tl.exp(-tl.abs(logit - best))
            total = tl.where(larger, total * ratio + 1, total + ratio)
        label = tl.where(larger, index, label)
        best = tl.where(larger, logit, best)
    return label, total


@triton.jit
def _logit(pointer):
    return tl.load(pointer).to(tl.float32)


@triton.jit
def _band_start(band, height, logit_rows):
    """First row y of a band, the first with (y + 0.5) * logit_rows / height + 0.5 >= band.

    In whole numbers, so that every row of the frame is in one band and no more.
    """
    return tl.maximum(((2 * band - 1) * height + logit_rows - 1) // (2 * logit_rows), 0)


@triton.jit
def _draw(source, target, table, label, inside, beside, BESIDE: tl.constexpr):
    pixel = tl.load(source, mask=inside, other=0)
    keep = tl.load(table + 6 * label, mask=inside, other=0)
    add = tl.load(table + 6 * label + 1, mask=inside, other=0)
    if BESIDE:
        tl.store(target, pixel, mask=inside)
        target += beside
    tl.store(target, tl.floor(pixel.to(tl.float32) * keep + add + 0.5).to(tl.uint8), mask=inside)
