"""Convolutions for the CPU as oneDNN likes them best: weights reordered once, what follows done in the same pass.

PyTorch's eager convolution reorders its weights in every call and writes its result before an activation or an addition
reads it again; without that BSDNet-S needs four fifths of the time. The operators are those that torch.compile uses;
here they are put into the network without a compiler.
"""

import logging
import operator
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from bsdnet.errors import first_line

logger = logging.getLogger(__name__)

_OPTIONS: dict[str, Any] = {"padding": 0, "stride": 1, "dilation": 1, "groups": 1}
"""Arguments of a convolution besides weight and bias, with their defaults."""

_TRACING = threading.Lock()
"""While it traces, torch.fx replaces methods of `nn.Module` for the whole process: one at a time can be undone."""


def pack_convolutions(model: nn.Module, x: Tensor) -> nn.Module:
    """Rewrite a network for inference on the CPU at the size of an example; it runs at other sizes, too.

    Every convolution gets packed weights, and takes in a ReLU behind it, an addition, or an addition and a ReLU.
    Results differ from those of `model` by rounding alone: a sum that was rounded before an addition is not any more.

    Args:
        model: in eval mode, with weights in channels_last; it is left as it is.
        x: an example of its input.

    Returns:
        The rewritten network; `model` itself where it cannot be rewritten, whose reason is logged.
    """
    try:
        packed = _rewrite(model, x)
        packed(x)  # an operator that this build of PyTorch lacks shows itself here
    except Exception as error:  # tracing and private operators: whatever goes wrong, the network itself still works
        logger.info("convolutions are not packed: %s", first_line(error))
        return model
    return packed


class _PackedConv(nn.Module):
    """A convolution with packed weights, and perhaps an addition and a ReLU in the same pass."""

    def __init__(self, weight: Tensor, bias: Tensor | None, shape: torch.Size | None, options: dict[str, Any]) -> None:
        super().__init__()
        pairs = [torch.nn.modules.utils._pair(options[name]) for name in ("padding", "stride", "dilation")]
        self._options = (*pairs, options["groups"])
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._options, shape)
        self._bias = bias
        self.relu = False

    def forward(self, x: Tensor, addend: Tensor | None = None) -> Tensor:
        """Map `(B, C, H, W)` as the convolution does, then add `addend`, of the result's shape."""
        ops, weights, act = torch.ops.mkldnn, (self._weight, self._bias, *self._options), "relu" if self.relu else None
        result: Tensor
        if addend is None:
            result = ops._convolution_pointwise(x, *weights, act or "none", [], "")
        else:
            result = ops._convolution_pointwise.binary(x, addend, *weights, "add", 1.0, act, [], "")
        return result


class _Tracer(fx.Tracer):
    """Traces what its own thread calls: another network that runs meanwhile in another thread is left alone."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - whatever a module gives
        """Record a call, or pass it through."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:  # noqa: ANN401
        """Record the use of a parameter, or pass it through."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


class _Shapes(fx.Interpreter):
    """Notes at each node the shape of its result; PyTorch's ShapeProp would print a traceback where one cannot run."""

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - whatever a node gives
        """Compute what a node gives."""
        result = super().run_node(n)
        n.meta["shape"] = result.shape if isinstance(result, Tensor) else None
        return result


def _rewrite(model: nn.Module, x: Tensor) -> fx.GraphModule:
    with _TRACING:
        traced = fx.GraphModule(model, _Tracer().trace(model))
    _Shapes(traced).run(x)
    for node in list(traced.graph.nodes):
        conv = _packed(traced, node)
        if conv is not None:
            _absorb_followers(traced, _replace(traced, node, conv), conv)
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _packed(traced: fx.GraphModule, node: fx.Node) -> _PackedConv | None:
    """Pack the convolution that a node computes; None if it is another thing."""
    if node.op == "call_module":
        conv = traced.get_submodule(str(node.target))
        if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            return None
        weight, bias = conv.weight, conv.bias
        options = {name: getattr(conv, name) for name in _OPTIONS}
    elif node.target is torch.conv2d and len(node.args) == 2 and node.kwargs.keys() <= _OPTIONS.keys():
        try:
            weight, bias = _value(traced, node.args[1]), None
            options = _OPTIONS | {name: _value(traced, value) for name, value in node.kwargs.items()}
        except _NotConstant:
            return None
    else:
        return None
    return _PackedConv(weight.detach(), bias, _shape(node.args[0]), options)


class _NotConstant(Exception):
    """A value depends on the network's input."""


def _value(traced: fx.GraphModule, argument: Any) -> Any:  # noqa: ANN401 - whatever an argument can be
    """The value of an argument that is the same whatever the input, such as a transposed parameter or its shape."""
    if isinstance(argument, (tuple, list)):
        return type(argument)(_value(traced, part) for part in argument)
    if not isinstance(argument, fx.Node):
        return argument
    if argument.op == "get_attr":
        return operator.attrgetter(str(argument.target))(traced)
    if argument.op not in ("call_function", "call_method"):
        raise _NotConstant
    first, *rest = (_value(traced, part) for part in argument.args)
    if argument.op == "call_method":
        return getattr(first, str(argument.target))(*rest)
    function: Any = argument.target
    return function(first, *rest)


def _replace(traced: fx.GraphModule, node: fx.Node, conv: _PackedConv) -> fx.Node:
    name = f"packed_{node.name}"
    traced.add_submodule(name, conv)
    with traced.graph.inserting_before(node):
        new = traced.graph.call_module(name, (node.args[0],))
    new.meta = node.meta
    node.replace_all_uses_with(new)
    traced.graph.erase_node(node)
    return new


def _absorb_followers(traced: fx.GraphModule, node: fx.Node, conv: _PackedConv) -> None:
    """Let a convolution do the addition and the ReLU behind it, as far as nobody else needs what is in between."""
    follower = _only_user(node)
    if follower is not None and follower.target in (operator.add, torch.add) and len(follower.args) == 2:
        addend = follower.args[0] if follower.args[1] is node else follower.args[1]
        if addend is not node and _shape(addend) == _shape(node):
            follower.prepend(node)  # the addend may be computed after the convolution
            node.args = (node.args[0], addend)
            follower.replace_all_uses_with(node)
            traced.graph.erase_node(follower)
            follower = _only_user(node)
    if follower is None or follower.op != "call_module":
        return
    if isinstance(traced.get_submodule(str(follower.target)), nn.ReLU):
        conv.relu = True
        follower.replace_all_uses_with(node)
        traced.graph.erase_node(follower)


def _shape(argument: Any) -> torch.Size | None:  # noqa: ANN401 - whatever an argument can be
    """Shape of what a node computes; None if it is no tensor."""
    return argument.meta.get("shape") if isinstance(argument, fx.Node) else None


def _only_user(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None
