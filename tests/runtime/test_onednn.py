import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bsdnet.modeling import bsdnet_s, fold_batch_norms
from bsdnet.runtime.onednn import pack_convolutions

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


def picture(height, width, dtype=torch.float32, channels=3):
    generator = torch.Generator().manual_seed(height * width)
    x = torch.randn(1, channels, height, width, generator=generator)
    return x.to(dtype).to(memory_format=torch.channels_last)


def modules_of(network):
    return [type(module).__name__ for module in network.modules()]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = bsdnet_s(num_classes=11)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.2)
    return fold_batch_norms(model).to(memory_format=torch.channels_last)


@torch.inference_mode()
def test_a_packed_network_gives_the_same_logits_at_every_size(network):
    packed = pack_convolutions(network, picture(64, 96))
    assert packed is not network
    for size in ((64, 96), (96, 160), (75, 101)):
        expected = network(picture(*size))
        logits = packed(picture(*size))
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
        assert logits.is_contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def test_half_precision_differs_by_rounding_alone(network):
    half = fold_batch_norms(network).bfloat16()
    exact = network(picture(96, 160))
    x = picture(96, 160, torch.bfloat16)
    errors = [float((run(x).float() - exact).abs().mean()) for run in (pack_convolutions(half, x), half)]
    assert errors[0] < 1.2 * errors[1]


def test_every_convolution_is_packed_and_takes_in_what_follows(network):
    with torch.inference_mode():
        packed = pack_convolutions(network, picture(64, 96))
    assert modules_of(packed).count("_PackedConv") == 60  # 48 modules and 12 of stripe kernels
    assert "Conv2d" not in modules_of(packed)
    assert modules_of(network).count("Conv2d") == 48  # the original is as it was
    assert [node for node in packed.graph.nodes if node.target is torch.conv2d] == []
    relus = [node for node in packed.graph.nodes if node.op == "call_module" and "act" in str(node.target)]
    assert len(relus) < modules_of(network).count("ReLU") / 4


class Cases(nn.Module):
    """What may stand behind a convolution."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.same = nn.Conv2d(8, 8, 3, padding="same")
        self.mirrored = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.strided = nn.Conv2d(8, 8, 3, padding=2, dilation=2, stride=2, groups=8)
        self.relu = nn.ReLU()
        self.kernels = nn.Parameter(torch.randn(8, 8, 1, 3))

    def forward(self, x):
        late = self.a(x) + self.relu(self.b(x))  # the addend comes after the convolution
        first = self.relu(late)
        both = self.c(first)
        doubled = both + both
        kept = self.d(doubled)
        used_twice = self.relu(kept) + kept
        pooled = self.pointwise(used_twice.mean((2, 3), keepdim=True)) + used_twice  # broadcast
        offset = self.pointwise(pooled) + 1.0
        striped = F.conv2d(self.same(offset), self.kernels.transpose(0, 1), padding=(0, self.kernels.shape[3] // 2))
        dynamic = F.conv2d(striped, striped[:, :, :3, :3].mean((2, 3)).view(1, 8, 1, 1))
        return self.relu(self.strided(self.mirrored(striped * dynamic) + x))


@torch.inference_mode()
def test_what_follows_is_taken_in_only_where_that_changes_nothing():
    torch.manual_seed(0)
    model = Cases().eval().to(memory_format=torch.channels_last)
    packed = pack_convolutions(model, picture(16, 24, channels=8))
    for size in ((16, 24), (32, 40)):
        x = picture(*size, channels=8)
        torch.testing.assert_close(packed(x), model(x), rtol=1e-4, atol=1e-4)
    assert modules_of(packed).count("_PackedConv") == 8
    assert modules_of(packed).count("Conv2d") == 2  # string padding and mirrored edges


@torch.inference_mode()
def test_two_threads_may_run_it_at_once(network):
    packed = pack_convolutions(network, picture(64, 96))
    pictures = [picture(64, 96) * scale for scale in range(1, 9)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(torch.inference_mode()(packed), pictures))
    for x, logits in zip(pictures, together, strict=True):
        torch.testing.assert_close(logits, packed(x))


@torch.inference_mode()
def test_a_module_that_cannot_run_leaves_no_traceback(capfd: pytest.CaptureFixture[str], caplog):
    linear = nn.Linear(3, 4).eval()
    with caplog.at_level(logging.INFO):
        assert pack_convolutions(linear, picture(16, 24)) is linear
    assert "convolutions are not packed: " in caplog.text
    assert capfd.readouterr().err == ""


class Untraceable(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_rewritten_stays_and_the_reason_is_logged(network, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    model = Untraceable()
    assert pack_convolutions(model, picture(64, 96)) is model
    assert "convolutions are not packed: symbolically traced variables" in caplog.text
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert pack_convolutions(network, picture(64, 96)) is network


def test_a_network_that_runs_meanwhile_in_another_thread_is_left_alone(network):
    """As the viewer's old network does until the new one is ready; torch.fx replaces methods of all modules."""
    x = picture(64, 96)
    running = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())

    class Interrupted(nn.Module):
        """Lets another network, and itself, run in another thread while it is traced."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.seen = nn.Conv2d(3, 4, 1), []

        def forward(self, x):
            if not isinstance(x, torch.Tensor) and not self.seen:
                with ThreadPoolExecutor(1) as pool:
                    still = picture(64, 96)
                    self.seen.append(pool.submit(lambda: (running(still), self.conv(still))).result())
            return self.conv(x)

    with torch.no_grad():
        interrupted = Interrupted()
        packed = pack_convolutions(interrupted, x)
        assert type(packed).__name__ != "Interrupted", "it was rewritten"
        ((other, own),) = interrupted.seen
        torch.testing.assert_close(other, running(x))
        torch.testing.assert_close(own, interrupted.conv(x))
        torch.testing.assert_close(packed(x), own)
