"""What compression refuses: in one line, with what was given and what is expected; nothing is left behind."""

import dataclasses
import math
import re
from functools import cache, partial

import pytest
import torch
from families import tiny
from planted import CONFIG, IDS, LENGTH, PLANTED, held, planted_model, sizes_by_method

from supertf.compression import calibration, comparison, verbs
from supertf.compression.pruning import (
    dynamic,
    groups,
    input_quantiles,
    recovery,
    refitting,
    share_search,
    static,
    structured,
)
from supertf.compression.quantization import activations, plan, rounding
from supertf.compression.speed import packed, skipped_columns, two_step_head
from supertf.errors import UserError
from supertf.model.gpt import GPT

pytestmark = pytest.mark.usefixtures("one_thread")
DOWN = "h.1.mlp.c_proj"
planted, linear = cache(planted_model), partial(torch.nn.Linear, 2, 2)
llama, gelu = (partial(cache(tiny), family) for family in ("Llama", "supertf GELU"))


@cache
def model_with(dtype=torch.float32, **changes):
    """A model of another config or dtype."""
    return GPT(dataclasses.replace(CONFIG, **changes)).eval().to(dtype)


@cache
def damaged(kind, value=math.nan):
    """A model of which one weight of a kind of matrix is no number."""
    model = planted_model()
    model.get_submodule(f"h.1.{kind}").weight.data[0, 0] = value
    return model


@cache
def sums(products=True, matrices=None):
    return calibration.calibrate(planted(), IDS, LENGTH, products=products, matrices=matrices)


@cache
def sizes(of):
    """What dynamic pruning is given: by method, "few" of one kind of matrix, "turned" along other axes."""
    if of == "few":
        return input_quantiles.input_sizes(planted(), IDS, LENGTH, matrices=["mlp.c_proj"])
    if of == "turned":
        axes = input_quantiles.principal_axes(sums(), ["mlp.c_proj"])
        return input_quantiles.input_sizes(planted(), IDS, LENGTH, axes=axes)
    return sizes_by_method(planted(), IDS, LENGTH)[of]


def calibrated(ids=IDS, length=LENGTH, model=planted, **options):
    return lambda: calibration.calibrate(model(), ids, length, **options)


def measured(ids=IDS, length=LENGTH, model=planted, **options):
    return lambda: input_quantiles.input_sizes(model(), ids, length, **options)


def pruned(method="magnitude", sparsity=0.5, calibration=None, model=planted, **options):
    return lambda: static.plan_static(
        model(), method, sparsity, calibration and calibration(), progress=False, **options
    )


def cut(what="channels", sparsity=0.2, score="magnitude", model=planted, **options):
    return lambda: structured.plan_structured(model(), what, sparsity, score=score, progress=False, **options)


def sparse():
    """A model with half its weights at zero."""
    return verbs.prune(planted(), pruned()())


def smaller(plan, model=planted):
    return lambda: structured.smaller(model(), plan())


def uneven():
    """A plan that removes more channels of one layer."""
    few, many = (cut(sparsity=share)().removed for share in (0.2, 0.5))
    return structured.Pruning("channels", {}, {**few, **{name: many[name] for name in many if ".1." in name}})


def dropped(method="inputs", sparsity=0.5, sizes_of="inputs", model=planted, **options):
    return lambda: dynamic.plan_dynamic(model(), method, sparsity, sizes_of and sizes(sizes_of), **options)


def running(context, model, plan, *args):
    """A context of a plan that does not fit the model."""
    return lambda: context(model(), plan(), *args)


def by_name(method, model=planted, verb=verbs.plan_pruning, **options):
    return lambda: verb(model(), method, **options)


def refitted(ids=IDS, plan=None, model=planted, **options):
    return lambda: refitting.refit(model(), ids, plan and plan(), length=LENGTH, progress=False, **options)


def recovered(ids=IDS, steps=1, model=planted, **options):
    how = {"length": 8, "batch_size": 4, "progress": False, **options}
    return lambda: recovery.recover(model(), ids, steps, **how)


def rounded(scheme="int4 block=8", model=planted, **options):
    return lambda: plan.plan_quantization(model(), scheme, progress=False, **options)


def matrix(block=4, clip="none", **options):
    """Of 8 x 12."""
    return lambda: rounding.round_to_nearest(
        torch.ones(8, 12), rounding.Scheme(4, block, clip=clip), **options
    )


def few_bits(bits=8, restore=None, **options):
    return lambda: activations.quantized_activations(planted(), bits, restore, **options)


def head(model=planted, states=lambda: sums(matrices=("lm_head",)), rank=4, exact=10):
    return lambda: two_step_head.rough_head(model(), states(), rank=rank, exact=exact)


def inside(context, call):
    """What is refused while another context lasts."""

    def refused():
        with context():
            entered(call())

    return refused


def entered(result):
    """Enter a context, as only then it looks at what it is given."""
    if hasattr(result, "__enter__"):
        with result:
            pass


COLLECTED = [
    (calibrated([]), "the calibration text is empty"),
    (calibrated([1, 2, 3], 8), "3 tokens, fewer than one window of 8: use a longer text"),
    (calibrated([1, 50] * LENGTH), "the model's vocabulary is 0 to 49"),
    (calibrated([1, 2, 3], 0), "the window length is 0"),
    (calibrated(model=partial(damaged, "mlp.c_fc")), r"the inputs of h\.1\.mlp\.c_proj are not finite"),
    (measured([]), "the calibration text is empty"),
    (measured([1, 2, 3]), "has 3 tokens, fewer than one window of 12"),
    (measured([50] * 12), "the model's vocabulary is 0 to 49"),
    (measured(of="outputs"), "sizes of 'outputs'; choose inputs or gate"),
    (measured(of="gate", matrices=["mlp.c_fc"]), "leave matrices and axes out"),
    (measured(of="gate", axes={"h.0.mlp.c_fc": torch.eye(16)}), "leave matrices and axes out"),
    (measured(matrices=["mlp.down"]), r"choose one or more of attn\.c_attn"),
    (measured(axes={DOWN: torch.eye(16)}), r"axes \(16, 16\) of h\.1\.mlp\.c_proj, which has 40 inputs"),
    (measured(axes={"h.7.mlp.c_proj": torch.eye(40)}), r"h\.7\.mlp\.c_proj, which has none among those"),
    (measured(of="gate", model=gelu), "use method inputs for others"),
    (measured(of="gate", model=llama), "use method inputs for others"),
    (measured(model=partial(damaged, "mlp.c_fc")), r"the inputs of h\.1\.mlp\.c_.* are not finite"),
    (
        measured(of="gate", model=partial(damaged, "mlp.c_fc")),
        r"the inputs of h\.1\.mlp\.c_.* are not finite",
    ),
    (measured(length=30, model=partial(model_with, position="learned")), "learned positions"),
    (
        lambda: input_quantiles.principal_axes(sums(matrices=("mlp.c_proj",)), ["attn.c_attn"]),
        r"no products of attn\.c_attn: .*products=True",
    ),
    (
        lambda: input_quantiles.principal_axes(sums(products=False), ["mlp.c_proj"]),
        r"no products of mlp\.c_proj",
    ),
]

STATIC = [
    (pruned("wonda"), "unknown pruning method 'wonda'; choose from random, magnitude, "),
    (pruned(sparsity=50), "sparsity is 50, expected 0"),
    (pruned(sparsity=-0.1), "sparsity is -0.1, expected 0"),
    (pruned(sparsity=math.nan), "sparsity is nan"),
    (pruned(sparsity=None), "give a sparsity, such as 0.5, or a pattern, such as 2:4"),
    *(
        (partial(groups.parse_pattern, pattern), "expected n:m with 0 < n < m")
        for pattern in ("", "2", "4:2", "4:4", "0:4", "2:4:8", "a:b", "-1:4")
    ),
    (pruned(sparsity=None, pattern="2:3"), "has 16 inputs, which do not divide into groups of 3"),
    (pruned(pattern="1:4"), "leave them out"),
    (pruned(sparsity=None, pattern="2:4", scope="row"), "leave them out"),
    (pruned(scope="layer"), "scope 'layer'; magnitude compares weights by matrix or row or global"),
    (pruned("sparsegpt", scope="row"), "sparsegpt compares weights by columns"),
    (pruned(matrices=["mlp.down"]), r"choose one or more of attn\.c_attn"),
    (pruned("wanda"), "wanda needs a calibration"),
    (pruned("sparsegpt"), "sparsegpt needs a calibration"),
    (pruned("sparsegpt", 0.5, lambda: sums(products=False)), r"calibrate\(model, ids, products=True\)"),
    (
        pruned("wanda", 0.5, lambda: sums(matrices=("mlp.c_proj",))),
        r"has 0 inputs of h\.0\.attn\.c_attn, which has 16",
    ),
    (
        pruned("wanda", 0.5, sums, partial(model_with, n_embd=32)),
        r"has 16 inputs of h\.0\.attn\.c_attn, which has 32",
    ),
    (pruned(protect=[(3, 0, 0)]), "the model has layers 0 to 2"),
    (pruned(protect=[(0, 16, 0)]), "is 16 x 40"),
    (pruned(watch=[(0, 0, -1)]), "is 16 x 40"),
    (
        pruned("wanda", 0.5, sums, partial(damaged, "attn.c_proj", math.inf)),
        r"h\.1\.attn\.c_proj has weights that",
    ),
]

STRUCTURED = [
    (cut("rows"), "structured pruning of 'rows'; choose from channels, heads"),
    (cut(score="wanda"), "unknown score 'wanda'; choose from activation, magnitude, random"),
    (cut(sparsity=20), "sparsity is 20, expected 0"),
    (cut(sparsity=math.nan), "sparsity is nan"),
    (cut(score="activation"), "activation needs a calibration"),
    (cut(multiple=0), "multiple is 0, expected 1 to 40"),
    (cut(multiple=41), "multiple is 41"),
    (cut(protect=[(3, 0, 0)]), "the model has layers 0 to 2"),
    (cut(watch=[(0, 16, 0)]), "is 16 x 40"),
    (
        cut(sparsity=0.95, protect=[(1, 0, 0), (1, 0, 1), (1, 0, 2)]),
        r"3 channels of layer 1 are protected \(1\[0, 0\] and others\), and 2 are to stay",
    ),
    (cut(model=linear), "`load_model` makes one of GPT-2 and Llama checkpoints"),
    (cut(model=partial(damaged, "mlp.c_proj")), "not finite"),
    (
        smaller(pruned(matrices=["mlp.c_fc", "mlp.c_proj"])),
        r"removes single weights of h\.0\.mlp\.c_fc, not whole channels",
    ),
    (smaller(pruned()), "not for both matrices of every MLP or every attention"),
    (smaller(cut(), linear), "not for both matrices of every MLP or every attention"),
    (smaller(uneven), "removes 8 to 20 of 40 channels: a smaller model needs as many in every"),
    (smaller(cut(sparsity=1)), "removes all channels"),
    (smaller(cut(), smaller(cut())), "plan for this model"),
]

DYNAMIC = [
    (dropped("cats"), "unknown dynamic method 'cats'; choose from inputs, gate, top"),
    (dropped(sparsity=50), "sparsity is 50, expected 0"),
    (dropped(sparsity=-0.1), "sparsity is -0.1, expected 0"),
    (dropped(sparsity=math.nan), "sparsity is nan"),
    (dropped(sparsity={"h.0.mlp.c_fc": 2}), "sparsity is 2, expected 0"),
    (
        dropped(sparsity={"h.3.mlp.c_fc": 0.5}),
        r"no matrix h\.3\.mlp\.c_fc among those to prune, h\.0\.attn\.c_attn to",
    ),
    (dropped(matrices=["mlp.down"]), r"choose one or more of attn\.c_attn"),
    (dropped("gate", matrices=["mlp.c_fc"]), "leave matrices out"),
    (dropped(sizes_of=None), "inputs needs the sizes of the inputs on a short text and was given none"),
    (dropped(sizes_of="gate"), r"inputs needs the sizes of the inputs .* those of the gate: .*of=\"inputs\""),
    (dropped("gate", sizes_of="inputs"), r"gate needs .* those of the inputs: .*of=\"gate\""),
    (dropped("top", sizes_of="gate"), "top needs the sizes of the inputs"),
    (dropped(sizes_of="few"), r"are of 0 inputs of h\.0\.attn\.c_attn, which has 16: measure this"),
    (
        dropped(model=partial(model_with, n_embd=32)),
        r"are of 16 inputs of h\.0\.attn\.c_attn, which has 32: measure",
    ),
    (dropped(protect=[(3, 0, 0)]), "the model has layers 0 to 2"),
    (dropped(protect=[(0, 16, 0)]), "is 16 x 40"),
    (dropped("gate", sizes_of="gate", protect=[(0, 0, -1)]), "is 16 x 40"),
    (
        dropped(sizes_of="turned", protect=[PLANTED]),
        "axes other than its channels: none of these can be prot",
    ),
    (dropped("gate", sizes_of="gate", model=gelu), "use method inputs for others"),
    (dropped("gate", sizes_of="gate", model=llama), "use method inputs for others"),
    *(
        case
        for context in (dynamic.dynamically_pruned, skipped_columns.skipping)
        for case in (
            (
                running(context, partial(model_with, n_embd=32), dropped("top", sizes_of=None)),
                r"for 16 inputs of h\.0\.attn\.c_attn, here 32: plan for this model",
            ),
            (  # whose c_fc has the same shape
                running(
                    context,
                    partial(model_with, mlp="gelu", n_inner=80),
                    dropped("gate", sizes_of="gate"),
                ),
                "gate thresholds need a SwiGLU model",
            ),
        )
    ),
    (
        running(
            dynamic.dynamically_pruned,
            planted,
            dropped("top", sizes_of=None, model=partial(model_with, n_layer=4)),
        ),
        r"inputs of h\.3\.attn\.c_attn, here no such matrix: plan for this model",
    ),
    (
        running(dynamic.dynamically_pruned, llama, dropped("gate", sizes_of="gate")),
        "gate thresholds need a SwiGLU model",
    ),
    (
        running(dynamic.dynamically_pruned, planted, dropped("gate", sizes_of="gate"), [(0, 0, 40)]),
        "is 16 x 40",
    ),
    (
        running(dynamic.dynamically_pruned, planted, dropped(sizes_of="turned"), [PLANTED]),
        "none of these can be watched",
    ),
    *(
        (lambda budget=budget: share_search.most_spared(planted(), {}, budget), "the budget is")
        for budget in (math.nan, math.inf, -0.01)
    ),
]

BY_NAME = [
    *(
        (
            by_name("wandb", verb=verb, **given),
            "unknown pruning method 'wandb'; choose from random, magnitude",
        )
        for verb, given in (
            (verbs.calibration_for, {"text": IDS}),
            (verbs.plan_pruning, {}),
            (verbs.prune, {}),
        )
    ),
    (by_name("top", verb=verbs.prune, sparsity=0.5), "use `with pruned"),
    (
        by_name("top", sparsity=0.5, scope="row"),
        "scope is for random, magnitude, .*, not for top",
    ),
    (by_name("channels", sparsity=0.5, matrices=["mlp.c_fc"]), "matrices is for .*, not for channels: leave"),
    (by_name("wanda", sparsity=0.5, score="random"), "score is for channels, heads, not for wanda"),
    (by_name("magnitude", sparsity={"mlp.c_fc": 0.5}), "magnitude takes one sparsity for all matrices"),
    (by_name("heads", score="random"), "give a sparsity, such as 0.5"),
    (by_name("top"), "give a sparsity, such as 0.5"),
    (lambda: by_name("wanda", sparsity=0.5, calibration=sizes("inputs"))(), "wanda needs a calibration"),
    (lambda: by_name("inputs", sparsity=0.5, calibration=sums())(), "inputs needs the sizes of the inputs"),
    (
        lambda: comparison.compare(planted(), {"wanda": "wanda"}, IDS, progress=False),
        "str cannot be compared: give a model, a plan",
    ),
    (
        lambda: comparison.compare(planted(), {}, IDS, watch="9[0, 0]", progress=False),
        "the model has layers 0 to 2",
    ),
]

LEARNED = [
    (refitted(IDS[:5]), "fewer than one window"),
    (refitted(matrices=["mlp.c_fc"]), "choose one or both"),
    (refitted(matrices=[]), "choose one or both"),
    (refitted(prior=0), "prior is 0"),
    (refitted(teacher=model_with(n_layer=1)), "the model that was pruned"),
    (refitted(model=linear), "this package's GPT, not Linear"),
    (lambda: refitted(model=sparse, teacher=planted())(), "would not stay zero"),
    (
        refitted(plan=dropped("top", sizes_of=None, model=partial(model_with, n_inner=48))),
        "the plan is for 48",
    ),
    (recovered(model=linear), "this package's GPT, not Linear"),
    (recovered(steps=0), "steps is 0, expected at least 1"),
    (recovered(length=0), "length is 0"),
    (recovered(batch_size=-1), "batch_size is -1"),
    (recovered(lr=0.0), "lr is 0.0, expected a positive number"),
    (recovered(lr=math.nan), "lr is nan"),
    (recovered([1, 2, 3]), "has 3 tokens, fewer than a batch of 4 windows of 8"),
    (recovered([]), "the text to train on is empty"),
    (recovered(torch.full((99,), 50)), "the model's vocabulary is 0 to 49"),
    (recovered(model=partial(model_with, torch.bfloat16)), "load it in float32"),
    (recovered(teacher=model_with(vocab_size=60)), "vocabulary has 60 tokens"),
    (recovered(lr=1e30, steps=9), "try a smaller lr"),
]

QUANTIZED = [
    *(
        (partial(rounding.Scheme.parse, text), message)
        for text, message in (
            ("int9", "bits is 9, expected a whole number from 2 to 8"),
            ("int1 block=64", "bits is 1"),
            ("fp4", "scheme 'fp4'; expected intBITS block=BLOCK clip=CLIP symmetric"),
            ("", "scheme ''"),
            ("int4 64", "scheme 'int4 64'"),
            ("int4 symmetric block=64", "expected intBITS"),
            ("int4 block=row", "block is 'row'; expected tensor, channel, a number"),
            ("int4 block=0", "block is 0"),
            ("int4 block=0x4", r"block is \(0, 4\)"),
            ("int4 block=-4", "block is '-4'"),
            ("int4 clip=4", "clip is '4'; expected none, z4"),
            ("int4 clip=z-1", "clip is 'z-1'"),
            ("int4 clip=p0", "clip is 'p0'"),
            ("int4 clip=p101", "clip is 'p101'"),
        )
    ),
    *(
        (partial(rounding.Scheme, bits, block), "expected")
        for bits, block in ((4.0, 64), (True, 64), (4, 64.0), (4, (2, 3, 4)), (4, ()), (4, None))
    ),
    (matrix(5, name="h.0.c"), r"h\.0\.c has 8 x 12 = 96 weights, which do not divide into blocks of 5"),
    (matrix((3, 4), name="h.0.c"), r"h\.0\.c is 8 x 12, which does not divide into tiles of 3 x 4"),
    (matrix((4, 5)), "does not divide into tiles of 4 x 5"),
    (matrix(128), "do not divide into blocks of 128"),
    (matrix(clip="output"), "clip=output needs a calibration that has the 12 inputs of the matrix, got 0"),
    (matrix(clip="output", squares=torch.ones(13)), "12 inputs of the matrix, got 13"),
    (rounded("int4 block=100"), r"h\.0\.attn\.c_attn has 48 x 16 = 768 weights.* blocks of 100"),
    (rounded(rounding.Scheme(4, (32, 8))), r"h\.0\.attn\.c_attn is 48 x 16.* tiles of 32 x 8"),
    (rounded("int12"), "bits is 12, expected a whole number from 2 to 8"),
    (
        rounded("int4 clip=output"),
        r"clip=output needs a calibration .* 16 inputs of h\.0\.attn\.c_attn, got 0",
    ),
    (rounded(matrices=["mlp.down"]), r"choose one or more of attn\.c_attn"),
    (rounded(protect=[(3, 0, 0)]), "the model has layers 0 to 2"),
    (rounded(watch=[(0, 16, 0)]), "is 16 x 40"),
    (rounded(model=partial(damaged, "attn.c_proj")), r"h\.1\.attn\.c_proj has weights that are not finite"),
    (few_bits(1), "activations in 1 bits; choose 2 to 16"),
    (few_bits(32), "choose 2 to 16"),
    (few_bits(restore={"h.9.mlp.c_proj": [0]}), r"no matrix 'h\.9\.mlp\.c_proj' among those quantized"),
    (few_bits(restore={DOWN: [40]}), r"no input channel 40 of h\.1\.mlp\.c_proj: choose 0 to 39"),
    (few_bits(restore={DOWN: [-1]}), "no input channel -1"),
    (few_bits(restore={DOWN: [1]}, matrices=["mlp.c_fc"]), r"no matrix 'h\.1\.mlp\.c_proj' among those"),
    (few_bits(matrices=["mlp.up"]), "matrices of kinds"),
    (
        inside(few_bits(matrices=["mlp.c_fc"]), few_bits()),
        r"the inputs of h\.0\.mlp\.c_fc are quantized already",
    ),
    (lambda: activations.super_activations(planted(), [PLANTED], "output"), "choose input, stream or both"),
    (lambda: activations.super_activations(planted(), [(5, 0, 0)]), "no weight 5"),
]

FAST = [
    (
        running(skipped_columns.skipping, llama, dropped("top", sizes_of=None)),
        "for this lab's models only: `dynamically_pruned` is for any",
    ),
    (
        running(skipped_columns.skipping, partial(model_with, torch.bfloat16), dropped("top", sizes_of=None)),
        r"needs a float32 model on the CPU, this one is torch\.bfloat16 on cpu: load it",
    ),
    (head(rank=0), "rank is 0, expected 1 to 16"),
    (head(rank=17), "rank is 17, expected 1 to 16"),
    (head(exact=51), "exact is 51, expected 1 to 50"),
    (head(states=lambda: sums(False, ("lm_head",))), r"no products of the head's 16 inputs: `calibrate\("),
    (head(llama), "for this lab's models only"),
    (
        running(two_step_head.svd_softmax, partial(model_with, torch.bfloat16), head()),
        "needs a float32 model on the CPU",
    ),
    (
        running(two_step_head.svd_softmax, partial(model_with, vocab_size=60), head()),
        "of 50 words and 16 inputs, the model's of 60 and",
    ),
    (
        inside(
            running(two_step_head.svd_softmax, planted, head()),
            running(two_step_head.svd_softmax, planted, head()),
        ),
        "lm_head is packed, or skips, already",
    ),
    (
        running(packed.packed_weights, llama, lambda: "int4"),
        "packing is for this package's GPT",
    ),
    (running(packed.packed_weights, planted, lambda: "int4"), r"dtype=torch\.bfloat16"),
    (
        running(packed.packed_weights, partial(model_with, torch.bfloat16), lambda: "int3"),
        "unknown packing 'int3'",
    ),
    *(
        (
            running(packed.packed_weights, partial(model_with, torch.bfloat16), lambda p=p: p),
            "multiples of 32",
        )
        for p in ("int8", "int4")
    ),
]

REFUSED = [*COLLECTED, *STATIC, *STRUCTURED, *DYNAMIC, *BY_NAME, *LEARNED, *QUANTIZED, *FAST]


@pytest.mark.parametrize("call, message", REFUSED, ids=[message for _, message in REFUSED])
@pytest.mark.filterwarnings("ignore:.*goes on without packing")
def test_it_is_refused_in_one_line_and_nothing_is_left_behind(call, message):
    before = {name: tensor.clone() for name, tensor in planted().state_dict().items()}
    with pytest.raises(UserError) as raised:
        entered(call())
    assert re.search(message, str(raised.value)) and "\n" not in str(raised.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in planted().state_dict().items())
    for model in (planted(), damaged("mlp.c_fc"), model_with(torch.bfloat16), model_with(position="learned")):
        assert not held(model)
        assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.kernels
@pytest.mark.filterwarnings("ignore:.*goes on without packing")
@pytest.mark.parametrize("verb, plan", [(verbs.prune, pruned), (verbs.quantize, rounded)])
def test_packed_weights_would_hide_what_is_done_to_them(verb, plan):
    wide = partial(model_with, torch.bfloat16, n_embd=32, n_inner=64, vocab_size=64)
    model, found = wide(), plan(model=wide)()
    with packed.packed_weights(model, "int4"), pytest.raises(UserError, match="change them first, then pack"):
        verb(model, found)
