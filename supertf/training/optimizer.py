"""AdamW with weight decay on matrices only, and a learning rate that is a plain function of the step."""

import math

import torch
from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two AdamW groups: matrices (embeddings and the head too) decay; everything one-dimensional does not.

    So norms, biases and SSMax's s and b keep their values: pulling s towards 0 would pull attention
    towards the uniform one.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def make_optimizer(
    model: nn.Module, lr: float, weight_decay: float, betas: tuple[float, float] = (0.9, 0.95)
) -> torch.optim.AdamW:
    """AdamW (decoupled weight decay, Loshchilov & Hutter 2019); fused where there is a kernel.

    Args:
        model: already on its device.
        lr: learning rate.
        weight_decay: of matrices; see `parameter_groups`.
        betas: of the moments' moving averages.
    """
    fused = next(model.parameters()).device.type in ("cpu", "cuda", "mps")
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=lr, betas=betas, fused=fused)


def learning_rate(step: int, steps: int, peak: float, warmup: int, final_ratio: float = 0.1) -> float:
    """Learning rate of a step: a straight line up to the peak, then half a cosine down.

    Nothing is carried from step to step, so a resumed run needs no scheduler state.

    Args:
        step: 1 ... `steps`.
        steps: of the whole run.
        peak: reached at step `warmup`.
        warmup: steps of the straight line.
        final_ratio: of the peak, at the last step.
    """
    if step <= warmup:
        return peak * step / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return peak * (final_ratio + (1 - final_ratio) * 0.5 * (1 + math.cos(math.pi * progress)))


def mean_s(model: nn.Module) -> float | None:
    """Mean of SSMax's s over all heads and layers; None for a model without."""
    values = [parameter.detach() for name, parameter in model.named_parameters() if name.endswith("scale.s")]
    return float(torch.cat(values).mean()) if values else None
