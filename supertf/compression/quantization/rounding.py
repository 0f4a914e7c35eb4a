"""A matrix in few bits: every block of its weights is rounded to evenly spaced levels, and read back.

The levels of a block reach from its smallest to its largest weight, or less far where they are clipped: one
large weight spreads the levels of its whole block, and the others pay for it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supertf.device import in_float64
from supertf.errors import UserError

Block = str | int | tuple[int, int]
CLIPS = "none, z4 (4 standard deviations of |w| above its mean), p99.9 (its percentile), error or output"
FACTORS = tuple(0.95**step for step in range(45))  # 1 to 0.1: times its largest weight a block may be clipped


@dataclass(frozen=True)
class Scheme:
    """How weights are rounded.

    Attributes:
        bits: 2 to 8.
        block: the weights that share their levels. "tensor": the matrix; "channel": a row W[out, :]; a
            number: so many consecutive weights, read row after row, which need not respect rows (what Yu et
            al. 2024's code calls 128x128 is 16,384 of them); (rows, columns): tiles of the matrix.
        symmetric: whether zero is the middle level of 2^bits - 1, from -a to a; else 2^bits levels reach from
            the smallest weight to the largest.
        clip: the magnitude that levels reach at most, by block: "none"; "z4", the mean plus 4 standard
            deviations of |w|, as in the paper; "p99.9", the magnitude that 99.9 % of the weights do not
            exceed; "error", the one of FACTORS times the largest weight that leaves the least squared error;
            "output", the same with each error weighed by its input channel's sum of squares on a calibration
            text, so that it is the least error of the matrix's output (as if channels were uncorrelated).

    Raises:
        UserError: anything else.
    """

    bits: int = 4
    block: Block = 64
    symmetric: bool = False
    clip: str = "none"

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 2 <= self.bits <= 8:
            raise UserError(f"bits is {self.bits!r}, expected a whole number from 2 to 8")
        sizes = self.block if isinstance(self.block, tuple) else (self.block,)
        tile = len(sizes) in (1, 2) and all(type(size) is int and size >= 1 for size in sizes)
        if self.block not in ("tensor", "channel") and not tile:
            raise UserError(
                f"block is {self.block!r}; expected tensor, channel, a number of consecutive weights such as "
                "64, or rows and columns of a tile such as 64x64"
            )
        parse_clip(self.clip)

    @classmethod
    def parse(cls, text: str) -> "Scheme":
        """Read a scheme as `str` writes it.

        Args:
            text: such as "int4 block=64 clip=error symmetric"; all but the bits may be left out, and is then
                as in `Scheme`.

        Raises:
            UserError: anything else.
        """
        form = r"int(\d+)(?: block=(\S+))?(?: clip=(\S+))?( symmetric)?"
        match = re.fullmatch(form, " ".join(text.split()))
        if not match:
            raise UserError(
                f"scheme {text!r}; expected intBITS block=BLOCK clip=CLIP symmetric, of which all but the "
                "bits may be left out, for example 'int4 block=64 clip=error'"
            )
        bits, block, clip, symmetric = match.groups()
        return cls(int(bits), parse_block(block or "64"), bool(symmetric), clip or "none")

    def __str__(self) -> str:
        block = "x".join(map(str, self.block)) if isinstance(self.block, tuple) else self.block
        clip = "" if self.clip == "none" else f" clip={self.clip}"
        return f"int{self.bits} block={block}{clip}{' symmetric' if self.symmetric else ''}"


def parse_block(text: str) -> Block:
    """A block as people write it: 64, 64x64, channel, tensor. What is none of these stays as it is."""
    if re.fullmatch(r"\d+", text):
        return int(text)
    tile = re.fullmatch(r"(\d+)x(\d+)", text)
    return (int(tile[1]), int(tile[2])) if tile else text


def parse_clip(text: str) -> tuple[str, float]:
    """("z", 4.0) of "z4", ("p", 99.9) of "p99.9", 0 beside the names that have no number; or `UserError`."""
    if text in ("none", "error", "output"):
        return text, 0.0
    match = re.fullmatch(r"([zp])(\d+(?:\.\d+)?)", str(text))
    if not match or (match[1] == "p" and not 0 < float(match[2]) <= 100):
        raise UserError(f"clip is {text!r}; expected {CLIPS}")
    return match[1], float(match[2])


@torch.no_grad()
def round_to_nearest(
    weight: Tensor,
    scheme: Scheme,
    held: Tensor | None = None,
    *,
    squares: Tensor | None = None,
    name: str = "the matrix",
) -> Tensor:
    """Replace each weight by the nearest of its block's levels.

    Levels are computed in float32 (float64 for float64 weights): a narrower dtype rounds them once more.

    Args:
        weight: (out, in).
        scheme: how.
        held: (out, in) bool, True where a weight keeps its value; it then counts neither for the levels'
            range nor for the clip.
        squares: (in,), of a `Calibration`, for clip=output.
        name: the matrix's, for messages.

    Returns:
        A new tensor, (out, in), same dtype.

    Raises:
        UserError: blocks do not divide the matrix, or clip=output has no squares of its inputs.
    """
    check_block(name, weight.shape, scheme.block)
    clip, value = parse_clip(scheme.clip)
    wide = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    blocks = to_blocks(wide, scheme.block)  # (n, size)
    free = None if held is None or not held.any() else ~to_blocks(held, scheme.block)
    low, high = span(blocks, free)
    if clip in ("error", "output"):
        counts = free
        if clip == "output":
            counts = to_blocks(importance(wide, squares, name), scheme.block)
            counts = counts if free is None else counts * free
        limit = least_error(blocks, counts, low, high, scheme)
    else:
        limit = limits(blocks, free, clip, value)
    result = from_blocks(to_levels(blocks, low, high, limit, scheme), weight.shape, scheme.block)
    result = result.to(weight.dtype)
    return result if held is None else torch.where(held, weight.detach(), result)


def importance(weight: Tensor, squares: Tensor | None, name: str) -> Tensor:
    """What a squared error of each weight counts in the output, (out, in); `UserError` without squares."""
    if squares is None or len(squares) != weight.shape[1]:
        inputs = 0 if squares is None else len(squares)
        raise UserError(
            f"clip=output needs a calibration that has the {weight.shape[1]} inputs of {name}, got {inputs}: "
            "give `calibrate(model, ids)` of a short text, or choose clip=error"
        )
    return squares.to(weight.dtype).to(weight.device).expand_as(weight).contiguous()


def check_block(name: str, shape: Sequence[int], block: Block) -> None:
    """`UserError` unless a matrix of this shape (out, in) divides into such blocks."""
    rows, columns = shape
    if isinstance(block, tuple):
        if rows % block[0] or columns % block[1]:
            raise UserError(
                f"{name} is {rows} x {columns}, which does not divide into tiles of {block[0]} x {block[1]}"
            )
    elif isinstance(block, int) and rows * columns % block:
        raise UserError(
            f"{name} has {rows} x {columns} = {rows * columns} weights, which do not divide into blocks of "
            f"{block}"
        )


def to_blocks(matrix: Tensor, block: Block) -> Tensor:
    """A matrix (out, in) as its blocks, (n, size); no copy where they are consecutive."""
    if isinstance(block, tuple):
        tiles = matrix.unflatten(0, (-1, block[0])).unflatten(2, (-1, block[1]))
        return tiles.transpose(1, 2).reshape(-1, block[0] * block[1])  # (out/r, in/c, r, c) -> (n, r * c)
    return matrix.reshape(block_count(matrix.shape, block), -1)


def from_blocks(blocks: Tensor, shape: Sequence[int], block: Block) -> Tensor:
    """The matrix (out, in) whose `to_blocks` are these."""
    if isinstance(block, tuple):
        tiles = blocks.view(shape[0] // block[0], -1, *block).transpose(1, 2)  # (out/r, r, in/c, c)
        return tiles.reshape(*shape)
    return blocks.view(*shape)


def block_count(shape: Sequence[int], block: Block) -> int:
    """Blocks of a matrix of this shape (out, in)."""
    rows, columns = shape
    if isinstance(block, str):
        return 1 if block == "tensor" else rows
    return rows * columns // (block if isinstance(block, int) else math.prod(block))


def span(blocks: Tensor, free: Tensor | None) -> tuple[Tensor, Tensor]:
    """The smallest and largest free weight of each block, (n, 1) each; 0 and 0 where none is free."""
    if free is None:
        return blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)
    low = blocks.masked_fill(~free, torch.inf).amin(1, keepdim=True)
    high = blocks.masked_fill(~free, -torch.inf).amax(1, keepdim=True)
    return low.masked_fill(~low.isfinite(), 0.0), high.masked_fill(~high.isfinite(), 0.0)


def to_levels(blocks: Tensor, low: Tensor, high: Tensor, limit: Tensor, scheme: Scheme) -> Tensor:
    """The nearest level of each weight, (n, size).

    low, high: the range of each block, (n, 1), which its levels span as far as +-limit (n, 1) allows.
    """
    low, high = low.clamp(-limit, limit), high.clamp(-limit, limit)
    if scheme.symmetric:
        top = 2 ** (scheme.bits - 1) - 1
        bottom, start, step = -top, torch.zeros_like(low), torch.maximum(-low, high) / top
    else:
        top = 2**scheme.bits - 1
        bottom, start, step = 0, low, (high - low) / top
    divisor = step.masked_fill(step == 0, 1.0)  # a range of a single number: it is every weight's level
    return blocks.sub(start).div_(divisor).round_().clamp_(bottom, top).mul_(step).add_(start)


def limits(blocks: Tensor, free: Tensor | None, clip: str, value: float) -> Tensor:
    """The magnitude that each block's levels may reach.

    Args:
        blocks: weights, (n, size).
        free: like them, bool, False where a weight is held out; None where none is.
        clip: "none", "z" or "p", see `Scheme`.
        value: its number, such as 4 of "z4".

    Returns:
        (n, 1), infinite where nothing is clipped.
    """
    if clip == "none":
        return blocks.new_full((len(blocks), 1), torch.inf)
    sizes = blocks.abs()
    free = torch.ones_like(blocks, dtype=torch.bool) if free is None else free
    count = free.sum(1, keepdim=True).clamp(min=1)
    if clip == "p":
        order = sizes.masked_fill(~free, torch.inf).sort(dim=1).values
        rank = (in_float64(count) * value / 100).ceil().long().clamp(min=1).to(order.device)
        return order.gather(1, rank - 1)
    mean = sizes.mul(free).sum(1, keepdim=True) / count
    squares = (sizes - mean).square_().mul_(free).sum(1, keepdim=True)
    return mean + value * (squares / (count - 1).clamp(min=1)).sqrt()


def least_error(blocks: Tensor, counts: Tensor | None, low: Tensor, high: Tensor, scheme: Scheme) -> Tensor:
    """Of all FACTORS times each block's largest weight the limit with the least squared error, (n, 1).

    counts: what the error of each weight counts, (n, size); None is the same for all.
    """
    limit = reach = torch.maximum(-low, high)
    best = torch.full_like(reach, torch.inf)
    for factor in FACTORS:
        errors = to_levels(blocks, low, high, reach * factor, scheme).sub_(blocks).square_()
        if counts is not None:
            errors.mul_(counts)
        error = errors.sum(1, keepdim=True)
        limit = torch.where(error < best, reach * factor, limit)
        best = torch.minimum(error, best)
    return limit
