"""Dynamic pruning: what does not fit together is refused, in one line, and nothing is left behind."""

import pytest
import torch
from families import tiny
from planted import CONFIG, held, planted_model, sizes_by_method

from supertf.compression.calibration import calibrate
from supertf.compression.pruning.dynamic import dynamically_pruned, plan_dynamic
from supertf.compression.pruning.input_quantiles import input_sizes, principal_axes
from supertf.errors import UserError
from supertf.model.gpt import GPT

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTH = 12
IDS = torch.randint(0, 50, (4 * LENGTH,), generator=torch.Generator().manual_seed(1))
PLANTED = (1, 7, 21)


@pytest.fixture(scope="module")
def model():
    return planted_model()


@pytest.fixture(scope="module")
def sizes(model):
    return sizes_by_method(model, IDS, LENGTH)


@pytest.fixture(scope="module")
def turned(model):
    """Sizes along the principal axes of one kind of matrix."""
    sums = calibrate(model, IDS, LENGTH, products=True)
    return input_sizes(model, IDS, LENGTH, axes=principal_axes(sums, ["mlp.c_proj"]))


BAD = [
    ({"method": "cats"}, "unknown dynamic method 'cats'; choose from inputs, gate, top"),
    ({"sparsity": 50}, "sparsity is 50, expected 0"),
    ({"sparsity": -0.1}, "sparsity is -0.1, expected 0"),
    ({"sparsity": float("nan")}, "sparsity is nan"),
    ({"sparsity": {"h.0.mlp.c_fc": 2}}, "sparsity is 2, expected 0"),
    ({"sparsity": {"h.3.mlp.c_fc": 0.5}}, "no matrix h.3.mlp.c_fc among those to prune, h.0.attn.c_attn to"),
    ({"matrices": ["mlp.down"]}, "choose one or more of attn.c_attn"),
    ({"method": "gate", "matrices": ["mlp.c_fc"]}, "leave matrices out"),
    ({"sizes": None}, r"inputs needs the sizes of the inputs on a short text and was given none"),
    ({"sizes": "gate"}, r"inputs needs the sizes of the inputs .* those of the gate: .*of=\"inputs\""),
    ({"method": "gate", "sizes": "inputs"}, r"gate needs .* those of the inputs: .*of=\"gate\""),
    ({"method": "top", "sizes": "gate"}, "top needs the sizes of the inputs"),
    ({"protect": [(3, 0, 0)]}, "the model has layers 0 to 2"),
    ({"protect": [(0, 16, 0)]}, "is 16 x 40"),
    ({"method": "gate", "sizes": "gate", "protect": [(0, 0, -1)]}, "is 16 x 40"),
    (
        {"sizes": "turned", "protect": [PLANTED]},
        "axes other than its channels: none of these can be protected",
    ),
]


@pytest.mark.parametrize("given, message", BAD)
def test_bad_input_is_refused_in_one_line(model, sizes, turned, given, message):
    asked = {"method": "inputs", "sparsity": 0.5, "sizes": "inputs", **given}
    asked["sizes"] = {**sizes, "turned": turned}.get(asked["sizes"])
    with pytest.raises(UserError, match=message) as raised:
        plan_dynamic(model, **asked)
    assert "\n" not in str(raised.value)


def test_sizes_of_other_matrices_and_models_are_refused(model, sizes):
    few = input_sizes(model, IDS, LENGTH, matrices=["mlp.c_proj"])
    with pytest.raises(UserError, match=r"are of 0 inputs of h\.0\.attn\.c_attn, which has 16: measure this"):
        plan_dynamic(model, "inputs", 0.5, few)
    wider = GPT(CONFIG.__class__(**{**CONFIG.to_dict(), "n_embd": 32}))
    with pytest.raises(
        UserError, match=r"are of 16 inputs of h\.0\.attn\.c_attn, which has 32: measure this"
    ):
        plan_dynamic(wider, "inputs", 0.5, sizes["inputs"])


def test_plans_and_coordinates_that_do_not_fit_the_model_are_refused(model, sizes, turned):
    wider = GPT(CONFIG.__class__(**{**CONFIG.to_dict(), "n_embd": 32}))
    deep = plan_dynamic(GPT(CONFIG.__class__(**{**CONFIG.to_dict(), "n_layer": 4})), "top", 0.5)
    gelu = GPT(
        CONFIG.__class__(**{**CONFIG.to_dict(), "mlp": "gelu", "n_inner": 80})
    )  # c_fc of the same shape
    gate = plan_dynamic(model, "gate", 0.5, sizes["gate"])
    cases = [
        (
            wider,
            plan_dynamic(model, "top", 0.5),
            (),
            r"for 16 inputs of h\.0\.attn\.c_attn, here 32: plan for",
        ),
        (model, deep, (), r"inputs of h\.3\.attn\.c_attn, here no such matrix: plan for this model"),
        (gelu, gate, (), "gate thresholds need a SwiGLU model"),
        (tiny("Llama"), gate, (), "gate thresholds need a SwiGLU model"),
        (model, gate, [(0, 0, 40)], "is 16 x 40"),
        (model, plan_dynamic(model, "inputs", 0.5, turned), [PLANTED], "none of these can be watched"),
    ]
    for one, found, watch, message in cases:
        with pytest.raises(UserError, match=message) as raised, dynamically_pruned(one, found, watch):
            pass
        assert "\n" not in str(raised.value) and not held(model)


@pytest.mark.parametrize("family", ["supertf GELU", "Llama"])
def test_gates_are_for_swiglu_of_this_lab(family, sizes):
    with pytest.raises(UserError, match="use method inputs for others"):
        plan_dynamic(tiny(family), "gate", 0.5, sizes["gate"])
