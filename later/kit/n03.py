import sys; sys.path.insert(0,'/tmp/work')
import nbformat
from supertf.lab.book.executed import written
P="notebooks/03_no_positions.ipynb"
nb=nbformat.read("/work/main/"+P,4); old=nb.cells
out=[]
def md(s): out.append(nbformat.v4.new_markdown_cell(s.strip('\n')))
def code(s,tags=None):
    c=nbformat.v4.new_code_cell(s.strip('\n'))
    if tags: c.metadata['tags']=tags
    out.append(c)
def keep(*ii):
    for i in ii:
        c=old[i]; 
        if c.cell_type=='code': c.outputs=[]; c.execution_count=None
        out.append(c)
badge=old[0].source.split('\n')[0]
md(badge+'''

# Order without positions

Attention averages over a *set* of tokens, and a set has no order. That is why transformers are given positions: a table, waves, rotations. Take all of that away (NoPE, no positional encoding), keep only the rule that a token may not look ahead, and a decoder of two layers can still tell "the dog bit the man today" from "the man bit the dog today", which end in the same word. This notebook shows why, where it fails, how positions become readable in hidden states, and what leaving them out costs. The models are small decoders, random or trained on the documentation of Python libraries (`library-docs`), byte by byte.

**You will learn**
- why one layer without positions sees a bag of tokens, and two layers see a sequence,
- what the causal mask leaks: averages over growing prefixes, which grow calmer,
- the catch: a text that repeats one token has no positions at any depth, unless something distinct comes first,
- how to read positions out of hidden states, which clock they come from, and whether the model needs them,
- what NoPE costs against learned, sinusoidal, rotary and ALiBi positions.

**Words** *Causal mask*: the rule that token $i$ sees tokens 0 to $i$. *BOS*: a token that begins every text. *State*: what the residual stream holds at one token. *Linear probe*: a linear fit that reads something out of states. *$R^2$*: the share of the variance that the fit explains on new data; 1 is perfect, 0 knows nothing.

**Time** about two minutes of computing on two CPU cores, most of it training; 25 minutes to read, half an hour more with the exercises. **Hardware** any; no GPU and no network needed.

Before: [02, scalable softmax](02_scalable_softmax.ipynb). Next: [04, longer than trained](04_longer_than_trained.ipynb).
''')
keep(1)
code('''
import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch
from ipywidgets import IntSlider, interact

from supertf import GPT
from supertf.analysis import hidden_states, mean_interval, paired_difference, probe_positions
from supertf.data import lab_tokens
from supertf.experiments import held_out, judged, recorded
from supertf.lab import check, in_range, one_of, plots, record, setup, show_solved
from supertf.model import Layout, language_config, layout, with_changes
from supertf.training import TrainSettings, train

device, dtype = setup(seed=0)
''')
md('''
Small numbers for two cores. `SEEDS` is how many random models each exact statement is tried on. `PROFILE = "full"` trains all five position codes of section 5 for all `STEPS` here and now, instead of three for `SHORT_STEPS`: about five minutes more. The cell after the parameters says between which values the claims of this notebook hold.
''')
keep(4,5)
md('''
## 1. One layer sees a bag, two layers see a sequence

The test is blunt: shuffle all tokens before the last one and ask whether the prediction after the last one changes. We use random models of width 64 in fp64, where "does not change" can mean ten decimals, and two rules of who sees whom: the *causal* one of every decoder, and a *bidirectional* one, as in encoders such as BERT, where everyone sees everyone.
''')
code('''
def random_model(layers, seed=0, **changes):
    torch.manual_seed(seed)
    config = language_config(VOCAB, LENGTH, n_layer=layers, position="none", **changes)
    return GPT(config).double().eval()


def everyone_sees(T):
    causal = layout(T)
    visible = torch.full((1, T), T)  # n, the number of visible keys, is T for every query
    return Layout(causal.positions, visible, torch.ones(1, 1, T, T, dtype=torch.bool), causal.key_positions)


MASKS = {"causal": layout(LENGTH), "bidirectional": everyone_sees(LENGTH)}
''')
keep(10,11,12)
code('''
rows = {}
for name, values in effects.items():
    sees_order = "causal" in name and "1 layer" not in name
    assert (min(values) > 0.01) if sees_order else (max(values) < 1e-10), name
    rows.setdefault(name.split(", ", 1)[1], []).extend(values)
of = f"largest change of a last logit over {PERMUTATIONS} shuffles, a dot per random model"
plots.ratio_dots(rows, xlabel=of)
plt.show()
''')
md('''
**What you should see.** Two clusters, twelve orders of magnitude apart and more. One layer never notices the order, two and three causal layers always do, and a bidirectional model never does, however deep. Scalable softmax moves nothing (its dots are among the others): the last query sees the same number of keys in every order. How large the change is depends on the size of the random weights; the zeros do not.
''')
keep(17,18)
code('''
places = range(SHORT - 1)
maps = {
    place: {f"{name} mask": swap_map(place, where) for name, where in short_masks.items()} for place in places
}


def show_swap(place):
    swapped = f"{place} and {place + 1} swapped"
    plots.layer_maps({f"{name}: {swapped}": values for name, values in maps[place].items()})
    plt.show()


show_swap(8)
show_swap(0)
show_swap(SHORT - 2)
''')
keep(22,23)
keep(24,25,26,27,28,29,30)
md('''
### And after training?

Nothing in the argument used random weights, so training cannot change it. We train two NoPE models on bytes of documentation, one of a single layer (briefly) and one of three layers, which the rest of the notebook looks into. This is the slow cell.
''')
keep(32,33,34)
md('''
## 2. Why: averages over growing prefixes

So the first layer must leave something in its states that depends on place. What? With small random weights all logits are near zero and attention is nearly uniform: the output at row $m$ is the mean of the first $m$ values. A mean of $m$ independent vectors of variance $\\sigma^2$ has variance $\\sigma^2 / m$. The content of each mean is a matter of chance, but its *size* is not: it shrinks like $1/\\sqrt{m}$, and that is a clock (Chi et al. 2023).
''')
keep(52,53,54,55)
md('''
**Predict:** on random tokens, how does the variance of the attention output fall with $m$ on log-log axes, in layer 1 and in layer 3? And with a bidirectional mask?
''')
keep(36)
code('''
CASES = [(0.02, 1), (0.02, LAYERS), (0.125, 1)]  # size of the random weights, and the layer
found = {}
for size, mask in itertools.product((0.02, 0.125), PREFIX_MASKS):
    models = [random_model(LAYERS, seed, init_std=size).float() for seed in range(SEEDS)]
    by_seed = torch.stack([variances(model, random_tokens, PREFIX_MASKS[mask]) for model in models])
    found[size, mask] = (by_seed / by_seed[:, :, :1]).numpy()  # (seeds, layers, T), in units of the first
''')
code('''
m = np.arange(1, PREFIX + 1)
panels = {}
for size, layer in CASES:
    lines = {mask: (m, found[size, mask][:, layer - 1].mean(0)) for mask in PREFIX_MASKS}
    panels[f"layer {layer}, weights of size {size}"] = {**lines, "1 / m": (m, 1 / m)}
axis = {"xscale": "log", "yscale": "log", "xlabel": "position m", "ylabel": "variance, first = 1"}
figure = plots.line_panels(panels, **axis)
''')
code('''
def slope(variance):
    """Slope of a straight line through log variance against log m."""
    return float(np.polyfit(np.log(m), np.log(variance), 1)[0])


slopes = {}
for (size, layer), mask in itertools.product(CASES, PREFIX_MASKS):
    slopes[size, layer, mask] = [slope(one[layer - 1]) for one in found[size, mask]]
    print(f"layer {layer}, size {size:<5} {mask:13} slope {mean_interval(slopes[size, layer, mask])}")
first, wide = slopes[0.02, 1, "causal"], slopes[0.125, 1, "causal"]
assert all(abs(one + 1) < 0.03 for one in first) and min(np.subtract(wide, first)) > 0.1
assert all(abs(one) < 0.05 for key, ones in slopes.items() if key[2] == "bidirectional" for one in ones)
''')
md('''
**What you should see.** In the first layer, with small weights, the slope is within .03 of $-1$ on every seed; deeper layers average states that are already similar to each other and fall a little less. Without a causal mask the line is flat: every row averages the same set, so there is no clock. With larger weights (1/8, the size we train from) the curve bends away from $1/m$: the weights are no longer uniform, and each query collects *its own* weighted mean.
''')
keep(56,57,58,59)
keep(60,61)
code(old[62].source+'''
for name, values in drifts.items():
    blind = "NoPE, no BOS" in name
    assert (np.max(values) < 1e-10) if blind else (np.min(values) > 1e-4), name
place = np.arange(2, LENGTH)
groups = {name: (place, values) for name, values in drifts.items()}
plots.seed_bands(groups, yscale="log", xlabel="position", ylabel="distance from the state at 1")
plt.show()
''')
md('''
**What you should see.** Without BOS the states are equal to thirteen digits, for random weights and after training: a mean of equal values is that value, however many there are. The model cannot count them. One BOS in front changes the picture, because its share of each mean is $1/m$.

The same argument stops learning. Equal keys make uniform attention whatever the query, so the loss does not depend on the query and key matrices at all (Gelberg et al. 2025, Proposition 3.2):
''')
keep(66)
md('''
Ordinary text without BOS is not that poor, since its tokens differ. Still, give a NoPE model a BOS token: all training in this lab does.
''')
keep(68,69,70,71)
md('''
## 4. Reading positions out of the states

Does the trained model use this clock? First, what can be read: a **linear probe** fits one weight per channel, so that the weighted sum of a state gives its position, on some windows of text, and is scored by $R^2$ on others. The control beside it is the same probe on shuffled positions: if that found something, we would be fooling ourselves. **Predict:** in which layer is the position clearest, and in which models: NoPE, learned positions, or RoPE?
''')
code('''
def explained_by_layer(model, shuffled=False):
    """R² of positions, read from the states after each layer (0: the embedding)."""
    return [one.r2 for one in probe_positions(model, text[:128], text[128:], shuffled=shuffled)]


fresh = [random_model(LAYERS, seed).float() for seed in range(SEEDS)]
live = explained_by_layer(deep_run.model)
untrained = [explained_by_layer(model) for model in fresh]
shuffled = [explained_by_layer(model, shuffled=True) for model in (*fresh, deep_run.model)]
''')
md('''
One trained model is an anecdote. Beside it stand models trained longer, for 1,000 steps, on five seeds each, recorded beforehand (`supertf experiment run language`, the subject of section 5).
''')
code('''
results, claims = recorded("language"), judged("language")
probes = {
    name: [[one["r2"] for one in seed] for seed in results.values(f"softmax {name}", "probe")]
    for name in ("none", "learned", "rope")
}
groups = {f"trained, {name}": (range(len(seeds[0])), seeds) for name, seeds in probes.items()}
depth = range(LAYERS + 1)
groups |= {"random weights": (depth, untrained), "control, shuffled": (depth, shuffled)}
axis = {"xticks": depth, "xlabel": "after layer (0: embedding)", "ylabel": "R² of the position"}
plots.seed_bands(groups, {"trained, none": (depth, live)}, **axis)
plt.show()
''')
code('''
for name, (_, values) in groups.items():
    print(f"{name:18}", "  ".join(f"{value:5.2f}" for value in np.mean(values, axis=0)))
assert np.max(shuffled) < 0.1 and live[0] < 0.1 and max(live) > 0.5
claims.among(*results.variants, of="probe")
''')
md('''
**What you should see.** At the embedding nothing is readable: a byte does not know where it stands ($R^2$ .03, also of the recorded NoPE models). Random weights already tell something. Training sharpens it to .96 in the middle of the model, and the last layer throws much of it away again, busy with the next byte. Haviv et al. (2022) saw the same shape in 24 layers. With learned positions the position is put in at the bottom and fades upwards; with RoPE, which works with distances, next to none is there at any depth.
''')
md('''
### Which clock?

Two things could be read: the calming averages of section 2, or the one token that is different, BOS, whose share of every average is $1/m$. And a state's *length* could tell it alone, or it takes the direction. So probe again, with and without BOS, by the states and by three functions of their length ($|x|$, $\\log |x|$, $1/|x|^2$). **Predict:** which of the four is largest at random weights?
''')
code(old[89].source+'\n\n\n'+old[90].source)
code('''
windows_of = {"BOS": text, "no BOS": held_out(validation_file, LENGTH, 192, None)}
kinds = {"states": lambda x: x, "lengths": lengths_of}
clocks = {}
for (start, windows), (kind, features) in itertools.product(windows_of.items(), kinds.items()):
    by_chance = [best_layer(model, windows, features) for model in fresh]
    clocks[start, kind] = by_chance, best_layer(deep_run.model, windows, features)
    told = f"random weights {mean_interval(by_chance)}; trained with BOS {clocks[start, kind][1]:.2f}"
    print(f"{start:7} {kind:8} {told}")
gain = np.subtract(clocks["BOS", "states"][0], clocks["no BOS", "states"][0])
assert min(gain) > 0.1, "much of it is BOS"
''')
md('''
**What you should see.** @@CLOCK@@
''')
keep(94,95)
code('''
def orthonormal(columns):
    return torch.linalg.qr(columns).Q


def read_in_turn(x, count):
    """Directions (C, count), each read where those before are gone; and R² with 0 ... count gone."""
    basis, left = x.new_zeros(x.shape[-1], 0), []
    for _ in range(count + 1):
        r2, weights = explained(x - (x - x.mean(dim=(0, 1))) @ basis @ basis.T)
        left.append(r2)
        basis = orthonormal(torch.cat([basis, weights[:, None].float()], dim=1))
    return basis[:, :count], left


GONE = (1, 4, 16)
with torch.no_grad():
    states = list(hidden_states(deep_run.model, text))
clearest = max(range(1, LAYERS), key=lambda layer: explained(states[layer])[0])
clock_directions, left = read_in_turn(states[clearest], max(GONE))
whole = deep_run.model(text[128:, :-1], text[128:, 1:]).loss.item()
''')
code('''
generator, taken = torch.Generator().manual_seed(0), {}
for count in GONE:
    draws = [torch.randn(len(clock_directions), count, generator=generator) for _ in range(8)]
    others = [loss_without(deep_run.model, clearest, orthonormal(draw)) - whole for draw in draws]
    cost = loss_without(deep_run.model, clearest, clock_directions[:, :count]) - whole
    taken[count] = cost, others
    beside = f"with random ones {min(others):+.3f} to {max(others):+.3f}"
    print(f"{count:2} of {len(clock_directions)} directions gone after layer {clearest}:", end=" ")
    print(f"R² {left[count]:.2f}, loss {cost:+.3f}, {beside}")
if STEPS >= 600:
    assert taken[1][0] < 2 * max(taken[1][1]) and left[max(GONE)] > 0.6
''')
md('''
**What you should see.** @@NEED@@
''')
md('''
## 5. What it costs

A clock that has to be built takes layers and training. What does that cost in loss, against models that are told where they are? Five position codes, everything else equal (three layers, width 64, 1,000 steps, bytes), and on each seed the same first windows in the same order; run beforehand on five seeds with `supertf experiment run language --record`.

**Predict:** sort none, learned, sinusoidal, rope and alibi by their loss. Is the best ahead of NoPE by 0.01 nats per byte, 0.1 or more?
''')
code('''
full = {"lab": False, "full": True}[PROFILE]
POSITIONS = ("none", "learned", "sinusoidal", "rope", "alibi")
live_names, live_steps = (POSITIONS, STEPS) if full else (("none", "learned", "rope"), SHORT_STEPS)
live_runs = {name: train_text(live_steps, position=name) for name in live_names}


def validation_curve(run):
    points = [(m["step"], m["validation_loss"]) for m in run.metrics if "validation_loss" in m]
    return tuple(zip(*points, strict=True))
''')
md('''
One line for scale: the loss of a *bigram* table, which predicts from the last byte alone. A one-layer NoPE model has little else. (The dashed live runs are shorter; their learning rate falls to a tenth over whatever steps there are, so they are not the beginning of the recorded ones.)
''')
code('''
ids, held = (torch.from_numpy(file.tokens.astype("int64")) for file in (train_file, validation_file))
pairs = torch.bincount(ids[:-1] * VOCAB + ids[1:], minlength=VOCAB**2).view(VOCAB, VOCAB) + 0.01
bigram = -(pairs / pairs.sum(dim=1, keepdim=True)).log()[held[:-1], held[1:]].mean().item()
at = results.values("softmax none", "steps")[0]
curves = {name: results.values(f"softmax {name}", "validation") for name in POSITIONS}
groups = {name: (at, seeds) for name, seeds in curves.items()} | {"bigram table": (at, [[bigram] * len(at)])}
axis = {"xlabel": "step", "ylabel": "validation loss (nats per byte)", "xscale": "log"}
plots.seed_bands(groups, {name: validation_curve(run) for name, run in live_runs.items()}, **axis)
plt.show()
''')
code('''
final = {name: results.values(f"softmax {name}", "validation_loss") for name in POSITIONS}
costs = {f"none - {name}": paired_difference(final["none"], final[name]) for name in POSITIONS[1:]}
plots.interval_rows(costs, "how much higher the loss of NoPE is (nats per byte, 95 %, 5 seeds)")
plt.show()
short = {name: run.metrics[-1]["validation_loss"] for name, run in live_runs.items()}
print(f"this run, {live_steps} steps:", ", ".join(f"{name} {value:.3f}" for name, value in short.items()))
assert short["rope"] < short["none"]
claims.among(*(f"softmax {name}" for name in POSITIONS), of="validation_loss")
''')
md('''
**What you should see.** At this size positions are worth a lot: RoPE is ahead of NoPE by .37 nats per byte [.36, .38], the other three by about a quarter (.23 to .25). The curves say more than their ends. After a hundred steps NoPE and learned positions are level, at the bigram table's loss, and RoPE, which sees distances from the first step, has passed it. Then those that have positions pull away. (That NoPE waits for its clock is a plausible reading; the curves alone do not prove it.)

And a readable clock is not what makes a model good. RoPE and ALiBi keep next to no absolute position in their states, and predict better than NoPE, whose position can be read almost exactly: a clock is what a model without positions has to build.

How does this compare with large models? In Haviv et al. (2022), perplexities on WikiText-103 were 20.97 without positions, 20.42 with learned ones, 20.16 sinusoidal, 19.71 with ALiBi, which is 0.03 to 0.06 nats per token. In Anson et al. (2025), at 162 million parameters, none was 3.397 and RoPE 3.261, which is 0.136. Those are nats per *token* of several bytes each, ours are nats per *byte*, and their models are far larger and were trained far longer. The sign agrees; the sizes cannot be compared. What happens *beyond* the trained length is the subject of the next notebook.
''')
md('''
And if they are trained for longer? Eight times as long, on three seeds, with RoPE, without positions, and without positions but with scalable softmax (`supertf experiment run longer_training --record`):
''')
code('''
longer, longer_claims = recorded("longer_training"), judged("longer_training")
groups = {
    name: (longer.values(name, "steps")[0], longer.values(name, "validation")) for name in longer.variants
}
axis = {"xlabel": "step", "ylabel": "validation loss (nats per byte)", "xscale": "log"}
plots.seed_bands(groups, **axis)
plt.show()
longer_claims
''')
md('''
**What you should see.** @@LONGER@@
''')
md('''
## 6. Recap

- One attention layer without positions computes with a set; no training, no scaling of the logits changes that. Two layers under a causal mask see a sequence, because the first layer's states saw sets of different sizes. Without the mask, no depth helps.
- The mask leaks a clock: prefix means whose variance falls like $1/m$ when attention is uniform, less regularly when it is not.
- The clock needs tokens that differ. One repeated token is timeless at any depth, until a BOS token stands in front.
- A linear probe finds little at random weights, much of that thanks to BOS, and nearly all after training, most in the middle of the model. It is written in many directions: taking away the one that the probe reads costs no more than taking away a random one.
- A small language model pays for having to build its clock: it ends .23 to .37 nats per byte behind models that are given positions. @@LONGERRECAP@@

**Limits.** Decoders of three layers and width 64 on bytes of one kind of text; one live model where the probe's directions are taken away.

## References

- Irie. *Why Are Positional Encodings Nonessential for Deep Autoregressive Transformers? Revisiting a Petroglyph.* 2025. arXiv 2501.00659.
- Irie, Zeyer, Schlüter, Ney. *Language Modeling with Deep Transformers.* 2019. arXiv 1905.04226.
- Haviv, Ram, Press, Izsak, Levy. *Transformer Language Models without Positional Encodings Still Learn Positional Information.* 2022. arXiv 2203.16634.
- Chi, Fan, Chen, Rudnicky, Ramadge. *Latent Positional Information is in the Self-Attention Variance of Transformer Language Models Without Positional Embeddings.* 2023. arXiv 2305.13571.
- Kazemnejad et al. *The Impact of Positional Encoding on Length Generalization in Transformers.* 2023. arXiv 2305.19466.
- Anson, Wang, Aitchison. *Scale-invariant attention.* 2025. arXiv 2505.17083.
- Gelberg et al. *Extending the Context of Pretrained LLMs by Dropping Their Positional Embeddings* (DroPE). 2025. arXiv 2512.12167.
- Ravfogel et al. *Null It Out: Guarding Protected Attributes by Iterative Nullspace Projection.* 2020. arXiv 2004.07667.
''')
keep(115)
code('''
record(
    "03_no_positions",
    one_layer_change=max(effects["softmax, causal, 1 layer"]),
    two_layer_change=min(effects["softmax, causal, 2 layers"]),
    slope=float(np.mean(first)),
    probe_r2=max(live),
    cost_against_rope=costs["none - rope"].mean,
)
''')
nb.cells=out
for c in nb.cells: c.setdefault('id', None)
open(P,'w').write(written(nb))
n=sum(c.cell_type=='code' for c in out); import re
w=' '.join(c.source for c in out if c.cell_type!='code')
print(n,'code',len(out)-n,'md',len(w.split()),len(re.sub(r'<details>.*?</details>','',w,flags=re.S).split()))
