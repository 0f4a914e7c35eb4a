# builds notebook 09 of today's: P path in, written in place.  python n09.py
import nbformat, re, sys
from nbformat.v4 import new_code_cell, new_markdown_cell
from supertf.lab.book.executed import written
P = "notebooks/09_quantization.ipynb"
import subprocess
old = nbformat.reads(subprocess.run(["git", "show", f"{sys.argv[1]}:{P}"], capture_output=True, text=True, check=True).stdout, 4)
out = []
def keep(*indices):
    for i in indices:
        c = old.cells[i]
        if c.cell_type == "code":
            c.outputs, c.execution_count = [], None
        out.append(c)
def code(source): out.append(new_code_cell(source.strip("\n")))
def md(source): out.append(new_markdown_cell(source.strip("\n")))

md('''
[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/dame-cell/Super-transformers/blob/main/notebooks/09_quantization.ipynb)

# Quantization, super weights spared

A weight in four bits is one of sixteen numbers. Which sixteen depends on the weights that share a scale with it, and a single large one spoils them for all others. So what should happen to a *super weight*, which is large and which the model cannot do without? The paper that named them (Yu et al. 2024) has a recipe: clip it away, round the rest, put it back in full precision. Here you build it and measure on SmolLM2-135M-Instruct (stored in 4 bits and expanded) when it pays, when it does nothing, and what it overlooks: live on documentation of Python libraries, recorded on two texts of Python's own.

**You will learn**
- rounding to nearest in five lines, and why the clip of least error ruins the model,
- when holding super weights out of the rounding matters, and that their *column* does, too,
- what rounding the activations costs, and what real 8-bit and 4-bit kernels read.

**Words** *block*: weights that share a scale. *Level*: one of the numbers that a rounded weight can be. *Clip*: the magnitude beyond which all becomes the last level. *Hold out*: keep in full precision, out of the rounding. *W8A8*: weights and activations in 8 bits.

**Time** about two minutes of computing on two CPU cores; half an hour to read, an hour with the exercises. **Hardware** any; no GPU and, once the model is fetched, no network.

Before: [08, smaller and faster](08_smaller_and_faster.ipynb). Next: [10, train on a GPU](10_train_on_a_gpu.ipynb).
''')
keep(1)
code('''
import copy
from contextlib import ExitStack

import matplotlib.pyplot as plt
import torch
from ipywidgets import Dropdown, SelectionSlider, interact

from supertf import compression as small
from supertf import generate
from supertf.analysis import perplexity
from supertf.bench import timing, weight_bytes
from supertf.data import TEXTS, read_ids
from supertf.experiments import recorded
from supertf.lab import check, explorers, holding, in_range, one_of, plots, record, setup, show_solved
from supertf.lab import plots_quantization as drawn
from supertf.model import load, matrices, output_projections, parse, show
from supertf.superweights import random_weights, scaled_weights

device, dtype = setup(seed=0)
''')
md('''
`MODEL` may be any checkpoint like Llama; then name its `WEIGHTS`, the super weight first, and blocks that divide its matrices. Claims about SmolLM2's own weights are asserted for SmolLM2 only. `KINDS = None` rounds all matrices of the layers.
''')
code('''
MODEL = "smollm2-135m"
WEIGHTS = [  # a set that works together, see notebook 06
    "11[507, 1229]",
    "28[507, 678]",
    "11[507, 1487]",
    "2[507, 430]",
    "2[507, 90]",
    "1[507, 49]",
    "9[507, 200]",
    "10[507, 198]",
]
TEXT = "library-docs"  # its live part is measured on; clips are chosen on another part
TOKENS = 256  # of text, on which rounding is judged live
CALIBRATION = 256  # of text, from which clips are chosen
BITS = [4, 8]  # 4 must be among them
BLOCKS = ["64", "channel", "18432"]  # 64 must be among them; the last is the big one
CLIPS = ["none", "z9"]  # both must be among them
COLUMN_CASES = [["channel", "none"], ["64x64", "none"], ["18432", "z9"]]  # block and clip
ACTIVATION_BITS = [8]
KINDS = None
PACKINGS = ["bfloat16", "int8", "int4"]
NEW_TOKENS = 16  # generated when speed is measured
ROUNDS = 3
''')
out[-1].metadata = old.cells[4].metadata  # papermill's tag
code('''
one_of(["library-docs", "readmes", "prose"], TEXT=TEXT)
in_range(48, 2000, "over fewer tokens perplexity is noise, and there are no more", TOKENS=TOKENS)
in_range(64, 4096, "from fewer tokens nothing can be told of an input", CALIBRATION=CALIBRATION)
in_range(3, 8, "fewer bits ruin the model on blocks of any size", BITS=BITS)
holding([4], BITS=BITS)
holding(["64"], BLOCKS=BLOCKS)
holding(["none", "z9"], CLIPS=CLIPS)
if KINDS is not None:
    one_of(["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"], KINDS=KINDS)
    holding(["mlp.c_proj"], "the super weights are in these matrices", KINDS=KINDS)
one_of(["bfloat16", "int8", "int4"], PACKINGS=PACKINGS)
in_range(2, 16, ACTIVATION_BITS=ACTIVATION_BITS)
in_range(1, None, NEW_TOKENS=NEW_TOKENS, ROUNDS=ROUNDS)
''')
md('''
## 1. Sixteen levels, by hand

Notebooks 05 and 06 found what to worry about: the weight `11[507, 1229]` of layer 11's down projection, without which the perplexity is several times as high, and seven more of row 507 that do harm alone or beside it. `SUPER` is the one (not the largest: 11[507, 1487] is), `SET` the eight, `W` (outputs, inputs) the super weight's matrix. A name is layer[output, input].
''')
code('''
model, tokenizer = load(MODEL, device=device)
smol = MODEL == "smollm2-135m"
evaluation = read_ids(f"{TEXT}:live", tokenizer, TOKENS + 1).tolist()
reading = read_ids(f"{TEXT}:calibrate", tokenizer, CALIBRATION).tolist()  # no run of 20 tokens in both
SET = [parse(name) for name in WEIGHTS]
SUPER = layer, out, into = SET[0]
projections, in_layers = output_projections(model), matrices(model)
W, BIG = projections[layer].weight.detach().cpu(), int(BLOCKS[-1])
large = [projections[one[0]].weight[one[1:]].item() for one in SET]
print(f"W: {tuple(W.shape)}, deviation {W.std():.2f}; the set:", [round(value, 2) for value in large])
assert not smol or min(map(abs, large)) > 20 * W.std(), "all of them are large"
''')
md('''
To store a block of weights in $b$ bits, spread $2^b$ levels evenly from its smallest weight to its largest, and keep for each weight the number of the nearest level. Symmetric rounding has no `low` to store: zero is the middle level, at the price of one level. A block is a row of `blocks`.
''')
code('''
def asymmetric(blocks, bits):
    """Blocks (n, size), each rounded to 2^bits levels from its smallest to its largest weight."""
    low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)  # (n, 1)
    step = (high - low) / (2**bits - 1)
    codes = ((blocks - low) / step).round()  # whole numbers from 0: what is stored
    return codes * step + low


def symmetric(blocks, bits):
    """The same with 2^bits - 1 levels, spread evenly around zero."""
    step = blocks.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (blocks / step).round() * step


def error(after, before):
    return ((after - before).square().sum() / before.square().sum()).item()
''')
md('''
`error` is the squared error over the sum of squares. **Predict** what happens to 64 weights when one of them is more than three times as large as any other. Left an ordinary block; in the middle the super weight's; right the same with the super weight taken out before rounding and put back after it, *held out*.
''')
code('''
block, first = W[100, :64], into // 64 * 64
around, free = W[out, first : first + 64], torch.arange(first, first + 64) != into
held = around.clone()
held[free] = asymmetric(around[free][None], 4)[0]
panels = {
    "an ordinary block": (block, asymmetric(block[None], 4)[0]),
    "the super weight's block": (around, asymmetric(around[None], 4)[0]),
    "the same, held out": (around, held),
}
figure = drawn.level_panels(panels)
errors = {name: error(after[free], before[free]) for name, (before, after) in panels.items()}
used = {name: after[free].unique().numel() for name, (_, after) in panels.items()}
print("of the 63 others, error:", {name: round(value, 4) for name, value in errors.items()}, "levels:", used)
if smol:
    assert errors["the super weight's block"] > 2 * errors["the same, held out"], "the others pay"
    assert panels["the super weight's block"][1].max() == around.max(), "and the large one is exact"
''')
md('''
**What you should see.** The super weight is the largest of its block, so it *is* a level: rounding does nothing to it. The other 63 share the few levels at the lower end. With the super weight held out they use twice as many, and have less than half the error.

The package does the same. It must agree exactly, for both kinds:
''')
code('''
for size in (64, BIG):
    for rounding in (asymmetric, symmetric):
        theirs = small.round_to_nearest(W, small.Scheme(4, size, symmetric=rounding is symmetric))
        assert torch.equal(rounding(W.reshape(-1, size), 4).view_as(W), theirs)
mask = torch.zeros_like(W, dtype=torch.bool)
mask[out, into] = True
theirs = small.round_to_nearest(W, small.Scheme(4, 64), mask)
assert torch.equal(theirs[out, first : first + 64], held)
''')
keep(19, 20, 21, 22)
md('''
### A caution before any result
''')
code('''
already = small.plan_quantization(model, "int4 block=32", matrices=KINDS, progress=False)
print("largest error of any matrix, INT4 in blocks of 32:", max(already.errors.values()))
assert not smol or max(already.errors.values()) < 1e-9
''')
md('''
None: the model's own file holds its weights in 4 bits, blocks of 32 (a format called Q4_1), and "dense" is that file read back. So **every INT4 figure below is the cost of quantizing a second time**, on other blocks: compare schemes with one another.

## 2. Who shares levels

A block can be the whole matrix, a row (one output channel), so many consecutive weights, row after row, or a tile. In code, a number for each weight:
''')
code('''
rows, columns = W.shape
index = torch.arange(W.numel()).view_as(W)
cuts = {
    "a channel": index // columns,
    "4,096 in a row": index // 4096,
    "16,384 in a row": index // 16384,
    "a tile of 64 x 64": index // columns // 64 * columns + index % columns // 64,
}
maps = {name: number == number[out, into] for name, number in cuts.items()}
figure = drawn.block_maps(maps, (out, into))
in_column = {name: int(inside[:, into].sum()) for name, inside in maps.items()}
print(f"of the super weight's column {into} in its block:", in_column)
assert maps["4,096 in a row"].sum() == maps["a tile of 64 x 64"].sum()
assert not smol or in_column["a tile of 64 x 64"] > 10 * in_column["4,096 in a row"]
''')
md('''
The red dot is the super weight; what is blue shares its levels. The paper's "128x128" is in its code 16,384 *consecutive* weights: the third map, a band, not a square. How many weights of the super weight's own *column* are in its block will matter.

A block costs a scale of 16 bits, and when asymmetric 16 more for `low`. **Predict** which has the smaller error: 4,096 weights in a row, or a tile of 64 x 64?
''')
code('''
by_block = {}
for name in ("32", "64", "channel", "4096", "64x64", BLOCKS[-1], "tensor"):
    scheme = small.Scheme.parse(f"int4 block={name}")
    number = {"channel": columns, "tensor": W.numel(), "64x64": 4096}.get(name) or int(name)
    by_block[name] = error(small.round_to_nearest(W, scheme), W)
    print(f"{scheme!s:20} {4 + 32 / number:.3f} bits per weight, error {by_block[name]:.4f}")
assert by_block["64"] < by_block["channel"] < by_block[BLOCKS[-1]] < by_block["tensor"]
assert not smol or by_block["4096"] < by_block["64x64"] < 2 * by_block["4096"]
''')
keep(33, 34, 35, 36)
md('''
## 3. Clipping

The other way to better levels is to let them end before the largest weight: whatever lies beyond the *clip* is read back as the last level. The paper puts it `z` standard deviations above the mean of the magnitudes; its code has z = 9.
''')
code('''
def clipped(blocks, limit, bits):
    return asymmetric(blocks.clamp(-limit, limit), bits)


own = W.reshape(-1, BIG)[(out * columns + into) // BIG][None]  # the super weight's block, (1, BIG)
sizes = own.abs()
by_z = {z: (sizes.mean() + z * sizes.std()).item() for z in (4, 9, 20)}
print(f"largest {sizes.max():.2f}; limits by z:", {z: round(limit, 2) for z, limit in by_z.items()})
theirs = small.round_to_nearest(own, small.Scheme(4, BIG, clip="z9"))
assert (clipped(own, by_z[9], 4) - theirs).abs().mean() < 1e-4, "up to the last digit of the limit"
''')
keep(41, 42, 43, 44)
md('''
Where should the limit be? One answer asks the weights: where the block's squared error is *least*. Another asks the output: an error of $W_{out,in}$ matters as much as input channel $in$ is loud, so weigh it by that channel's sum of squares on a short text. **Predict** where the two put the limit, as a share of the largest weight.
''')
code('''
inputs = []
hook = projections[layer].module.register_forward_pre_hook(lambda _, given: inputs.append(given[0][0].cpu()))
with torch.inference_mode():
    for some in (reading, evaluation):
        model(torch.tensor([some], device=device), last_only=True)
hook.remove()
X, unseen = inputs  # (T, in) of each: what clips are chosen on, and what they are judged on
squares = X.double().square().sum(0)  # (in,)
loud = squares.sqrt() / squares.median().sqrt()
print(f"channel {into} is {loud[into]:,.0f} times as loud as the median channel, by its first token")
assert not smol or (loud.argmax() == into and loud[into] > 1000)

factors = [0.95**k for k in range(45)]  # of the largest weight
weighing = squares.float().expand(rows, columns).reshape(-1, BIG)[(out * columns + into) // BIG]
wrong = [(clipped(own, factor * sizes.max(), 4) - own).square() for factor in factors]
curves = {"squared error": wrong, "weighed by the inputs": [one * weighing for one in wrong]}
curves = {name: [(one.sum() / ones[0].sum()).item() for one in ones] for name, ones in curves.items()}
labels = {"xlabel": "limit / largest weight", "ylabel": "error / unclipped", "yscale": "log"}
lines = {name: (factors, curve) for name, curve in curves.items()}
figure = plots.line_panels({f"the super weight's block of {BIG:,}, INT4": lines}, **labels)
best = {name: round(factors[curve.index(min(curve))], 2) for name, curve in curves.items()}
print("least at", best, "of the largest weight")
assert not smol or (best["squared error"] < 0.4 and best["weighed by the inputs"] > 0.7)
''')
md('''
**What you should see.** The curves pull in opposite directions. The plain error falls until the limit is about a fifth of the largest weight: eighteen thousand small weights outvote two. The weighed error knows how loud this one's input is, and takes no clip.

Over the whole matrix, each block with its own clip: `error` and `output` are the least points of the two curves, `p99.9` is a percentile, as in the exercise. Beside them the error of what the matrix computes, on the text that clips are chosen on and on another (the loudest input is the first token's in both):
''')
code('''
print(f"INT4, blocks of {BIG:,}   super weight   error    of the output: chosen on, unseen")
clips = {}
for clip in ("none", "z9", "p99.9", "error", "output"):
    read_back = small.round_to_nearest(W, small.Scheme(4, BIG, clip=clip), squares=squares)
    clips[clip] = error(read_back, W), *(error(x @ read_back.T, x @ W.T) for x in (X, unseen))
    print(f"clip={clip:20} {read_back[out, into]:11.2f}  ", *(f"{one:9.4f}" for one in clips[clip]))
least = [min(clips, key=lambda clip: clips[clip][number]) for number in (0, 2)]
assert not smol or (least == ["error", "output"] and clips["error"][2] > 5 * clips["none"][2])
''')
md('''
The clip of least error leaves a fifth of the super weight, and the output is mostly wrong. Chosen by the output it leaves this block alone and clips others hard, whose large weights meet quiet inputs: the best output and the largest error of the weights.

To look around, 192 weights of the super weight's row: choose a scheme, hover a weight.
''')
code('''
start = max(0, min(first - 64, columns - 192))
part, others = slice(start, start + 192), torch.arange(start, start + 192) != into


def looked_at(name, held):
    """The row under a scheme, for the explorer."""
    read = small.round_to_nearest(W, small.Scheme.parse(name), mask if held else None)[out, part]
    before, edges = W[out, part], [0, 64, 128] if "block=64" in name else []
    told = f"error of the others {error(read[others], before[others]):.4f}"
    spared = [into - start] if held else []
    return {"weights": before, "rounded": read, "blocks": edges, "held": spared, "error": told}


LOOKS = ("int4 block=64", "int4 block=channel", "int4 block=channel clip=z9", "int8 block=channel")
schemes = {f"{name}{', held out' * held}": looked_at(name, held) for name in LOOKS for held in (False, True)}
shown = {name: (schemes[name]["weights"], schemes[name]["rounded"]) for name in LOOKS[::2]}
explorers.explorer(explorers.level_explorer(schemes), drawn.level_panels(shown, xlabel="place in the row"))
''')
md('''
## 4. When does holding out matter?

Now the whole model, all matrices rounded, for every combination of bits, block and clip, with nothing held out and with the set held out (about half a minute). **Predict** one case where eight weights of a hundred million make a difference, and one where they do not.
''')
code('''
def ppl():
    return perplexity(model, evaluation, TOKENS).perplexity


def rounded_to(scheme):
    return small.plan_quantization(model, scheme, watch=SET, matrices=KINDS, progress=False)


def measured(quantization):
    """Perplexity / dense, bits per weight, and what became of the set."""
    with small.quantized(model, quantization):
        fates = {fate.coordinate: (fate.before, fate.after) for fate in quantization.fates}
        return ppl() / dense, quantization.bits_per_weight, fates


def gain(name):
    """How many times lower the perplexity is with the set held out."""
    return grid[name, "nothing"][0] / grid[name, "the set"][0]


dense, grid = ppl(), {}
''')
code('''
names = [f"int{bits} block={block} clip={clip}" for block in BLOCKS for bits in BITS for clip in CLIPS]
print(f"times the dense perplexity {dense:.2f}:  nothing held   the set held")
for name in names:
    bare = rounded_to(name.removesuffix(" clip=none"))
    grid[name, "nothing"] = measured(bare)
    grid[name, "the set"] = measured(small.holding_out(model, bare, SET, watch=SET))  # the rest is shared
    print(f"{name:32}", *(f"{grid[name, what][0]:12,.2f}" for what in ("nothing", "the set")))
if smol:
    assert all(0.9 < gain(f"int{bits} block=64 clip={clip}") < 1.1 for bits in BITS for clip in CLIPS)
    assert gain(f"int4 block={BIG} clip=z9") > 5 > 2 > gain(f"int4 block={BIG} clip=none")
if smol and "channel" in BLOCKS:
    assert gain("int4 block=channel clip=z9") > 1.1 > gain("int4 block=channel clip=none")
''')
md('''
Would any eight do? The controls: as many random weights of the same matrices, and the largest of these beside the set.
''')
code('''
tried = {"the super weight": [SUPER], "the set": SET, "random weights": [], "other large weights": []}
for seed, weight in enumerate(SET):
    tried["random weights"] += random_weights(model, weight, 1, seed)
    others_too = projections[weight[0]].weight.detach().abs().clone()
    for one in (one for one in SET + tried["other large weights"] if one[0] == weight[0]):
        others_too[one[1:]] = 0
    largest = divmod(int(others_too.argmax()), others_too.shape[1])
    tried["other large weights"].append((weight[0], *largest))
WORST = f"int4 block={BIG} clip=z9"
kept, bare = {"nothing": grid[WORST, "nothing"][0]}, rounded_to(WORST)
for name, weights in tried.items():
    kept[name] = measured(small.holding_out(model, bare, weights, watch=SET))[0]
print(f"{WORST}, held out:", {name: round(value, 1) for name, value in kept.items()}, "times dense")
if smol:
    controls = kept["random weights"], kept["other large weights"]
    assert min(controls) > 0.5 * kept["nothing"] > 2 * kept["the set"]
    assert kept["the super weight"] > 1.5 * kept["the set"]
''')
md('''
### The recorded table

The same on two texts of 2,048 tokens each (the two dots of a colour), with more clips. Blocks of 16,384 divide the matrices of the MLPs only, blocks of 18,432 all. Compare blue (nothing held out) with green (the set):
''')
code('''
quantizing = recorded("quantizing")
ways = {"nothing": "none", "the weight": "super", "the set": "set", "random weights": "random"}


def multiples(scheme, shield="none"):
    """Recorded perplexities over the dense one, by text."""
    after, before = quantizing.values(scheme, shield, "perplexity"), quantizing.values(scheme, "dense")
    return [one / was for one, was in zip(after, before, strict=True)]


def below(a, b, share=1.0):
    """Whether it holds on both texts: a below a share of b."""
    return all(x < share * y for x, y in zip(a, b, strict=True))


table = {}
for scheme in sorted(name for name in quantizing.variants if name[:4] == "int4" and "tensor" not in name):
    shields = quantizing.experiment.settings_of(scheme)["shields"]
    table[scheme] = {way: multiples(scheme, shield) for way, shield in ways.items() if shield in shields}
figure = plots.dot_rows(table, 1.0, "perplexity / dense", "held out")
''')
code('''
big, row = (table[f"int4 block={block} clip=z9"] for block in ("18432", "channel"))
assert below(big["the set"], big["nothing"], 1 / 20) and below(row["the set"], row["nothing"], 1 / 1.15)
for name in ("64", "channel", "4096"):  # not clipped
    ours = table[f"int4 block={name} clip=none"]
    assert not below(ours["the set"], ours["nothing"], 1 / 1.05), "no gain to speak of"
for ours in (row for row in table.values() if "random weights" in row):
    assert all(abs(a / b - 1) < 0.05 for a, b in zip(ours["random weights"], ours["nothing"], strict=True))
''')
md('''
**What you should see.** Holding the set out matters where a clip reaches it, the more the bigger the blocks, and in tiles also without a clip. With `z9`, blocks of 16,384 and 18,432 cost more than a hundred times the dense perplexity, and three to thirty times with the set held out: less, and still ruin at the larger size. Blocks of 64 do not care, unclipped rows hardly. Random weights change nothing where they were tried, other large ones (live) a little. In clipped blocks of 18,432 the weight alone leaves two or three times what the set leaves: the eight feed one channel of one token and cover for one another (notebook 06).

Does clip-and-hold beat leaving the weights alone, as the paper says? **Predict** for which sizes.
''')
code('''
for block in ("channel", "4096", "64x64", "16384", "18432"):
    end = ", MLPs" if block == "16384" else ""
    plain, recipe = (table[f"int4 block={block} clip={clip}{end}"] for clip in ("none", "z9"))
    cells = {"plain": plain["nothing"], "held": plain["the set"], "clipped and held": recipe["the set"]}
    if (chosen := f"int4 block={block} clip=output") in table:
        cells["clip by output"] = table[chosen]["nothing"]
        assert below(cells["clip by output"], cells["clipped and held"]), "no hold-out, and better"
    print(f"block={block:8}", {way: [round(one, 2) for one in ones] for way, ones in cells.items()})
    pays = below(cells["clipped and held"], cells["plain"])
    assert pays == (block in ("16384", "18432", "64x64")), "the border of the recipe"
tiles, tiles_clipped = (table[f"int4 block=64x64 clip={clip}"]["the set"] for clip in ("none", "z9"))
assert below(tiles, tiles_clipped), "in tiles holding out without a clip is better still"
ruined, bare = (table[f"int4 block=18432 clip={clip}"]["nothing"] for clip in ("error", "none"))
assert below(bare, ruined, 1 / 10), "the clip of least error of the weights"
''')
md('''
In rows and blocks of 4,096 the clip costs more than it brings; in blocks of 16,384, where most of the gain is the holding out, and of 18,432 the recipe wins. In tiles it wins over doing nothing, but holding out without a clip is better still. A clip chosen by the *output*, with nothing held out, beats the recipe where both were measured, on rows and blocks of 18,432.

### The column

Tiles of 64 x 64 cost many times what 4,096 weights in a row do, at an error a quarter larger. The tile spreads its levels over 64 weights of the super weight's *column*, the flattened block over three, and every weight of that column is multiplied by the same enormous input. So hold out the column instead, all $W_{:,1229}$; the control is a random column of the same matrix. **Predict** which helps more, the weight or its column.
''')
code('''
other = int(torch.randint(columns, (), generator=torch.Generator().manual_seed(0)))
groups = {"nothing": [], "the weight": [SUPER], "the set": SET}
groups["its column"] = [(layer, i, into) for i in range(rows)]
groups["a random column"] = [(layer, i, other) for i in range(rows)]
texts = {name: read_ids(f"{name}:live", tokenizer, TOKENS + 1).tolist() for name in TEXTS}
before = {name: perplexity(model, ids, TOKENS).perplexity for name, ids in texts.items()}
helped = {}
for case in (f"int4 block={block} clip={clip}" for block, clip in COLUMN_CASES):
    bare = rounded_to(case)
    for what, weights in groups.items():
        with small.quantized(model, small.holding_out(model, bare, weights, watch=SET)):
            after = {name: perplexity(model, ids, TOKENS).perplexity for name, ids in texts.items()}
        helped[f"{case}: {what}"] = {name: [after[name] / before[name]] for name in texts}
        print(f"{case}: {what:16}", {name: round(after[name] / before[name], 2) for name in texts})
figure = plots.dot_rows(helped, 1.0, "perplexity / dense", "held out, on the live text of")
''')
code('''
for block, clip in COLUMN_CASES if smol else ():
    found = [helped[f"int4 block={block} clip={clip}: {what}"] for what in groups]
    for nothing, weight, the_set, column, chance in ([one[name][0] for one in found] for name in texts):
        assert abs(chance / nothing - 1) < 0.05, "a random column"
        if block == "channel":
            assert column < 0.97 * min(nothing, weight, the_set)
        elif clip == "z9":
            assert the_set < column < 0.97 * weight
''')
md('''
Where do the errors of the first token go? Layer 11's output is a sum over columns, so ask each for its share:
''')
code('''
for name in ("64x64", "4096", "64"):
    read_back = small.round_to_nearest(W, small.Scheme.parse(f"int4 block={name}"))
    arriving = ((read_back - W) * X[0]).square()  # (out, in), at the first token
    share, through = (arriving[:, into].sum() / arriving.sum()).item(), arriving[:, into].sum().sqrt().item()
    print(f"block={name:6} through column {into}: {share:.1%} of the squared error, {through:,.0f} in length")
    assert not smol or share > 0.8
''')
md('''
**What you should see.** Nine tenths of the squared error of the first token's output in layer 11 come through one column of 1,536, whatever the block, and in tiles most. Little of that is the super weight itself; the rest of its column rounds badly. In rows holding these 576 weights out does more than holding out the weight or the set, which do next to nothing there; in big clipped blocks more than the weight and less than the set: on each of the three texts. In tiles it depends on the text: the column does most on documentation, the set on READMEs and prose, and on READMEs the column alone does harm. OWQ (Lee et al. 2023) and LLM.int8() (Dettmers et al. 2022) keep such columns in more bits; the comparison with the weight is added here.

## 5. Rounding activations too

W8A8 also rounds each token's input, to symmetric levels up to its own largest entry (live below: the inputs alone). The paper's remedy for its *super activation*: put the median in its place, round, read back, and restore it. By hand, for layer 11's input, where two channels spike, those of the set's two weights there:
''')
code('''
def per_token(x, bits):
    """Tokens (T, C), each rounded to 2^bits - 1 levels up to its largest magnitude."""
    step = x.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (x / step).round() * step


def spared_by_hand(x, channels, bits):
    quiet = x.clone()
    quiet[:, channels] = x.median(-1, keepdim=True).values
    read = per_token(quiet, bits)
    read[:, channels] = x[:, channels]
    return read


spikes = [one[2] for one in SET if one[0] == layer]
for read, name in ((per_token(X, 8), "as it is"), (spared_by_hand(X, spikes, 8), "spikes spared")):
    zeros, output = (read[0] == 0).float().mean(), float(read[0] @ W[out])
    print(f"first token, {name}: {zeros:.1%} become zero; output in channel {out}: {output:,.0f}")
assert torch.equal(spared_by_hand(X, spikes, 8), small.quantize_tokens(X, 8, spikes))
print(f"in full precision: {float(X[0] @ W[out]):,.0f}")
''')
keep(92, 93, 94, 95)
md('''
Nearly all of the first token's 1,536 entries become zero, and sparing two brings most back. It looks like a rescue: **predict** what it does for the perplexity. Spared are the channels of the super weight, of the set (where they spike, and where they arrive in later layers), or as many random ones.
''')
code('''
everywhere = {"nothing": {}, "the super weight": small.super_activations(model, [SUPER])}
everywhere["the set"] = small.super_activations(model, SET)
draw = torch.Generator().manual_seed(0)
everywhere["random"] = {
    name: torch.randperm(in_layers[name].weight.shape[1], generator=draw)[: len(channels)].tolist()
    for name, channels in everywhere["the set"].items()
}
for bits in ACTIVATION_BITS:
    for name, channels in everywhere.items():
        with small.quantized_activations(model, bits, channels):
            print(f"inputs in {bits} bits, spared: {name:18} {ppl() / dense:.3f} times the dense perplexity")
''')
code('''
def won(*key):
    """By text, how much of the gap between W8A8 and dense is gone."""
    three = (quantizing.values("W8A8", *one) for one in (("none", "perplexity"), key, ("dense",)))
    return [round((bad - now) / (bad - good), 2) for bad, now, good in zip(*three, strict=True)]


spared_won = {shield: won(shield, "perplexity") for shield in ("super", "set", "random")}
print("recorded, of the gap by text: inputs in full precision win", won("weights"), "sparing", spared_won)
assert max(spared_won["super"] + spared_won["set"]) < 0.25 < min(won("weights"))
''')
md('''
**What you should see.** A negative result. In the paper sparing the super activation brings Llama-7B three quarters of what SmoothQuant does. Here the weights make about seventy per cent of the gap, which no sparing of activations can win back, and of the whole gap it wins back at most a tenth, random channels as much or as little; noise would look like that. The huge output in channel 507 hardly moves without any sparing: the largest entry of a symmetric scale *is* a level, just as the super weight was.

## 6. Real bytes, real seconds

So far everything was computed in float32, with rounded numbers: quality, not speed. Generating a token reads every weight once; if that were all, tokens per second would rise as the bytes fall. PyTorch's kernels: bfloat16 weights in an order that suits the processor, 8 bits with a scale per row, 4 bits in groups of 32. The rivals take turns.
''')
code('''
here = model if device.type == "cpu" else copy.deepcopy(model).cpu()  # the kernels are the processor's
narrow = copy.deepcopy(here).to(torch.bfloat16)
missing = {packing: small.missing_kernel(packing) for packing in PACKINGS}
kernels = [packing for packing in PACKINGS if missing[packing] is None]
for packing in set(PACKINGS) - set(kernels):
    print(f"packed {packing} is left out: {missing[packing]}")
rivals = {"float32": here, "plain bfloat16": narrow}
rivals |= {f"packed {packing}": copy.deepcopy(narrow) for packing in kernels}
prompt = tokenizer.encode("The capital of France is")


def timed(name):
    return lambda: generate(rivals[name], prompt, NEW_TOKENS)
''')
code('''
with ExitStack() as stack:
    for packing in kernels:
        stack.enter_context(small.packed_weights(rivals[f"packed {packing}"], packing))
    seconds = timing.interleave({name: timed(name) for name in rivals}, ROUNDS)
    read = {name: weight_bytes(rival) for name, rival in rivals.items()}
    quality = {name: perplexity(rival, evaluation, TOKENS).perplexity for name, rival in rivals.items()}
''')
code('''
faster = {name: timing.ratios(seconds, name, "float32") for name in seconds}
print(f"{NEW_TOKENS} tokens, {ROUNDS} rounds, {torch.get_num_threads()} threads, {timing.processor()}")
for name, why in seconds.left_out.items():
    print(f"{name} is left out: {why}")
for name, ratios in faster.items():
    bytes_read, ideal = read[name] / 1e6, read["float32"] / read[name]
    print(f"{name:16} {bytes_read:4.0f} MB read per token, perplexity {quality[name]:.2f};", end=" ")
    print(f"tokens/s as a multiple of float32's: {timing.spread(ratios)}, {ideal:.1f} by the bytes")
figure = plots.ratio_dots(faster, "tokens per second, as a multiple of float32's, in each round")
for packing, least, most in (("int8", 3.9, 4.0), ("int4", 6.0, 8.0)):
    if packing in kernels and smol:
        assert least < read["float32"] / read[f"packed {packing}"] < most
        assert abs(quality[f"packed {packing}"] / quality["float32"] - 1) < 0.12
''')
md('''
**What you should see.** A quarter and a sixth of the bytes, and a perplexity within a tenth: rows in 8 bits and groups of 32 in 4, without a clip, where nothing needs to be spared. (In 4 bits it is the head that costs, which the file stores with more.) Compare each measured multiple (its rounds in brackets) with the ideal beside it: unpacking takes its time, and so does all that is not a matrix.

## 7. The quantization explorer

The dots are schemes of section 4's grid with the same weights held out; the orange one is chosen. On the right, what became of the eight weights.
''')
code('''
def explore(bits, block, clip, held_out):
    name = f"int{bits} block={block} clip={clip}"
    value, size, fates = grid[name, held_out]
    points = {one: (grid[one, held_out][1], grid[one, held_out][0] * dense) for one in names}
    print(f"{name}, {held_out} held out: {size:.3f} bits, {value:,.2f} times dense {dense:.2f}")
    drawn.scheme_map(points, name, dense, {show(one): fates[one] for one in fates}, "weights of the set")
    plt.show()


explore(4, BLOCKS[-1], "z9", "nothing")
''')
code('explore(4, "64", "none", "nothing")')
code('explore(BITS[-1], BLOCKS[0], "none", "the set")')
code('''
interact(
    explore,
    bits=SelectionSlider(options=BITS, value=4, continuous_update=False),
    block=Dropdown(options=BLOCKS),
    clip=Dropdown(options=CLIPS),
    held_out=Dropdown(options=["nothing", "the set"]),
);
''')
md('''
Try `z9` at 8 bits: a clipped weight is as wrong in 8 bits as in 4.

## 8. Does a super weight survive quantization?

Without a clip it does, to a few per cent, and that is not enough: blocks of 18,432 leave all eight nearly as they were and cost more than ten times the perplexity. How much of a *clipped* scheme's damage is the fate of these weights alone? Change nothing but the super weight to what the clip makes of it; then all eight. **Predict**: is one enough?
''')
code('''
def fate_alone(fates, count):
    """Perplexity / dense when the first `count` weights of the set, and nothing else, meet their fates."""
    with ExitStack() as stack:
        for one, (was, now) in list(fates.items())[:count]:
            stack.enter_context(scaled_weights(model, [one], now / was))
        return ppl() / dense


alone = {}
for name in (f"int4 block={block} clip=z9" for block in BLOCKS):
    value, _, fates = grid[name, "nothing"]
    tried = {"the weight's fate alone": fate_alone(fates, 1), "the set's fates alone": fate_alone(fates, 8)}
    tried |= {"all rounded": value, "all rounded, set held": grid[name, "the set"][0]}
    alone[name] = {what: [one] for what, one in tried.items()}
    print(f"{name:26}", {what: round(one, 2) for what, one in tried.items()})
figure = plots.dot_rows(alone, 1.0, "perplexity / dense")
if smol:
    one, eight = (alone[WORST][f"{what} alone"][0] for what in ("the weight's fate", "the set's fates"))
    assert one < (1.6 if TOKENS >= 256 else 3) and eight > max(4, 3 * one)
    assert alone["int4 block=64 clip=z9"]["the set's fates alone"][0] < 1.05
    if KINDS is None:
        bare = grid[f"int4 block={BIG} clip=none", "nothing"]
        assert bare[0] > 10 and all(abs(now / was - 1) < 0.05 for was, now in bare[2].values())
''')
md('''
**What you should see.** In blocks of 18,432 the clip leaves the super weight a third of its value, which alone costs a few tens of per cent. All eight, so clipped, cost several times the perplexity. The whole scheme costs more than the product of that and of rounding without a clip. In blocks of 64 the clip reaches nobody: of 64 numbers none lies nine standard deviations above their mean.

## 9. Recap

- One large weight spreads its block's levels: it survives, and its neighbours pay.
- Holding the set out takes big clipped blocks from hundreds of times the perplexity to tens, and does next to nothing for small blocks. Random weights do nothing.
- Clipping and holding out beats plain rounding in blocks of 16,384 and 18,432 weights, not in rows and blocks of 4,096. A clip chosen by the output beats it, with nothing held out; one of least error of the weights ruins the model.
- The weight's column counts, too: in rows more than the set, in big clipped blocks less; in tiles that depends on the text.
- Sparing the super activation in W8A8 did not help here.

**Limits.** One model of 135 million parameters, quantized a second time. One short live text, in one cell three; two recorded ones of one documentation, without intervals, on one processor (on another, multiples of blocks of 18,432 were up to a third different). Products inside attention, embeddings and head are not rounded in the quality figures. No method that moves weights after rounding (GPTQ, AWQ, SmoothQuant) is compared.

## References

- Yu, Wang, Shan, Reed, Wan. *The Super Weight in Large Language Models.* 2024. arXiv 2411.07191. Clip, hold out, restore; its code has the flattened blocks and z = 9.
- Dettmers, Lewis, Belkada, Zettlemoyer. *LLM.int8().* 2022. arXiv 2208.07339. Outlier channels in activations.
- Lee et al. *OWQ.* 2023. arXiv 2306.02272. Weak columns in full precision.
- Xiao et al. *SmoothQuant.* 2022. arXiv 2211.10438. Lin et al. *AWQ.* 2023. arXiv 2306.00978.
''')
keep(125)
code('''
record(
    "09_quantization",
    worst_nothing_held=kept["nothing"],
    worst_set_held=kept["the set"],
    worst_random_held=kept["random weights"],
    kernels=", ".join(kernels) or "none here",
    **{f"{name.removeprefix('packed ')}_times_float32": timing.spread(faster[name]) for name in faster},
)
''')
old.cells = out
open(P, "w").write(written(old))
n = sum(c.cell_type == "code" for c in out)
print(n, "code", len(out) - n, "md", sum(len(c.source.split()) for c in out if c.cell_type != "code"), "words")
