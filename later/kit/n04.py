import sys
import nbformat, re
from supertf.lab.book.executed import written
P="notebooks/04_longer_than_trained.ipynb"
nb=nbformat.read("/work/main/"+P,4); old=nb.cells
out=[]
def md(s): out.append(nbformat.v4.new_markdown_cell(s.strip('\n')))
def code(s,tags=None):
    c=nbformat.v4.new_code_cell(s.strip('\n'))
    if tags: c.metadata['tags']=tags
    out.append(c)
def keep(*ii):
    for i in ii:
        c=old[i]
        if c.cell_type=='code': c.outputs=[]; c.execution_count=None
        out.append(c)
badge=old[0].source.split('\n')[0]
md(badge+'''

# Longer than trained

Notebook 02 scaled attention by log n, notebook 03 took the positions away. Here the two meet, where they should matter: texts longer than any the model has seen. The models are small decoders; in section 6 it is SmolLM2-135M-Instruct, whose weights are stored in 4 bits and expanded. Every scaling is compared with every position code, on five seeds each, with the controls that such a claim needs: a plain constant in the place of log n, and a task on which being too sharp is punished.

**You will learn**
- what "SSMax + no positions beats softmax + positions" becomes when both changes are tested one at a time,
- why a model may attend well and still fail, and the reverse,
- when a constant does as well as log n, and when none of those tried does,
- to read a difference between two models together with its interval.

**Words** *Logits*: attention scores before the softmax. *SSMax*: logits times $s \\log n$, with $n$ visible keys and an $s$ that each head learns; *fixed s* is one that does not learn. *Swap*: a change of a trained model's attention without training. *RoPE*, *ALiBi*: codes of the distance between two tokens; *p-RoPE* rotates only half of the channels. *Needle*: the one item that is asked about.

**Time** about two minutes of computing on two CPU cores; 25 minutes to read, forty more with the exercises. **Hardware** any; no GPU and, once the model is fetched, no network. Curves over five seeds are recorded results; each figure says which command makes it again.

Before: [03, no positions](03_no_positions.ipynb). Next: [05, super weights](05_super_weights.ipynb).
''')
keep(1)
code('''
import matplotlib.pyplot as plt
import numpy as np
import torch
from ipywidgets import SelectionSlider, interact

from supertf.analysis import (
    attention_stats,
    loss_by_position,
    mean_interval,
    paired_difference,
    sink_rate,
    two_by_two,
)
from supertf.data import Task
from supertf.experiments import judged, recorded, run, text
from supertf.lab import check, in_range, one_of, plots, record, setup, show_solved
from supertf.model import load_model, with_changes
from supertf.training import TaskSettings, score, task_config, train_on_task

SEED = 0
device, dtype = setup(SEED)
''')
keep(3,4,5)
code('''
language, recall = recorded("language"), recorded("recall")
if PROFILE == "full":
    recall = run("recall", progress=False)
for results in (language, recall):
    seconds, meta = results.meta["seconds"], results.meta
    print(f"{len(results.cells)} models, {seconds / 60:.0f} minutes: {meta['command']}")
''')
md('''
## 1. One claim, two changes

The project that this lab grew from compared a transformer with softmax attention and sinusoidal positions with one that has SSMax and no positions, saw a lower loss, and credited the pair. Two things changed at once, and there was one run of each. The honest version is a **2 × 2 design**: both attentions with and without positions, the same seeds for all four, so that each seed gives its own comparison. Three layers of width 64 read bytes of documentation, 64 at a time.

**Predict**: inside that context, which of the two changes matters more, and in which direction?
''')
code('''
DESIGN = {
    (attention, position): f"{attention} {position}"
    for attention in ("softmax", "ssmax")
    for position in ("sinusoidal", "none")
}
steps = language.values("softmax none", "steps")[0]
curves = {name: (steps, language.values(name, "validation")) for name in DESIGN.values()}
axis = {"xlabel": "step", "ylabel": "validation loss (nats per byte)", "xscale": "log"}
figure = plots.seed_bands(curves, **axis)
''')
md('''
Lines are means over five seeds, bands reach from the lowest seed to the highest. The effects in numbers: a main effect is what one change does, averaged over the other; the interaction is how much more SSMax does without positions than with them. Intervals are 95 % Student intervals over the paired seeds.
''')
code('''
inside = {key: language.values(name, "validation_loss") for key, name in DESIGN.items()}
effects = two_by_two(inside)
rows = {
    "softmax → SSMax": effects.first,
    "sinusoidal → none": effects.second,
    "interaction": effects.interaction,
}
pair = paired_difference(inside["ssmax", "none"], inside["softmax", "sinusoidal"])
rows["both changes"] = pair
figure = plots.interval_rows(rows, "change of validation loss inside the context (nats per byte)")
for name, effect in rows.items():
    print(f"{name:20} {effect}")
''')
code('''
claims = judged("language")
claims.among("softmax sinusoidal", "softmax none", "ssmax sinusoidal", "ssmax none", of="validation_loss")
''')
keep(13,14,15,16)
md('''
**What you should see.** @@INSIDE@@
''')
md('''
### Beyond the context

The same models read validation text in windows of up to 1,024 bytes, sixteen times what they were trained on; no 20 tokens of it in a row are in the training text. Learned positions end at 64 and cannot be asked.
''')
code('''
FAR_LENGTHS = [64, 128, 256, 512, 1024]
CODES_TRIED = ("sinusoidal", "none", "rope")
FAR_MODELS = [f"{arm} {position}" for position in CODES_TRIED for arm in ("softmax", "ssmax")]
FAR_MODELS.append("softmax alibi")


def by_length(name):
    return np.array([language.values(name, "beyond", n, "last_half") for n in FAR_LENGTHS]).T


beyond = {name: (FAR_LENGTHS, by_length(name)) for name in FAR_MODELS}
axis = {"xscale": "log", "xlabel": "window (bytes)", "ylabel": "loss in its last half (nats per byte)"}
figure = plots.seed_bands(beyond, **axis)
''')
code('''
for name, (_, values) in beyond.items():
    print(f"{name:20} {mean_interval(values[:, FAR_LENGTHS.index(512)])} nats per byte at 512")
claims.among(*FAR_MODELS, of="beyond")
''')
md('''
**What you should see.** @@BEYOND@@
''')
keep(23,24,25,26)
code('''
def accuracies(variant, *path):
    """Recorded accuracy of a variant, or of a swap of it, (seeds, lengths)."""
    lengths = recall.experiment.lengths
    return np.array([recall.values(variant, *path, "accuracy", n) for n in lengths], float).T


lines = {name: (recall.experiment.lengths, accuracies(name)) for name in ("softmax none", "ssmax none")}
axis = {"xscale": "log", "xlabel": "items", "ylabel": "accuracy", "ylim": (0, 1.03)}
figure = plots.seed_bands(lines, {name: (LENGTHS, values) for name, values in live.items()}, **axis)
soft, scaled = (values[:, -1] for _, values in lines.values())
print("at 2,048 items, by seed: softmax", soft.round(3), " SSMax", scaled.round(3))
''')
keep(29,30,31,32)
md('''
Thirty-two times the trained length, and the model with SSMax still finds its item on every seed. That is half of the story. The other half is the whole grid: every scaling with every position code.
''')
code(old[34].source)
code('''
def show_grid(length):
    """Accuracy of every scaling with every position code at one length."""
    plots.number_grid(grid(length), list(SCALINGS), CODES, f"accuracy at {length} items, mean of 5 seeds")
    plt.show()


show_grid(64)
show_grid(256)
show_grid(2048)
''')
keep(36)
code('''
at_end = dict(zip(SCALINGS, grid(2048), strict=True))
none, rope, p_rope = (CODES.index(code) for code in ("none", "rope", "p-rope"))
assert all(row[none] > 0.99 for name, row in at_end.items() if name != "softmax")  # regression tests
assert max(row[rope] for row in at_end.values()) < 0.2 < min(row[p_rope] for row in at_end.values())
judged("recall")  # written down after the run
''')
keep(39)
md('''
## 3. A quarter of a million items, and a task where too sharp is wrong

A constant must be sized for a length. With one layer only the queries need attention, so the cost grows with n and not with n², and we can go to 2¹⁸ = 262,144 items. And plain recall has a weakness as a test: the sharper the better. So there is a second task, **majority**: about √n items carry the queried key, and the answer is the value that most of *them* carry (half of all other items agree on some other value). Now attention has to be sharp enough to single out the right items and even enough to count their votes.

The rivals of log n: twelve constants swapped in, three trained in, and a factor of two levels, 1 inside the trained length and c beyond (at each length it answers as softmax or as that constant).
''')
code('''
far, far_claims = recorded("extreme"), judged("extreme")
CONSTANTS = [name for name in far.values("majority softmax", "swaps")[0] if name != "logn"]


def answered(variant, *path):
    """Accuracy by seed and length, (seeds, lengths)."""
    return np.array([far.values(variant, *path, "accuracy", n) for n in far.experiment.lengths], float).T


def far_lines(family):
    """Mean accuracy by length, of the softmax model under some scales, and of SSMax."""
    found = {"softmax": answered(f"{family} softmax"), "SSMax": answered(f"{family} ssmax")}
    for swap in ("constant 1.78", "constant 2.5", "constant 4.0", "constant 8.0", "logn"):
        found[swap] = answered(f"{family} softmax", "swaps", swap)
    return {name: (far.experiment.lengths, values.mean(0)) for name, values in found.items()}
''')
code('''
axis = {"xscale": "log", "xlabel": "items", "ylabel": "accuracy, mean of 5 seeds", "ylim": (0, 1.03)}
figure = plots.line_panels({family: far_lines(family) for family in ("recall", "majority")}, **axis)
''')
code('''
worst = {name: answered("majority softmax", "swaps", name).mean(0).min() for name in CONSTANTS}
log_n = answered("majority softmax", "swaps", "logn").mean(0).min()
factors = [float(name.split()[1]) for name in CONSTANTS]
lines = {"a constant": (factors, list(worst.values()))}
lines["log n, swapped in"] = factors, [log_n] * len(factors)
axis = {"xscale": "log", "xlabel": "factor", "ylabel": "accuracy at the worst length"}
figure = plots.line_panels({"majority, 64 to 262,144 items": lines}, **axis)
for c in ("1.78", "2.5", "4.0"):
    print(f"constant {c} trained in: worst {answered(f'majority constant {c}').mean(0).min():.2f}")
print(f"log n swapped in: worst {log_n:.2f}; SSMax: {answered('majority ssmax').mean(0).min():.2f}")
''')
code('far_claims')
keep(47,48,49,50)
md('''
**What you should see.** @@FAR@@

One live point of the picture: a one-layer model, trained here, asked about FAR items.
''')
keep(52)
md('''
## 4. Must it be trained in?

A trained softmax model can be given log n afterwards (a *swap*), or swapped and trained a little more, or trained with SSMax from the start. Fifty further steps for each, also for the control that stays softmax, so that "more training" is not mistaken for "log n" (`supertf experiment run swap`).
''')
code('''
swap = recorded("swap")
labels = ("softmax, tuned", "constant 1.78", "constant 1.78, tuned", "logn", "logn, tuned", "ssmax, tuned")
at_2048 = {label: swap.values("softmax none", label, "accuracy", 2048) for label in labels}
at_2048["ssmax from the start"] = recall.values("ssmax none", "accuracy", 2048)
alone = swap.values("softmax none", "softmax", "accuracy", 2048)
rows = {label: paired_difference(values, alone) for label, values in at_2048.items()}
above = f"accuracy at 2,048 items, above softmax left alone ({np.mean(alone):.2f})"
figure = plots.interval_rows(rows, above)
assert rows["logn"].low > 0.1 and rows["constant 1.78"].low > 0.1 and abs(rows["softmax, tuned"].mean) < 0.1
''')
md('''
The swap alone does nearly all of it: the needle was always the key with the largest logit, it only drowned. Fifty more steps as softmax change little, and after a swap there is next to nothing left to gain. Here, too, the constant does what log n does.

## 5. Where is the needle, and who looks at it

The same answers, sorted by how deep in the sequence the needle lies: the left edge of each picture is the beginning of the sequence.
''')
code('''
def depths(variant):
    """Mean accuracy over seeds by length and depth, (lengths, 8)."""
    lengths = recall.experiment.lengths
    return [np.nanmean(np.array(recall.values(variant, "by_depth", n), float), axis=0) for n in lengths]


SHOWN = ("softmax none", "ssmax none", "softmax rope", "ssmax rope")
panels = {name: depths(name) for name in SHOWN}
figure = plots.depth_maps(panels, recall.experiment.lengths)
assert np.array(panels["ssmax none"]).min() > 0.95
assert panels["softmax rope"][2][-1] > panels["softmax rope"][2][0] + 0.3, "near needles are still found"
''')
md('''
With SSMax and no positions the picture is evenly dark. With softmax and no positions it fades evenly, from long sequences upwards. With RoPE the fading has a direction: needles near the queries, at distances seen in training, are still found. The same average accuracy can hide either kind of failure, which is why long-context tests report a grid.

Does the sharpness of attention explain it? Normalised entropy $H / \\log n$ is 1 where attention is uniform:
''')
code('''
def entropies(variant):
    """Normalised entropy by head, mean over seeds: name to (lengths, values)."""
    lengths = recall.experiment.lengths
    values = np.array([recall.values(variant, "entropy", n) for n in lengths]).mean(axis=1)
    _, layers, heads = values.shape
    return {f"layer {i}, head {j}": (lengths, values[:, i, j]) for i in range(layers) for j in range(heads)}


panels = {
    f"{name}: entropy / log n": entropies(name)
    | {"accuracy": (recall.experiment.lengths, accuracies(name).mean(0))}
    for name in ("softmax none", "ssmax none", "ssmax rope")
}
figure = plots.line_panels(panels, xscale="log", xlabel="items", ylim=(-0.03, 1.03))
''')
code('''
at_512 = np.array(recall.values("softmax none", "entropy", 512)).mean(0)  # (layers, heads)
found = accuracies("softmax none")[:, recall.experiment.lengths.index(512)].mean()
print(f"softmax, 512 items: H / log n {at_512.min():.2f} to {at_512.max():.2f} by head, accuracy {found:.3f}")
far_off = np.array(recall.values("ssmax rope", "entropy", 2048)).mean(0)
lost = accuracies("ssmax rope")[:, -1].mean()
print(f"SSMax with RoPE, 2,048: {far_off.min():.2f} to {far_off.max():.2f}, accuracy {lost:.3f}")
assert at_512.min() > 0.6 and found > 0.98, "high entropy, and nearly every item found"
assert far_off.min() < 0.6 and lost < 0.2, "low entropy, and next to nothing found"
''')
md('''
Entropy explains the accuracy of one family only, and not well. Softmax without positions: entropy climbs, and accuracy falls, but later: with 512 items, and entropies of two thirds and more of their ceiling, it still finds nearly all. SSMax **with RoPE: entropy stays low, and the accuracy falls all the same**. A sharp head may be sharply wrong: low entropy is neither necessary for this task nor sufficient.
''')
keep(69,70,71,72)
md('''
## 6. A real model at twice its context

SmolLM2-135M-Instruct was trained on 8,192 tokens with rotary positions. Nothing is trained here; a change is swapped in. First what it costs inside the context, where every change can only hurt, on the first few hundred tokens of a text. **Predict** which of the three changes nothing at all.
''')
code('''
smollm2 = load_model("smollm2-135m")
ids = text("library-docs", 0, TEXT)
short = {
    "as trained": {},
    "logn": {"attention": "logn"},
    "constant 1.08": {"attention": "constant", "attention_constant": 1.08},
    "rope base × 4": {"rope_base": 400_000.0},
}
inside_loss = {
    name: float(loss_by_position(with_changes(smollm2, **c), ids, TEXT).mean()) for name, c in short.items()
}
print({name: round(value, 4) for name, value in inside_loss.items()}, "nats per token")
assert inside_loss["logn"] == inside_loss["as trained"]  # log n / log 8192 is at most 1 here: nothing changes
assert inside_loss["rope base × 4"] > inside_loss["as trained"] < inside_loss["constant 1.08"]
''')
md('''
Now 16,384 tokens, three texts each of documentation and of prose, recorded (`supertf experiment run smollm2_longer`). A constant of 1.08 is log 16,384 / log 8,192, what log n has grown to at the far end. The rotary base × 4 stretches the slow rotations, so that a distance of 16,384 turns them no further than one of 8,192 did before. **Predict**: which of the two, sharper attention or slower rotations, does the model lack?
''')
code('''
longer = recorded("smollm2_longer")
ends = [1024 * (i + 1) for i in range(16)]
panels = {}
for domain in ("library-docs", "prose"):
    names = [name for name in longer.variants if name.endswith(domain)]
    panels[f"{domain}, mean of 3 texts"] = {
        name.removesuffix(f", {domain}"): (ends, np.mean(longer.values(name, "pieces"), axis=0))
        for name in names
    }
axis = {"xlabel": "tokens read", "ylabel": "nats per token"}
figure = plots.line_panels(panels, marks={"trained": 8192}, **axis)
''')
code('judged("smollm2_longer")')
md('''
**What you should see.** @@SMOL@@
''')
keep(79,80,81,82)
md('''
## 7. Sinks

Heads of trained transformers park weight on the first token when they have nothing to look for, an **attention sink**. Does SSMax change that? As a third arm take a model that needs no sink: a *zero key* of logit 0 and value 0 lets each head attend to nothing (softmax-off-by-one).
''')
code('''
rows = {}
for position in ("none", "rope"):
    base = language.values(f"softmax {position}", "sink", "mean")
    for arm in ("ssmax", "zero key"):
        own = language.values(f"{arm} {position}", "sink", "mean")
        rows[f"{arm}, {position}"] = paired_difference(own, base)
        print(f"{arm}, {position}: mean weight on key 0 {mean_interval(own)}, softmax {mean_interval(base)}")
figure = plots.interval_rows(rows, "weight on key 0, minus that of softmax with the same positions")
''')
code('''
uniform = sum(1 / n for n in range(2, 65)) / 63  # what attention that ignores its keys puts on key 0
real = sink_rate(attention_stats(smollm2, torch.tensor([ids[:64]])))
print(f"uniform attention {uniform:.3f}; SmolLM2 {real.mean:.3f}, {real.share:.0%} of its heads above 0.3")
above = [share for name in language.variants for share in language.values(name, "sink", "share")]
assert max(above) == 0 and real.mean > 4 * uniform, "small models have no sinks, SmolLM2 has"
''')
md('''
**A negative result.** There is nothing to change: after a thousand steps models this small have no sinks. The weight on key 0 is about what uniform attention would put there, and no head exceeds 0.3; SmolLM2 on as many tokens shows what a sink is. Models that were trained for longer, at a high learning rate and decay, are in the recorded run of notebook 06; of the head that rests most on the first token at any moment:
''')
code('judged("growth").among(*recorded("growth").variants, of="sink")')
md('''
**What you should see.** @@GROWTH@@

## Recap

@@RECAP@@

**Limits.** Recall and majority are synthetic, the models tiny, and the language models too small to use far text. One layer, one head and one task are what the quarter of a million items show.

**References.** Nakanishi 2025, *Scalable-Softmax Is Superior for Attention* (arXiv 2501.19399). Irie 2025, *Why Are Positional Encodings Nonessential for Deep Autoregressive Transformers?* (arXiv 2501.00659). Anson, Wang, Aitchison 2025, *Scale-invariant Attention* (arXiv 2505.17083): SSMax with rotary positions at 162 million parameters. Wang et al. 2024, *Length Generalization of Causal Transformers without Position Encoding* (arXiv 2404.12224). Barbero et al. 2024, on p-RoPE (arXiv 2410.06205). Gu et al. 2024, on attention sinks (arXiv 2410.10781).
''')
keep(91,92)
nb.cells=out
open(P,'w').write(written(nb))
n=sum(c.cell_type=='code' for c in out)
w=' '.join(c.source for c in out if c.cell_type!='code')
print(n,'code',len(out)-n,'md',len(w.split()),len(re.sub(r'<details>.*?</details>','',w,flags=re.S).split()))
