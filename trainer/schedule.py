"""Optimizer and learning rate."""

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


def build_optimizer(model: nn.Module, recipe: OptimizerRecipe) -> torch.optim.AdamW:
    """Build AdamW that decays kernels only: batch norm's terms and biases, all of one dimension, are left alone."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
