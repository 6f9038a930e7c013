"""Optimizer and learning rate."""

from collections.abc import Collection

import torch
from torch import nn

from trainer.recipes import OptimizerRecipe


def learning_rate(recipe: OptimizerRecipe, iteration: int, total: int) -> float:
    """Give the rate of one step: linear warm-up, then polynomial decay to zero.

    Args:
        recipe: peak rate, warm-up and power.
        iteration: number of the step, from 0.
        total: steps of the whole run.
    """
    warmup = min(recipe.warmup_iterations, total // 2)
    if iteration < warmup:
        return recipe.lr * (iteration + 1) / warmup
    done: float = (iteration - warmup) / max(1, total - warmup)
    return float(recipe.lr * (1 - done) ** recipe.poly_power)


def build_optimizer(
    module: nn.Module, recipe: OptimizerRecipe, *, head: Collection[nn.Parameter] = (), head_lr_factor: float = 1.0
) -> torch.optim.AdamW:
    """Build AdamW that decays kernels only: batch norm's terms and biases, all of one dimension, are left alone.

    Args:
        module: what learns.
        recipe: rate and decay.
        head: parameters that learn at another rate.
        head_lr_factor: their rate as a multiple of the others'; each group keeps its own as `lr_factor`.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    apart = {id(parameter) for parameter in head}
    groups = []
    for decayed in (True, False):
        for in_head in (False, True) if apart else (False,):
            chosen = [p for p in parameters if (p.ndim > 1) == decayed and (id(p) in apart) == in_head]
            groups.append(
                {
                    "params": chosen,
                    "weight_decay": recipe.weight_decay if decayed else 0.0,
                    "lr_factor": head_lr_factor if in_head else 1.0,
                }
            )
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of one step's rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
