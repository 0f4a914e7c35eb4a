"""Static pruning: what does not fit together is refused, in one line."""

import functools

import pytest
import torch
from planted import CONFIG, planted_model

from supertf.compression.calibration import calibrate
from supertf.compression.pruning.static import plan_static as make_plan
from supertf.compression.speed.packed import packed_weights
from supertf.compression.verbs import prune, pruned
from supertf.errors import UserError
from supertf.model.gpt import GPT
from supertf.model.weight_matrices import matrices

LENGTH = 12
IDS = torch.randint(0, 50, (4 * LENGTH,), generator=torch.Generator().manual_seed(1))
plan = functools.partial(make_plan, progress=False)


@pytest.fixture
def model():
    return planted_model()


@pytest.fixture
def calibration(model):
    return calibrate(model, IDS, LENGTH, products=True)


BAD = [
    ({"method": "wonda"}, "unknown pruning method 'wonda'; choose from random, magnitude, wanda, sparsegpt"),
    ({"sparsity": 50}, "sparsity is 50, expected 0"),
    ({"sparsity": -0.1}, "sparsity is -0.1, expected 0"),
    ({"sparsity": float("nan")}, "sparsity is nan"),
    ({"sparsity": None}, "give a sparsity, such as 0.5, or a pattern, such as 2:4"),
    ({"sparsity": None, "pattern": "4:2"}, "expected n:m"),
    ({"sparsity": None, "pattern": "2:3"}, "has 16 inputs, which do not divide into groups of 3"),
    ({"pattern": "1:4"}, "leave them out"),
    ({"sparsity": None, "pattern": "2:4", "scope": "row"}, "leave them out"),
    ({"scope": "layer"}, "scope 'layer'; magnitude compares weights by matrix or row or global"),
    ({"method": "sparsegpt", "scope": "row"}, "sparsegpt compares weights by columns"),
    ({"matrices": ["mlp.down"]}, "choose one or more of attn.c_attn"),
    ({"method": "wanda"}, "wanda needs a calibration"),
    ({"method": "sparsegpt"}, "sparsegpt needs a calibration"),
    ({"protect": [(3, 0, 0)]}, "the model has layers 0 to 2"),
    ({"protect": [(0, 16, 0)]}, "is 16 x 40"),
    ({"watch": [(0, 0, -1)]}, "is 16 x 40"),
]


@pytest.mark.parametrize("given, message", BAD)
def test_bad_input_is_refused_in_one_line(model, given, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")) as raised:
        plan(model, **{"method": "magnitude", "sparsity": 0.5, **given})
    assert "\n" not in str(raised.value)


def test_a_calibration_of_other_matrices_is_refused(model, calibration):
    with pytest.raises(UserError, match=r"has 0 inputs of h\.0\.attn.c_attn, which has 16"):
        plan(model, "wanda", 0.5, calibrate(model, IDS, LENGTH, matrices=["mlp.c_proj"]))
    with pytest.raises(UserError, match=r"calibrate\(model, ids, products=True\)"):
        plan(model, "sparsegpt", 0.5, calibrate(model, IDS, LENGTH))
    wider = GPT(CONFIG.__class__(**{**CONFIG.to_dict(), "n_embd": 32}))
    with pytest.raises(UserError, match=r"has 16 inputs of h\.0\.attn.c_attn, which has 32"):
        plan(wider, "wanda", 0.5, calibration)
    with pytest.raises(UserError, match=r"the plan prunes h\.0\.attn.c_attn, a matrix of 48 x 16"):
        prune(wider, plan(model, "magnitude", 0.5))


def test_pruning_twice_is_refused_and_the_first_is_still_undone(model):
    first, second = plan(model, "magnitude", 0.3), plan(model, "random", 0.3)
    with pruned(model, first):
        for again in (prune, lambda *both: pruned(*both).__enter__()):
            with pytest.raises(UserError, match="pruned already"):
                again(model, second)
        assert sum(int((m.weight == 0).sum()) for m in matrices(model).values()) == sum(first.counts.values())
    with pruned(model, second):  # and after it, there is room
        pass


def test_packed_weights_would_hide_the_pruning():
    config = CONFIG.__class__(**{**CONFIG.to_dict(), "n_embd": 32, "n_inner": 64, "vocab_size": 64})
    model = GPT(config).eval().bfloat16()
    found = plan(model, "magnitude", 0.5)
    with packed_weights(model, "int4"), pytest.raises(UserError, match="change them first, then pack"):
        prune(model, found)


def test_damaged_weights_are_refused(calibration):
    model = planted_model()
    model.h[1].attn.c_proj.weight.data[0, 0] = torch.inf
    with pytest.raises(UserError, match=r"h\.1\.attn\.c_proj has weights that are not finite"):
        plan(model, "wanda", 0.5, calibration)
