"""Where a token stands: learned and sinusoidal tables, rotary angles (RoPE, p-RoPE) and ALiBi slopes.

"none" needs no code: with two layers or more the causal mask alone tells order (Irie, arXiv 2501.00659).
"""

import torch
from torch import Tensor

from supertf.device import in_float64


def sinusoidal(positions: Tensor, width: int, rms: float = 0.02) -> Tensor:
    """Fixed sine and cosine features of absolute positions (Vaswani et al. 2017, section 3.5).

    Args:
        positions: (..., T) integers.
        width: how many features.
        rms: their root mean square, which should be that of freshly initialised token embeddings: at their
            natural amplitude of 1 they would drown the tokens, much smaller they would drown in them.

    Returns:
        (..., T, width) float32.
    """
    half = (width + 1) // 2
    far = in_float64(positions)  # fp64 keeps far positions exact
    frequencies = 10000.0 ** (-torch.arange(half, device=far.device, dtype=far.dtype) / half)
    angles = far[..., None] * frequencies  # (..., T, half)
    table = torch.cat([angles.sin(), angles.cos()], dim=-1)[..., :width].float() * (rms * 2**0.5)
    return table.to(positions.device)


def rotary_angles(positions: Tensor, head_dim: int, base: float, fraction: float) -> tuple[Tensor, Tensor]:
    """What rotates channel pairs by their token's position (RoFormer, Su et al. 2021).

    Args:
        positions: (..., T) integers.
        head_dim: channels per head, D; channel i pairs with channel i + D / 2, as in Llama.
        base: pair i turns by base^(-2 i / D) per token, in radians.
        fraction: below 1 only this share of the pairs rotate, the fastest, and the others stand still, which
            leaves channels that carry meaning alone (p-RoPE, Barbero et al. 2024).

    Returns:
        Cosines and signed sines, (..., T, D) float32 each.
    """
    half = head_dim // 2
    far = in_float64(positions)
    index = torch.arange(half, device=far.device, dtype=far.dtype)
    frequencies = base ** (-index / half)
    frequencies[index >= round(fraction * half)] = 0.0
    angles = far[..., None] * frequencies  # (..., T, half)
    # the minus of a rotation sits in the first half of the sines
    cos, sin = torch.cat([angles, angles], dim=-1).cos(), torch.cat([-angles, angles], dim=-1).sin()
    return cos.float().to(positions.device), sin.float().to(positions.device)


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the channel pairs of `x` (B, H, T, D) by angles (B or 1, 1, T, D); keeps x's dtype."""
    cos, sin = (part.to(x.dtype) for part in angles)
    partners = x.roll(x.shape[-1] // 2, dims=-1)  # halves exchanged
    return torch.addcmul(x * cos, partners, sin)


def alibi_slopes(n_head: int) -> Tensor:
    """One slope per head, (H,) float32: logits fall by slope * distance (ALiBi, Press et al. 2022).

    A geometric sequence from 2^(-8/H); for H that is no power of two, the paper's interleaving of the
    sequence of the next larger power.
    """

    def powers(n: int) -> list[float]:
        return [2.0 ** (-8.0 * (i + 1) / n) for i in range(n)]

    closest = 1 << (n_head.bit_length() - 1)
    slopes = powers(closest) + powers(2 * closest)[0::2][: n_head - closest]
    return torch.tensor(slopes)
