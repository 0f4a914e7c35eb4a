"""The path that leaves the work out computes what the masked one does, and is gone afterwards."""

import contextlib
import copy
import functools
import io
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from planted import IDS, LENGTH, held, step_by_step

from supertf.compression.calibration import calibrate
from supertf.compression.pruning.dynamic import Cut, cut_to, dynamically_pruned, plan_dynamic
from supertf.compression.pruning.groups import how_many
from supertf.compression.pruning.input_quantiles import input_sizes, principal_axes
from supertf.compression.pruning.static import plan_static
from supertf.compression.quantization.plan import plan_quantization
from supertf.compression.speed.kernels import limited_threads
from supertf.compression.speed.skipped_columns import Skipping, skipping
from supertf.compression.verbs import prune, pruned, quantized
from supertf.errors import UserError
from supertf.experiments.smollm2_longer import text
from supertf.model.config import GPTConfig
from supertf.model.generation import generate
from supertf.model.gpt import GPT
from supertf.model.weight_matrices import matrices, parse
from supertf.superweights.edit import scaled_weights

pytestmark = [pytest.mark.kernels, pytest.mark.usefixtures("one_thread")]
KINDS = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
BASE = {
    "vocab_size": 50,
    "n_ctx": 64,
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 16,
    "n_inner": 40,
    "mlp": "swiglu",
    "position": "rope",
    "norm": "rmsnorm",
    "bias": False,
    "tie_head": False,
    "init_std": 0.25,
}
MODELS = {
    "SwiGLU": {},
    "SwiGLU with biases": {"bias": True, "norm": "layernorm"},
    "GELU with biases": {"mlp": "gelu", "bias": True, "norm": "layernorm", "n_inner": 64},
    "odd widths": {"n_embd": 15, "n_head": 3, "position": "none", "n_inner": 41, "bias": True},
    "columns in parts": {"n_inner": 260},
}


@pytest.fixture(scope="module")
def models():
    """By name: a model, the sizes of its inputs and gates, and those along principal axes."""
    return {name: prepared(GPTConfig(**{**BASE, **changes})) for name, changes in MODELS.items()}


def prepared(config):
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.2)
    sums = calibrate(model, IDS, LENGTH, products=True)
    sizes = {
        "inputs": input_sizes(model, IDS, LENGTH),
        "gate": input_sizes(model, IDS, LENGTH, of="gate") if config.mlp == "swiglu" else None,
        "axes": input_sizes(model, IDS, LENGTH, axes=principal_axes(sums, KINDS)),
    }
    return model, sizes


def planned(prepared, method, share, axes=False, protect=(), matrices=None):
    model, sizes = prepared
    own = sizes["axes"] if axes else {**sizes, "top": None}[method]
    return plan_dynamic(model, method, share, own, protect=protect, matrices=matrices)


@torch.no_grad()
def narrowest(model, found, tokens):
    """How near any input comes to being dropped instead of kept or the other way round, in the unit of the
    largest of its token: where it is nearer than float32 is exact, two ways to sum up may disagree."""
    gaps = [math.inf]

    def look(cut, x):
        x = x.flatten(0, -2) if cut.axes is None else x.flatten(0, -2) @ cut.axes
        sizes = (x.abs() / x.abs().amax(-1, keepdim=True)).sort(-1).values  # (T, size)
        gone = how_many(cut.sparsity, cut.size)
        if cut.threshold is not None:
            gaps.append(float((x.abs() - cut.threshold).abs().min() / x.abs().max()))
        elif 0 < gone < cut.size:
            gaps.append(float((sizes[:, gone] - sizes[:, gone - 1]).min()))

    hooks = []
    for name, cut in found.cuts.items():
        module = model.get_submodule(name)
        if found.method == "gate":
            hook = module.register_forward_hook(
                lambda _, __, y, cut=cut: look(cut, F.silu(y.chunk(2, -1)[0]))
            )
        else:
            hook = module.register_forward_pre_hook(lambda _, x, cut=cut: look(cut, x[0]))
        hooks.append(hook)
    with dynamically_pruned(model, found):
        step_by_step(model, tokens)
    for hook in hooks:
        hook.remove()
    return min(gaps)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(list(MODELS)),
    st.sampled_from(["inputs", "gate", "top"]),
    st.booleans(),
    st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 14), st.integers(0, 39)), max_size=3),
    st.lists(st.integers(0, 49), min_size=1, max_size=4),
)
def test_skipping_computes_what_masking_does(models, name, method, axes, share, protect, tokens):
    model, _ = models[name]
    assume(method != "gate" or model.config.mlp == "swiglu")
    axes = axes and method != "gate"
    found = planned(models[name], method, share, axes, () if axes else protect)
    assume(narrowest(model, found, tokens) > 1e-5)
    with dynamically_pruned(model, found):
        expected = step_by_step(model, tokens)
    with skipping(model, found):
        logits = step_by_step(model, tokens)
        with torch.no_grad():
            whole = model(torch.tensor([tokens])).logits[0]
    assert torch.allclose(logits, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))
    assert torch.allclose(whole, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))
    assert not held(model)


@pytest.mark.parametrize("out", [1, 7, 255, 256, 510, 1024, 2048, 2056])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_of_any_width_computes_its_product_with_the_inputs_that_count(out, bias):
    torch.manual_seed(out)
    layer = torch.nn.Linear(33, out, bias=bias)
    axes = torch.linalg.qr(torch.randn(33, 33)).Q
    for threshold, turn, shape in itertools.product(
        [0.0, 0.7, 99.0], [None, axes], [(33,), (1, 33), (1, 1, 33)]
    ):
        cut = Cut(33, 0.5, threshold, axes=turn)
        x = torch.randn(shape)
        with torch.inference_mode(), limited_threads():
            expected = F.linear(cut_to(x, cut)[0], layer.weight, layer.bias)
            y = Skipping(layer, cut)(x)
        assert y.shape == expected.shape
        assert torch.allclose(y, expected, rtol=0, atol=1e-5)


def test_columns_that_do_not_count_are_not_read(models):
    model, _ = models["SwiGLU"]
    x = torch.randn(16)
    cut = Cut(16, 0.5, float(x.abs().median()) + 1e-4)
    layer = copy.deepcopy(model.h[0].attn.c_attn)
    with torch.no_grad(), limited_threads():  # else Numba's first call may change how the sum is shared out
        expected = Skipping(layer, cut)(x)
        layer.weight[:, x.abs() < cut.threshold] = torch.nan
        assert torch.equal(Skipping(layer, cut)(x), expected)
        for kept in (x.abs() >= cut.threshold).nonzero()[:, 0]:
            spoiled = copy.deepcopy(layer)
            spoiled.weight[:, kept] = torch.nan
            assert Skipping(spoiled, cut)(x).isnan().all()


def test_rows_and_columns_of_gates_that_do_not_count_are_not_read(models):
    model = copy.deepcopy(models["SwiGLU"][0])
    found = planned(models["SwiGLU"], "gate", 0.5)
    mlp, x = model.h[0].mlp, torch.randn(1, 1, 16)
    with torch.no_grad():
        with skipping(model, found):
            expected = mlp(x)
        gone = F.silu(mlp.c_fc(x)[0, 0, :40]).abs() < found.cuts["h.0.mlp.c_fc"].threshold
        assert 0 < int(gone.sum()) < 40
        mlp.c_fc.weight[40:][gone] = torch.nan
        mlp.c_proj.weight[:, gone] = torch.nan
        with skipping(model, found):
            assert torch.equal(mlp(x), expected)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_generation_writes_the_same_tokens(models, name, share):
    model, _ = models[name]
    methods = ["inputs", "top"] + ["gate"] * (model.config.mlp == "swiglu")
    for method in methods:
        found = planned(models[name], method, share, protect=[(1, 3, 5)])
        with dynamically_pruned(model, found):
            expected = generate(model, [3, 1, 4], 12)
        with skipping(model, found):
            assert generate(model, [3, 1, 4], 12) == expected
            assert generate(model, [3], 3, use_cache=False) == generate(model, [3], 3)
        if share == 0:
            assert generate(model, [3, 1, 4], 12) == expected


def test_the_head_skips_too_though_its_weights_are_the_embeddings():
    model, _ = prepared(GPTConfig(**{**BASE, "tie_head": True}))
    found = plan_dynamic(model, "top", 0.5, matrices=["lm_head"])
    with dynamically_pruned(model, found):
        expected = step_by_step(model, [3, 1, 4])
    with skipping(model, found):
        assert torch.allclose(step_by_step(model, [3, 1, 4]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["inputs", "gate", "top"])
def test_nothing_is_left_behind_also_after_an_exception(models, method):
    model, _ = models["SwiGLU with biases"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    storages = [tensor.data_ptr() for tensor in model.state_dict().values()]
    plain = step_by_step(model, [3, 1, 4])
    with pytest.raises(KeyError), skipping(model, planned(models["SwiGLU with biases"], method, 0.5)):
        assert not torch.equal(step_by_step(model, [3, 1, 4]), plain)
        raise KeyError("something went wrong inside")
    assert not held(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert storages == [tensor.data_ptr() for tensor in model.state_dict().values()]
    assert torch.equal(step_by_step(model, [3, 1, 4]), plain)


def test_a_copy_or_a_file_made_inside_is_the_plain_model(models):
    (model, _), file = models["SwiGLU"], io.BytesIO()
    plain = step_by_step(model, [3, 1, 4])
    sparse = plan_static(model, "magnitude", 0.5, matrices=["attn.c_proj"], progress=False)
    with skipping(model, planned(models["SwiGLU"], "gate", 0.9)):
        twin, lighter = copy.deepcopy(model), prune(model, sparse)
        torch.save(model, file)
    file.seek(0)
    for one in (twin, torch.load(file, weights_only=False)):
        assert torch.equal(step_by_step(one, [3, 1, 4]), plain) and not held(one)
    assert torch.equal(step_by_step(lighter, [3, 1, 4]), step_by_step(prune(model, sparse), [3, 1, 4]))


@pytest.mark.parametrize("method", ["inputs", "gate"])
@pytest.mark.parametrize("way", ["prune", "quantize"])
def test_static_changes_come_first_and_are_refused_inside(models, way, method):
    model, _ = models["SwiGLU"]
    found = planned(models["SwiGLU"], method, 0.5)
    if way == "prune":
        static = pruned, plan_static(model, "magnitude", 0.5, progress=False)
    else:
        static = quantized, plan_quantization(model, "int4 block=8", progress=False)
    plain = step_by_step(model, [3, 1, 4])
    with static[0](model, static[1]):
        with dynamically_pruned(model, found):
            expected = step_by_step(model, [3, 1, 4])
        with skipping(model, found):
            assert torch.allclose(step_by_step(model, [3, 1, 4]), expected, rtol=0, atol=1e-5)
    refused = pytest.raises(UserError, match=r"laid out for skipping.*change them first")
    with skipping(model, found), refused, static[0](model, static[1]):
        pass
    assert torch.equal(step_by_step(model, [3, 1, 4]), plain)


def test_single_weights_are_edited_first_or_refused(models):
    model, _ = models["SwiGLU"]
    found = planned(models["SwiGLU"], "top", 0.1, matrices=["mlp.c_proj"])
    with skipping(model, found):
        plain = step_by_step(model, [3, 1, 4])
        refused = pytest.raises(UserError, match=r"^h\.1\.mlp\.c_proj is packed, or laid out for skipping")
        with refused, scaled_weights(model, [(1, 3, 5)]):
            pass
    with scaled_weights(model, [(1, 3, 5)], 50.0), skipping(model, found):
        assert not torch.allclose(step_by_step(model, [3, 1, 4]), plain, atol=1e-3)


def test_what_another_context_prunes_is_refused_and_other_matrices_are_not(models):
    model, _ = models["SwiGLU"]
    gate, attention, down, everything = (
        planned(models["SwiGLU"], "gate", 0.5),
        planned(models["SwiGLU"], "inputs", 0.5, matrices=["attn.c_attn", "attn.c_proj"]),
        planned(models["SwiGLU"], "inputs", 0.5, matrices=["mlp.c_proj"]),
        planned(models["SwiGLU"], "top", 0.5),
    )
    with dynamically_pruned(model, gate), dynamically_pruned(model, attention):
        expected = step_by_step(model, [3, 1, 4])
    with skipping(model, gate), skipping(model, attention):
        logits = step_by_step(model, [3, 1, 4])
        for context, found in itertools.product((skipping, dynamically_pruned), (gate, everything)):
            with pytest.raises(UserError, match="pruned dynamically already"), context(model, found):
                pass
        refused = pytest.raises(UserError, match=r"h\.0\.mlp\.c_proj is packed, or skips, already")
        with refused, skipping(model, down):
            pass
        assert torch.equal(step_by_step(model, [3, 1, 4]), logits)  # what was refused changed nothing
    assert torch.allclose(logits, expected, rtol=0, atol=1e-5)
    with dynamically_pruned(model, gate), pytest.raises(UserError, match="already"), skipping(model, gate):
        pass


@pytest.mark.real_model
@torch.no_grad()
def test_every_product_of_the_real_models_generation_is_the_masked_one(smollm2):
    """Products, not texts: where an input lies at its threshold, rounding decides, and texts may part."""
    ids = text("library-docs", 0, 127)
    layers = {name: matrix.module for name, matrix in matrices(smollm2, KINDS).items()}
    for method in ("inputs", "gate"):
        kinds = KINDS[1::2] if method == "inputs" else None  # the output projections
        sizes = input_sizes(smollm2, ids, 128, of=method, matrices=kinds)
        found = plan_dynamic(smollm2, method, 0.5, sizes, protect=[parse("11[507, 1229]")], matrices=kinds)
        seen: list = []
        with contextlib.ExitStack() as hooks, skipping(smollm2, found):
            for name, layer in layers.items():
                keep = functools.partial(lambda name, to, _, x, y: to.append((name, x[0], y)), name, seen)
                hooks.callback(layer.register_forward_hook(keep).remove)
            generate(smollm2, ids[:8], 3)
        assert len(seen) == 3 * len(layers)
        for name, x, y in seen:
            weight, cut = layers[name].weight, found.cuts.get(name)
            expected = F.linear(x if cut is None or method == "gate" else cut_to(x, cut)[0], weight)
            if method == "gate" and cut:  # what the down projection is given
                (gate, up), (left, right) = expected.chunk(2, -1), y.chunk(2, -1)
                expected = F.silu(gate) * up * cut.counts(F.silu(gate))
                border = (F.silu(gate).abs() - cut.threshold).abs() < 1e-5
                assert int(border.sum()) <= 0.002 * border.numel()
                y = torch.where(border, expected, F.silu(left) * right)
            assert torch.allclose(y, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))
