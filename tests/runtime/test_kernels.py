"""The GPU kernels against the torch code that they replace: on a GPU as compiled, else in Triton's interpreter."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from bsdnet.classes import CAMVID_11
from bsdnet.picture import Picture, YuvEncoding
from bsdnet.rendering import Renderer, RenderStyle
from bsdnet.runtime.cuda_stages import DeviceFrame, DeviceResults, KernelStages, TorchStages
from bsdnet.runtime.postprocess import labels_on_device
from bsdnet.runtime.preprocess import Preprocessor

from .conftest import smooth_frame

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton, which pip installs with bsdnet[test] on Linux"
)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BT709 = YuvEncoding(matrix="bt709", full_range=False)
STD = (0.2, 0.25, 0.3)
PREPROCESSOR = Preprocessor((0.4, 0.5, 0.6), STD, DEVICE, torch.float32)
ON_CPU = Preprocessor((0.4, 0.5, 0.6), STD, torch.device("cpu"), torch.float32)


if DEVICE.type == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read by triton whenever it meets a kernel


@pytest.fixture(scope="module")
def kernels():
    from bsdnet.runtime import kernels

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the interpreter's tensors are small
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE.type == "cpu":
            patch.setattr(kernels, "_BLOCK", 2048)  # in the interpreter it is programs that cost time, not pixels
        yield kernels
    torch.set_num_threads(threads)


def picture_of(size, encoding, seed=0):
    rgb = smooth_frame(size, seed)
    if encoding is None:
        return Picture(planes=(rgb,))
    other = smooth_frame(size, seed + 1)
    chroma = (other[::2, ::2, channel] // 4 + 96 for channel in (0, 1))
    return Picture(planes=(rgb[..., 0].copy(), *(plane.copy() for plane in chroma)), encoding=encoding)


def on_device(picture):
    return [torch.from_numpy(plane).to(DEVICE) for plane in picture.planes]


def smooth_logits(size, classes=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, 4, 6, generator=generator) * 4
    return F.interpolate(coarse, size=size, mode="bicubic").to(DEVICE)


def levels(difference):
    """Of normalised pixels, in levels of 255."""
    return (difference.float().cpu() * torch.tensor(STD)[:, None, None] * 255).abs()


@pytest.mark.parametrize("encoding", [None, BT709], ids=["rgb", "yuv"])
@pytest.mark.parametrize("frame_size", [(48, 80), (64, 96), (64, 200), (100, 150), (128, 192), (200, 300), (256, 384)])
def test_frames_are_resized_and_normalised_as_torch_does(kernels, frame_size, encoding):
    planes = on_device(picture_of(frame_size, encoding))
    affine = PREPROCESSOR.affine(encoding)
    x = kernels.normalise(planes, affine, (64, 96), torch.float32)
    expected = PREPROCESSOR.from_tensors(planes, encoding, (64, 96))
    assert x.shape == expected.shape
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert levels(x - expected).max() < 0.01
    assert torch.equal(kernels.normalise(planes, affine, (64, 96), torch.float16), x.half())


@pytest.mark.parametrize("encoding", [None, BT709], ids=["rgb", "yuv"])
@pytest.mark.parametrize("frame_size", [(130, 198), (134, 242), (270, 480)])
def test_odd_sizes_are_halved_about_as_opencv_does(kernels, frame_size, encoding):
    picture = picture_of(frame_size, encoding)
    x = kernels.normalise(on_device(picture), PREPROCESSOR.affine(encoding), (64, 96), torch.float32)
    difference = levels(x.cpu() - ON_CPU.from_picture(picture, (64, 96)))
    assert difference.mean() < 1.5
    assert difference.max() < 12


def test_boxes_are_averaged_whole(kernels):
    rgb = torch.zeros((4 * 32, 4 * 32, 3), dtype=torch.uint8, device=DEVICE)
    rgb[3::4, 2::4] = 160  # one pixel of each box of 16
    x = kernels.normalise([rgb], PREPROCESSOR.affine(None), (32, 32), torch.float32)
    expected = PREPROCESSOR.from_tensors(
        [torch.full((32, 32, 3), 10, dtype=torch.uint8, device=DEVICE)], None, (32, 32)
    )
    torch.testing.assert_close(x, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoding", [None, BT709], ids=["rgb", "yuv"])
def test_rows_may_lie_further_apart_than_their_length(kernels, encoding):
    planes = on_device(picture_of((36, 50), encoding))
    gap = (0, 7) if encoding else (0, 0, 0, 7)
    padded = [F.pad(plane, gap, value=99)[:, : plane.shape[1]] for plane in planes]
    affine = PREPROCESSOR.affine(encoding)
    x = kernels.normalise(padded, affine, (32, 48), torch.float32)
    assert torch.equal(x, kernels.normalise(planes, affine, (32, 48), torch.float32))

    logits = smooth_logits((4, 6))
    labels = torch.empty((36, 50), dtype=torch.uint8, device=DEVICE)
    table = Renderer(CAMVID_11).table(encoding, DEVICE)
    drawn, expected = ([torch.zeros_like(plane) for plane in planes] for _ in range(2))
    kernels.decide(logits, labels, planes=padded, drawn=drawn, table=table)
    kernels.decide(logits, labels, planes=planes, drawn=expected, table=table)
    assert all(torch.equal(a, b) for a, b in zip(drawn, expected, strict=True))


@pytest.mark.parametrize(
    ("logits_size", "frame_size"),
    [
        pytest.param((6, 12), (48, 96), id="stride 8"),
        pytest.param((5, 16), (43, 130), id="a little more"),
        pytest.param((3, 6), (70, 100), id="bands of more rows than a tile"),
        pytest.param((3, 40), (23, 300), id="wider than a tile"),
        pytest.param((8, 12), (5, 7), id="shrunk"),
        pytest.param((1, 1), (20, 30), id="one logit"),
        pytest.param((3, 5), (1, 1), id="one pixel"),
    ],
)
def test_labels_and_confidence_are_those_of_torch(kernels, logits_size, frame_size):
    logits = smooth_logits(logits_size)
    labels = torch.full(frame_size, 255, dtype=torch.uint8, device=DEVICE)
    confidence = torch.zeros_like(labels)
    kernels.decide(logits, labels, confidence)
    expected, certainty = labels_on_device(logits, frame_size, confidence=True)
    assert (labels == expected).float().mean() >= 0.999
    assert (confidence.int() - certainty.int()).abs().max() <= 1
    if min(*logits_size, *frame_size) > 2:
        assert len(expected.unique()) > 4  # or the comparison says little
        assert certainty.float().std() > 10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_logits_may_have_any_type_and_layout(kernels, dtype, memory_format):
    logits = smooth_logits((4, 12), classes=19).to(dtype).contiguous(memory_format=memory_format)
    labels = torch.empty((32, 96), dtype=torch.uint8, device=DEVICE)
    kernels.decide(logits, labels)
    expected, _ = labels_on_device(logits, (32, 96), confidence=False)
    assert (labels == expected).float().mean() >= 0.999


def test_the_confidence_of_distant_logits_does_not_overflow(kernels):
    logits = torch.tensor([-500.0, 700.0, 700.0, 699.0], device=DEVICE).view(1, 4, 1, 1)
    labels = torch.empty((2, 2), dtype=torch.uint8, device=DEVICE)
    confidence = torch.empty_like(labels)
    kernels.decide(logits, labels, confidence)
    assert labels.unique().tolist() == [1]  # the first of two that are level
    assert confidence.unique().tolist() == [round(255 / (2 + 2.718281828**-1))]


def test_no_program_writes_rows_of_another(kernels, monkeypatch):
    """They would be overwritten one way or the other: the programs of a GPU run in any order."""

    class FirstBands:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            return self.kernel[(grid[0], 2, grid[2])]

    monkeypatch.setattr(kernels, "_decide_kernel", FirstBands(kernels._decide_kernel))
    labels = torch.full((44, 24), 255, dtype=torch.uint8, device=DEVICE)
    kernels.decide(smooth_logits((4, 3)), labels)  # 11 rows a band, so that the tiles are not full
    written = (labels != 255).any(1).nonzero()
    assert written.flatten().tolist() == list(range(5 + 11))  # the first band is half as high
    assert (labels[: 5 + 11] != 255).all()


STYLES = [
    RenderStyle(legend=False),
    RenderStyle(legend=False, alpha=0.3, only=frozenset({0, 2, 3, 5, 8})),
    RenderStyle(legend=False, view="mask", only=frozenset({1, 2, 4, 6, 9})),
    RenderStyle(legend=False, view="side-by-side", alpha=0.7),
]


@pytest.mark.parametrize("encoding", [None, BT709, YuvEncoding(matrix="bt601", full_range=True)], ids=str)
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.view)
def test_frames_are_drawn_as_torch_does(kernels, style, encoding):
    size = (38, 134)
    picture = picture_of(size, encoding)
    planes, renderer = on_device(picture), Renderer(CAMVID_11, style)
    labels = torch.empty(size, dtype=torch.uint8, device=DEVICE)
    width = 2 if style.view == "side-by-side" else 1
    drawn = [plane.new_zeros((plane.shape[0], width * plane.shape[1], *plane.shape[2:])) for plane in planes]
    table = renderer.table(encoding, DEVICE)
    kernels.decide(smooth_logits((5, 17)), labels, planes=planes, drawn=drawn, table=table)
    expected = renderer.render_torch(planes, labels, encoding)
    assert len(labels.unique()) > 4
    for plane, by_torch in zip(drawn, expected, strict=True):
        assert torch.equal(plane, by_torch)
    on_cpu = renderer.render_picture(picture, labels.cpu().numpy())
    for plane, by_opencv in zip(drawn, on_cpu.planes, strict=True):
        assert (plane.cpu() == torch.from_numpy(by_opencv)).float().mean() > 0.999


@pytest.mark.parametrize("encoding", [None, BT709], ids=["rgb", "yuv"])
@pytest.mark.parametrize("view", ["overlay", "side-by-side", None])
def test_a_frame_takes_the_same_way_by_kernels_and_by_torch(kernels, view, encoding):
    size = (120, 176)
    planes = tuple(on_device(picture_of(size, encoding)))
    frame = DeviceFrame(planes=planes, encoding=encoding)
    renderer = None if view is None else Renderer(CAMVID_11, RenderStyle(view=view))
    logits = smooth_logits((4, 6))
    ways = []
    for stages in (KernelStages(PREPROCESSOR, DEVICE, torch.float32), TorchStages(PREPROCESSOR)):
        drawn = renderer.render_torch(planes, planes[0].new_zeros(size), encoding) if renderer else ()
        labels, confidence = (torch.zeros(size, dtype=torch.uint8, device=DEVICE) for _ in range(2))
        results = DeviceResults(labels=labels, confidence=confidence, drawn=drawn)
        x = stages.prepare(frame, (32, 48))
        stages.decide(logits, frame, renderer, results)
        if renderer is not None:
            stages.draw(frame, renderer, results)
        ways.append((x, labels, confidence, *drawn))
    for number, (by_kernels, by_torch) in enumerate(zip(*ways, strict=True)):
        if number == 0:
            torch.testing.assert_close(by_kernels, by_torch, atol=1e-4, rtol=0)
        else:
            assert (by_kernels == by_torch).float().mean() > 0.998


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from bsdnet.runtime import kernels

def build(kernel, pointers, floats, **constants):
    names = kernel.arg_names
    types = {name: pointers.get(name, "fp32" if name in floats else "i32") for name in names}
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()})
    return triton.compile(source, target=GPUTarget("cuda", 80, 32))

bytes_ = dict.fromkeys(("first", "second", "third", "labels", "confidence"), "*u8")
drawn = dict.fromkeys(("first_drawn", "second_drawn", "third_drawn"), "*u8")
scales = ("y_scale", "x_scale", "chroma_y_scale", "chroma_x_scale")
for stride, step in ((1, 2), (3, 1)):
    build(kernels._normalise_kernel, {**bytes_, "out": "*fp16", "affine": "*fp32"}, scales,
          PIXEL_STRIDE=stride, BOX=2, CHROMA_BOX=1, BLOCK=256)
    build(kernels._decide_kernel, {**bytes_, **drawn, "logits": "*fp16", "table": "*fp32"}, scales,
          CLASSES=19, CONFIDENCE=True, DRAW=True, BESIDE=True, PIXEL_STRIDE=stride, CHROMA_STEP=step,
          ROWS=8, COLUMNS=128)
large = build(kernels._normalise_kernel, {**bytes_, "out": "*fp16", "affine": "*fp32"}, scales,
              PIXEL_STRIDE=3, BOX=4, CHROMA_BOX=4, BLOCK=256)
assert large.asm["ptx"].count("\\n") < 4_000, "what grows with the boxes' area takes minutes to compile at 8K"
"""


def test_the_kernels_compile_without_a_gpu(tmp_path):
    """The interpreter takes Python that the compiler does not."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
