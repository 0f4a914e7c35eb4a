"""Rounding a matrix to nearest: against a slow computation block by block, PyTorch's own, and laws."""

import itertools
import math
import statistics

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from supertf.compression.quantization.rounding import (
    FACTORS,
    Scheme,
    block_count,
    from_blocks,
    round_to_nearest,
    to_blocks,
)

ROWS, COLUMNS = 8, 12
BLOCKS = ["tensor", "channel", 1, 4, 12, 16, 24, (2, 3), (8, 4), (4, 12), (1, 1)]
CLIPS = ["none", "z0", "z1", "z2.5", "p50", "p90", "p100", "error", "output"]
schemes = st.builds(Scheme, st.integers(2, 8), st.sampled_from(BLOCKS), st.booleans(), st.sampled_from(CLIPS))
fractions = st.sampled_from([0.0, 0.02, 0.3, 1.0])


def problem(seed, fraction=0.0, dtype=torch.float64, rows=ROWS, columns=COLUMNS):
    """A matrix with a few outliers, a mask of held weights, and squares of its inputs."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    weight *= torch.where(torch.rand(weight.shape, generator=generator) < 0.1, 8.0, 1.0)
    held = torch.rand(weight.shape, generator=generator) < fraction
    squares = torch.rand(columns, generator=generator, dtype=torch.float64) ** 4 * 100
    return weight.to(dtype), held, squares


def members(block, rows=ROWS, columns=COLUMNS):
    """The places (i, j) of every block, written out apart from the package."""
    places = list(itertools.product(range(rows), range(columns)))
    if block == "tensor":
        return [places]
    if block == "channel":
        return [[place for place in places if place[0] == i] for i in range(rows)]
    if isinstance(block, int):
        return [places[i : i + block] for i in range(0, len(places), block)]
    corners = itertools.product(range(0, rows, block[0]), range(0, columns, block[1]))
    return [
        [(i, j) for i, j in places if i // block[0] == a // block[0] and j // block[1] == b // block[1]]
        for a, b in corners
    ]


def levels_of(values, limit, scheme):
    """(first level, step, number of levels) of free values clipped at +-limit."""
    clipped = [min(max(value, -limit), limit) for value in values]
    if scheme.symmetric:
        top = 2 ** (scheme.bits - 1) - 1
        reach = max(map(abs, clipped))
        return -top * (reach / top), reach / top, 2 * top + 1
    return min(clipped), (max(clipped) - min(clipped)) / (2**scheme.bits - 1), 2**scheme.bits


def nearest(value, first, step, count):
    """The level next to a value."""
    if step == 0:
        return first
    code = min(max(round((value - first) / step), 0), count - 1)
    return first + code * step


def limits_tried(values, scheme):
    """The limits that a clip allows: one, or all that the least error is sought among."""
    sizes = sorted(map(abs, values))
    if scheme.clip in ("error", "output"):
        return [factor * sizes[-1] for factor in FACTORS]
    if scheme.clip.startswith("z"):
        deviation = statistics.stdev(sizes) if len(sizes) > 1 else 0.0
        return [statistics.fmean(sizes) + float(scheme.clip[1:]) * deviation]
    if scheme.clip.startswith("p"):
        return [sizes[math.ceil(len(sizes) * float(scheme.clip[1:]) / 100) - 1]]
    return [math.inf]


@settings(deadline=None, max_examples=120)
@given(schemes, st.integers(0, 10_000), fractions)
@example(Scheme(2, 4, False, "p50"), 0, 0.3)  # a block whose clipped weights are all the same
def test_it_is_the_slow_computation_of_each_block_alone(scheme, seed, fraction):
    weight, held, squares = problem(seed, fraction)
    found = round_to_nearest(weight, scheme, held, squares=squares)
    numbers, result = weight.tolist(), found.tolist()
    assert torch.equal(found[held], weight[held])
    for block in members(scheme.block):
        free = [(i, j) for i, j in block if not held[i, j]]
        if not free:
            continue
        values = [numbers[i][j] for i, j in free]
        candidates = []  # (error, values) of every limit
        for limit in limits_tried(values, scheme):
            grid = levels_of(values, limit, scheme)
            slow = [nearest(value, *grid) for value in values]
            count = [squares[j].item() if scheme.clip == "output" else 1.0 for _, j in free]
            error = sum(c * (q - w) ** 2 for c, q, w in zip(count, slow, values, strict=True))
            candidates.append((error, slow))
        here = [result[i][j] for i, j in free]
        least, _ = min(candidates, key=lambda pair: pair[0])
        close = [slow for error, slow in candidates if error <= least * (1 + 1e-9) + 1e-12]
        assert any(here == pytest.approx(slow, rel=1e-9, abs=1e-9) for slow in close)


@settings(deadline=None, max_examples=60)
@given(schemes, st.integers(0, 10_000), st.sampled_from([torch.float32, torch.float64]))
def test_weights_inside_the_clip_are_off_by_half_a_step_at_most(scheme, seed, dtype):
    if scheme.clip in ("error", "output"):
        scheme = Scheme(scheme.bits, scheme.block, scheme.symmetric, "z2")
    weight = problem(seed, dtype=dtype)[0]
    found = round_to_nearest(weight, scheme).double()
    for block in members(scheme.block):
        at = tuple(torch.tensor(block).T)
        values, here = weight[at].double(), found[at]
        (limit,) = limits_tried(values.tolist(), scheme)
        first, step, count = levels_of(values.tolist(), limit, scheme)
        slack = 1e-5 if dtype == torch.float32 else 1e-12
        off, last = (here - values).abs(), first + (count - 1) * step
        inside = (values >= first) & (values <= last)
        assert (off[inside] <= step / 2 + slack).all()
        assert torch.allclose(here[~inside], values[~inside].clamp(first, last), atol=slack)
        assert len(here.unique()) <= count


@settings(deadline=None, max_examples=60)
@given(schemes, st.integers(0, 10_000), fractions)
def test_rounding_again_changes_nothing_without_a_clip(scheme, seed, fraction):
    scheme = Scheme(scheme.bits, scheme.block, scheme.symmetric)
    weight, held, _ = problem(seed, fraction)
    once = round_to_nearest(weight, scheme, held)
    assert torch.allclose(round_to_nearest(once, scheme, held), once, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_block_has_2_to_the_bits_levels_evenly_spread_one_less_when_symmetric(bits, symmetric):
    weight = torch.linspace(-1, 1, 4096, dtype=torch.float64).view(4, 1024)
    found = round_to_nearest(weight, Scheme(bits, "tensor", symmetric)).unique()
    count = 2**bits - symmetric
    assert torch.allclose(found, torch.linspace(-1, 1, count, dtype=torch.float64), atol=1e-12)
    exact = found.repeat(2, 1)
    assert torch.allclose(round_to_nearest(exact, Scheme(bits, "channel", symmetric)), exact, atol=1e-12)


@pytest.mark.parametrize("bits", range(2, 9))
def test_symmetric_channels_and_tensors_are_those_of_pytorch(bits):
    weight = problem(bits, dtype=torch.float32, rows=40, columns=30)[0]
    top = 2 ** (bits - 1) - 1
    scales = weight.abs().amax(1) / top
    zeros = torch.zeros(40, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -top, top)
    assert torch.allclose(round_to_nearest(weight, Scheme(bits, "channel", True)), theirs, atol=1e-6)
    theirs = torch.fake_quantize_per_tensor_affine(weight, float(weight.abs().max() / top), 0, -top, top)
    assert torch.allclose(round_to_nearest(weight, Scheme(bits, "tensor", True)), theirs, atol=1e-6)


@pytest.mark.parametrize("bits", range(2, 9))
def test_asymmetric_is_that_of_pytorch_where_zero_is_a_level(bits):
    top, zero, step = 2**bits - 1, 2**bits // 3, 0.25
    weight = (torch.rand(20, 30, generator=torch.Generator().manual_seed(bits)) * top - zero) * step
    weight[0, :2] = torch.tensor([-zero * step, (top - zero) * step])
    theirs = torch.fake_quantize_per_tensor_affine(weight, step, zero, 0, top)
    assert torch.allclose(round_to_nearest(weight, Scheme(bits, "tensor")), theirs, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(schemes, st.integers(0, 10_000), fractions)
def test_the_least_error_clip_is_never_worse_than_none(scheme, seed, fraction):
    weight, held, squares = problem(seed, fraction)
    how = scheme.bits, scheme.block, scheme.symmetric
    for clip, counts in (("error", torch.ones_like(squares)), ("output", squares)):
        clipped, plain = (
            (round_to_nearest(weight, Scheme(*how, one), held, squares=squares) - weight).square() * counts
            for one in (clip, "none")
        )
        for block in members(scheme.block):
            at = tuple(torch.tensor(block).T)
            assert clipped[at].sum() <= plain[at].sum() * (1 + 1e-12)


def test_the_least_error_clip_gives_up_an_outlier_for_the_many():
    weight = torch.randn(1, 4096, generator=torch.Generator().manual_seed(0))
    weight[0, 5] = 12.0
    plain, clipped = (round_to_nearest(weight, Scheme(4, "tensor", clip=clip)) for clip in ("none", "error"))
    assert (clipped - weight).square().sum() < 0.5 * (plain - weight).square().sum()
    assert clipped.max() < 6
    held = torch.zeros_like(weight, dtype=torch.bool)
    held[0, 5] = True
    both = round_to_nearest(weight, Scheme(4, "tensor", clip="error"), held)
    assert both[0, 5] == 12
    assert (both - weight).square().sum() < 0.6 * (clipped - weight).square().sum()


def test_inputs_that_carry_much_decide_where_to_clip_for_the_output():
    weight, _, squares = problem(3)
    squares[2] = 1e6
    at = {}
    for clip in ("error", "output"):
        found = round_to_nearest(weight, Scheme(3, "channel", clip=clip), squares=squares)
        at[clip] = (found - weight)[:, 2].abs().sum()
    assert at["output"] < 0.5 * at["error"]


@settings(deadline=None, max_examples=60)
@given(schemes, st.integers(0, 10_000), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_held_weights_keep_their_bits_and_other_blocks_do_not_notice(scheme, seed, dtype):
    weight, held, squares = problem(seed, 0.05, dtype)
    weight[0, 0], held[0, 0] = -0.0, True  # a zero has a sign to lose
    before = weight.clone()
    free, found = (round_to_nearest(weight, scheme, mask, squares=squares) for mask in (None, held))
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    assert found.dtype == dtype
    assert torch.equal(weight.view(bits), before.view(bits))
    assert torch.equal(found[held].view(bits), weight[held].view(bits))
    for block in members(scheme.block):
        at = tuple(torch.tensor(block).T)
        if not held[at].any():
            assert torch.equal(found[at], free[at])


@pytest.mark.parametrize("block", [*BLOCKS[:2], 4, (2, 3)])
def test_holding_out_the_largest_weight_narrows_the_steps_of_its_block_only(block):
    weight = problem(1)[0]
    weight[3, 7] = 50.0
    held = torch.zeros_like(weight, dtype=torch.bool)
    held[3, 7] = True
    free, found = (round_to_nearest(weight, Scheme(4, block, True), mask) for mask in (None, held))
    assert free[3, 7] == pytest.approx(50)  # it is a level itself: alone it would lose nothing
    for places in members(block):
        at = tuple(torch.tensor(places).T)
        if (3, 7) in places:
            others = weight[at] != 50
            errors = [(one[at] - weight[at])[others].square().sum() for one in (free, found)]
            assert errors[1] < errors[0]
        else:
            assert torch.equal(found[at], free[at])


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("clip", CLIPS)
def test_blocks_of_equal_weights_and_of_zeros_are_exact(symmetric, clip):
    weight = torch.tensor([[0.0, 0, 0, 0], [2, 2, 2, 2], [-3, -3, -3, -3]])
    found = round_to_nearest(weight, Scheme(4, "channel", symmetric, clip), squares=torch.ones(4))
    assert torch.allclose(found, weight)


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_are_put_together_as_they_were_taken_apart(block):
    matrix = torch.arange(ROWS * COLUMNS).view(ROWS, COLUMNS)
    blocks = to_blocks(matrix, block)
    assert len(blocks) == block_count(matrix.shape, block) == len(members(block))
    assert torch.equal(from_blocks(blocks, matrix.shape, block), matrix)
    transposed = matrix.t().contiguous().t()  # as GPT-2's class keeps its matrices
    assert torch.equal(to_blocks(transposed, block), blocks)


@given(schemes)
def test_a_scheme_is_read_as_it_is_written(scheme):
    assert Scheme.parse(str(scheme)) == scheme


def test_what_a_text_leaves_out_is_the_default():
    assert Scheme.parse("int4") == Scheme() == Scheme(4, 64, False, "none")
    assert str(Scheme(8, (64, 32), True, "z4")) == "int8 block=64x32 clip=z4 symmetric"
