import nbformat, sys, re
from supertf.lab.book.executed import written
P="notebooks/10_train_on_a_gpu.ipynb"
base=nbformat.read("notebooks/01_a_small_gpt.ipynb",4)
out=[]
def md(s): out.append(nbformat.v4.new_markdown_cell(s.strip('\n')))
def code(s,tags=None):
    c=nbformat.v4.new_code_cell(s.strip('\n'))
    if tags: c.metadata['tags']=tags
    out.append(c)
badge=base.cells[0].source.split('\n')[0].replace("01_a_small_gpt","10_train_on_a_gpu")
md(badge+'''

# Train on a GPU

Everything so far fitted two processor cores; the papers' claims live at sizes that do not. Here the same code trains larger models: you plan what fits a card before anything is allocated, train six variants with a live curve, lose the connection on purpose and go on bit for bit, and then ask the trained models what the lab asks all models: how far beyond their context they read. As it stands the notebook runs on a processor in two minutes, on models of 0.2 million parameters that learn the documentation of Python libraries byte by byte (`library-docs`); three parameters make it a part of GPT-2 small's recipe on FineWeb, or all of it.

**You will learn**
- what a training needs: memory by part, operations, hours, before you pay for them,
- to read tokens per second as a share of what the device could do,
- what a checkpoint must hold so that a training that was cut off ends as if it had not been,
- to test two changes at once as the four models that this takes.

**Words** *SSMax*: attention logits times $s \\log n$, notebook 02. *RoPE*: positions as rotations of queries and keys; *p-RoPE* rotates half of the channels; *none* leaves positions out, notebook 03. *micro-batch*: the windows that go through the model at once. *Accumulation*: adding up the gradients of several micro-batches before one step. *FLOP*: one addition or multiplication of numbers. *Utilisation*: FLOPs done over FLOPs that the device's matrix products could have done. *Recipe*: a training with a name, a file of the package.

**Time** about two minutes of computing on two CPU cores; 20 minutes to read, 35 minutes more with the exercises. **Hardware** any; with a GPU set the parameters as said below.

Before: [09, quantization](09_quantization.ipynb). All results: the last page of the book, or `CLAIMS.md`.
''')
out.append(base.cells[1])
code('''
import dataclasses
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from supertf.lab import check, in_range, plots, plots_speed, record, setup, show_solved

device, dtype = setup(seed=0)
''')
md('''
Where there is a GPU (on Colab: Runtime > Change runtime type > T4 GPU), change three of these:

| device | `RECIPE`, `SCALE` | `DATA` | what is trained |
|---|---|---|---|
| a processor | `"lab"`, 1.0 | `"library-docs:train"` | 0.2 million parameters, 0.4 million bytes, seconds each |
| T4 | `"gpt2-small"`, 0.01 | `None` | 9 million, 24 million tokens, minutes each |
| A100, H100 | `"gpt2-small"`, 1.0 | `None` | 124 million, 2.4 billion tokens, hours each |

`FOLDER = "/content/drive/MyDrive/supertf"` keeps the runs where a lost connection does not take them. If the session died, run the notebook again with the same parameters: what is finished is read, what is not goes on from its last checkpoint. With `DATA = None` the text is streamed from the Hugging Face hub once, and its tokens are kept beside the runs. If memory is short, halve `BATCH`. (No GPU was at hand when this was written: its times are plans, and section 1 says how they come about.)
''')
code('''
RECIPE = "lab"  # or gpt2-small, gpt2-small-4096, original-small ...: `supertf plan` lists them
SCALE = 1.0  # about this share of the recipe's weights and tokens
VARIANTS = ["softmax rope", "ssmax rope", "softmax p-rope", "ssmax p-rope", "softmax none", "ssmax none"]
DATA = "library-docs:train"  # None: the recipe's own text
FOLDER = None  # where the runs are kept; None: nowhere
BATCH = None  # windows that go through the model at once; None: as many as the recipe says
''',['parameters'])
code('''
from supertf.training import plan_training, recipe

in_range(1e-6, 1.0, "a share of the recipe", SCALE=SCALE)
chosen = recipe(RECIPE, SCALE)
configs = {name: chosen.of(name) for name in VARIANTS}  # which refuses a name that there is not
''')
code('''
if FOLDER is not None and FOLDER.startswith("/content/drive"):
    from google.colab import drive

    drive.mount("/content/drive")
folder = f"{FOLDER or tempfile.mkdtemp()}/{RECIPE}-{SCALE:g}"
''')
md('''
## 1. What fits, before anything is allocated

A training holds four things at once: the weights, a gradient for each, two running means that AdamW keeps for each (all in float32, so 16 bytes per parameter), and the *activations*: what the forward pass leaves behind for the backward pass. Three of them depend on the model alone; the last grows with every window of a micro-batch.

**Predict:** GPT-2 small has 124 million parameters. In a micro-batch of 16 windows of 1,024 tokens, which part is largest, and does all of it fit into the 15.8 GB of a T4?
''')
code('''
from supertf.training import DEVICES

CARD = DEVICES["t4"]  # Colab's free one
big = recipe("gpt2-small")
by_batch = {
    size: plan_training(
        big.of("ssmax rope"),
        dataclasses.replace(big.for_processes(1), batch_size=size),
        CARD,
    )
    for size in (1, 4, 16)
}
''')
code('''
rows = {
    f"{size} windows": {part: memory / 1e9 for part, memory in plan.memory.items()}
    for size, plan in by_batch.items()
}
limit = CARD.memory - CARD.reserved
figure = plots_speed.memory_bars(rows, {f"free on {CARD.name}": limit / 1e9})
''')
code('''
sixteen = by_batch[16]
print(sixteen.advice())
parts = sixteen.memory
assert abs(parts["weights"] / (4 * sixteen.parameters) - 1) < 0.02, "four bytes for each parameter"
assert abs(parts["optimizer"] / parts["weights"] - 2) < 0.02, "two running means"
assert parts["activations"] > 0.75 * sum(parts.values()), "the activations are most of it"
''')
md('''
**What you should see.** With 16 windows the activations are more than three quarters of it, and they are the part that you can choose: a smaller micro-batch, with more of them accumulated before each step, is the same training in less memory. The plan is not a formula but a rehearsal: one step of the real model is gone through on tensors without numbers, and what would be allocated is added up. (`supertf bench plan` holds plans against measured steps: memory within a percent on a processor.)
''')
md('''
### Exercise: The same step on a smaller card

*8 minutes, ●●○.* A step is to take `windows` windows, of which at most `fits` go through the card at once. Write `micro_batches(windows, fits)`: the smallest number of *equal* micro-batches. (Equal, because the mean of their means is the mean over all windows only then.)
''')
code('''
def micro_batches(windows, fits):
    return None
''',['exercise'])
code('''check("the same step on a smaller card", micro_batches)''')
md('''
<details><summary>Hint</summary>

Try 1, 2, 3, ... until the number divides the windows and each part fits.
</details>

<details><summary>Solution</summary>

```python
def micro_batches(windows, fits):
    number = 1
    while windows % number or windows // number > fits:
        number += 1
    return number
```
</details>
''')
md('''
### How long, and what it costs

A weight takes part in one multiplication and one addition per token in the forward pass, and in twice as many in the backward pass: six FLOPs per weight and token, and attention comes on top. Divided by what a device can do in a second, that is time, if the device did nothing else. It never reaches that rate. We plan with 30 %, a number that large models reach and small ones do not.
''')
code('''
print(f"{'':18} {'':5} {'GB needed':>9} {'of':>6} {'hours':>7}")
for card in ("t4", "l4", "a100", "h100", "h200"):
    plan = dataclasses.replace(sixteen, device=DEVICES[card], precision=DEVICES[card].precision)
    memory = f"{plan.needed / 1e9:9.1f} {plan.device.memory / 1e9:6.1f}"
    print(f"{plan.device.name:18} {plan.precision:5} {memory} {plan.hours:7.1f}")
tokens = plan.steps * plan.tokens_per_step
print(f"{plan.parameters:,} parameters, {tokens / 1e9:.1f} billion tokens, {plan.flops / 1e6:.0f} MFLOP each")
assert plan.flops > 6 * plan.parameters, "attention comes on top of six per weight"
''')
md('''
### Exercise: Hours on a card

*5 minutes, ●○○.* Write `hours(parameters, tokens, rate, share)`: the hours that a training takes on a device of `rate` FLOPs a second, of which it reaches the given share. Leave attention out.
''')
code('''
def hours(parameters, tokens, rate, share):
    return None
''',['exercise'])
code('''check("hours on a card", hours)''')
md('''
<details><summary>Hint</summary>

Six FLOPs per parameter and token; 3,600 seconds in an hour.
</details>

<details><summary>Solution</summary>

```python
def hours(parameters, tokens, rate, share):
    seconds = 6 * parameters * tokens / (share * rate)
    return seconds / 3600
```

Try `hours(124e6, 2.4e9, 65e12, 0.3)`, a T4, beside the table.
</details>
''')
md('''
The recipe of *this* run, on *this* machine, whose matrix products are timed on the spot. (Other programs that run meanwhile slow both down.)
''')
code('''
from supertf.bench import this_machine

here = this_machine(str(device))
wanted = chosen.for_processes(1)
if BATCH is not None:  # as many windows in a step as before
    windows = wanted.batch_size * wanted.grad_accumulation
    wanted = dataclasses.replace(wanted, batch_size=BATCH, grad_accumulation=max(1, windows // BATCH))
planned = plan_training(configs[VARIANTS[0]], wanted, here)
rate = here.flops[planned.precision]
print(f"{chosen.name}: {planned.parameters:,} parameters, {planned.steps} steps; {planned.advice()}")
print(f"matrix products here: {rate / 1e12:.3f} TFLOP/s in {planned.precision}")
for share in (0.3, 0.1):
    minutes = 60 * planned.hours * planned.utilisation / share * len(VARIANTS)
    print(f"all {len(VARIANTS)} variants, at {share:.0%} of that: {minutes:.1f} minutes")
assert planned.fits, planned.advice()
''')
md('''
## 2. Train, with the curve in view

The text becomes two files of tokens, of documents to train on and of others to validate. Each variant reads the same windows in the same order, writes a checkpoint every `settings.save_every` steps, and goes on from the last one if it finds any.

**Predict:** which of the six ends lowest after a training this short? Does SSMax or the position code matter more?
''')
code('''
from supertf.training import token_files, train

train_file, validation_file = token_files(chosen, f"{folder}/data", DATA)
settings = dataclasses.replace(wanted, sample_every=wanted.steps, device=str(device), progress=False)
print(f"{len(train_file):,} tokens to train on, {len(validation_file):,} to validate")
''')
code('''
from supertf.model import checkpoint


def train_variant(name, run, how, on_metrics=None):
    """A training in its folder, from the beginning or from its last checkpoint."""
    config = dataclasses.replace(configs[name], vocab_size=train_file.vocab_size)
    again = checkpoint.is_run(run)
    return train(config, train_file, validation_file, how, run, resume=again, on_metrics=on_metrics)
''')
code('''
runs = {}
for name in VARIANTS:
    print(name)
    live = plots.LiveLoss(every=max(25, settings.steps // 20))
    runs[name] = train_variant(name, f"{folder}/{name.replace(' ', '_')}", settings, live)
''')
code('''
def validation(run):
    found = [(m["step"], m["validation_loss"]) for m in run.metrics if "validation_loss" in m]
    return tuple(zip(*found, strict=True))


figure = plots.loss_curves({name: validation(run) for name, run in runs.items()})
figure.axes[0].set(ylabel="validation loss (nats per token)")
plt.show()
''')
code('''
ends = {name: run.metrics[-1]["validation_loss"] for name, run in runs.items()}
for name, run in runs.items():
    speed = sorted(m["tokens_per_second"] for m in run.metrics)[len(run.metrics) // 2]
    share = speed * planned.flops / rate
    print(f"{name:15} {ends[name]:.3f} nats per token; {speed:9,.0f} tokens/s, {share:.0%} of the rate")
print(repr(runs[VARIANTS[-1]].metrics[-1]["sample"]))
for attention in ("softmax", "ssmax"):
    if RECIPE == "lab" and {f"{attention} none", f"{attention} rope"} <= runs.keys():
        assert ends[f"{attention} none"] > ends[f"{attention} rope"], "positions lower the loss"
''')
md('''
**What you should see.** Two families: the models that are given positions leave the others behind within a hundred steps, with either attention. What separates softmax from SSMax, or RoPE from p-RoPE, is small, and one seed cannot tell it from chance. And read the last column before you blame a device: a step does more than products (norms, softmax, the optimizer, Python between them), and the smaller the model, the more of its time goes there.
''')
md('''
## 3. The connection is lost

A session on a borrowed machine ends when it pleases. A training survives that if its checkpoint holds *all* that the next step depends on: weights, both running means of the optimizer, the step (which sets the learning rate), the generators of random numbers, the place in the data, and in 16 bits the scale of the loss. **Predict:** we cut a short training off and let it go on. How far are the final weights from those of the training that was never cut?
''')
code('''
class LostError(Exception):
    """What we play."""


def cut_off(metrics):
    if metrics["step"] == 47:
        raise LostError("at step 47")


short = dataclasses.replace(settings, steps=60, save_every=20, sample_every=0, grad_accumulation=1)
with tempfile.TemporaryDirectory() as other:
    uncut = train_variant(VARIANTS[0], f"{other}/uncut", short)
    try:
        train_variant(VARIANTS[0], f"{other}/cut", short, cut_off)
    except LostError as error:
        print(f"lost {error}; kept: {sorted(path.name for path in Path(other).glob('cut/*'))}")
    assert checkpoint.is_run(f"{other}/cut")
    resumed = train_variant(VARIANTS[0], f"{other}/cut", short)
''')
code('''
pairs = zip(uncut.model.parameters(), resumed.model.parameters(), strict=True)
apart = max((before - after).abs().max().item() for before, after in pairs)
print(f"largest difference of any weight after {resumed.step} steps: {apart:g}")
assert apart == 0 or device.type != "cpu", "on a processor, bit for bit"
assert [m["step"] for m in resumed.metrics] == list(range(1, short.steps + 1)), "every step once"
''')
md('''
**What you should see.** On a processor zero. The steps after the last checkpoint were lost and done again, on the same windows, with the same result; in the list of metrics each step stands once. On a GPU sums may be added up in another order, and the two end close to each other but not in the same bits. (A test of this repository does the same with a killed kernel.)

More than one card? `torchrun --nproc_per_node 4 -m supertf train --recipe gpt2-small` shares the windows out, and a checkpoint of one process goes on in four: micro-batches are dealt in turn, so each window is still read once.
''')
md('''
### Exercise: Where to go on

*6 minutes, ●●○.* A checkpoint says how many steps were done, with which micro-batch, accumulation and number of processes. Write `place(step, batch, accumulation, processes, windows)`: in which epoch (from 0), and with which window of it, a data set of so many windows goes on.
''')
code('''
def place(step, batch, accumulation, processes, windows):
    return None
''',['exercise'])
code('''check("where to go on", place)''')
md('''
<details><summary>Hint</summary>

How many windows have all processes read together? `divmod` does the rest.
</details>

<details><summary>Solution</summary>

```python
def place(step, batch, accumulation, processes, windows):
    read = step * batch * accumulation * processes
    return read // windows, read % windows
```
</details>
''')
md('''
## 4. Beyond the trained length

Each model has seen windows of one length. Now all read eight times as much at once, text that none was trained on. **Predict** the curves of loss against position: where do they leave each other, and which variant goes on?
''')
code('''
from supertf.analysis import loss_by_position

context, bos_id = chosen.config.n_ctx, train_file.tokenizer.eot_token
LONG = 8 * context
held = torch.from_numpy(validation_file.tokens[: 32 * LONG + 1].astype("int64"))
by_position = {
    name: loss_by_position(run.model.eval(), held, LONG, bos_id=bos_id, batch_size=2)
    for name, run in runs.items()
}
''')
code('''
ends_at = [context * (i + 1) for i in range(8)]
pieces = {name: (ends_at, [p.mean().item() for p in by.split(context)]) for name, by in by_position.items()}
figure = plots.line_panels(
    {"this run, one seed": pieces},
    marks={"trained": context},
    xlabel="position in the window",
    ylabel="nats per token",
    height=2.8,
)
''')
code('''
for name, (_, losses) in pieces.items():
    print(f"{name:15} inside {losses[0]:.2f}, eighth context {losses[-1]:.2f}")
if RECIPE == "lab":
    assert all(losses[-1] > losses[0] for _, losses in pieces.values()), "none reads on as it was trained"
''')
md('''
Models this young differ by little, and one seed proves nothing. The recorded ones were trained five times as long, on five seeds each (`supertf experiment run language --record`); their loss in the last half of windows of up to eight contexts:
''')
code('''
from supertf.analysis import paired_difference
from supertf.experiments import recorded

language, LENGTHS = recorded("language"), (64, 128, 256, 512)
ARMS = ("softmax none", "ssmax none", "softmax rope", "ssmax rope")
beyond = {
    name: torch.tensor([language.values(name, "beyond", n, "last_half") for n in LENGTHS]).T.numpy()
    for name in ARMS
}
axis = {"xscale": "log", "xlabel": "window (tokens)", "ylabel": "loss in its last half (nats per token)"}
figure = plots.seed_bands({name: (LENGTHS, values) for name, values in beyond.items()}, **axis)
''')
code('''
at_end = {}
for position in ("none", "rope"):
    pair = [beyond[f"{attention} {position}"][:, -1] for attention in ("ssmax", "softmax")]
    at_end[position] = paired_difference(*pair)
    print(f"{position}: SSMax minus softmax at {LENGTHS[-1]} tokens {at_end[position]}")
assert at_end["none"].low < 0 < at_end["none"].high and at_end["rope"].low > 0
assert all((values[:, -1] > values[:, 0] + 0.3).all() for values in beyond.values()), "all break down"
''')
md('''
**What you should see.** Eight contexts are too many for all four. SSMax does not mend it: without positions nothing is to be told from five seeds, and with RoPE it costs .06 nats [.02, .10]. At 162 million parameters it helped a lot: trained at 4,096 tokens and read at 16,384, RoPE had 3.936 and RoPE with SSMax 3.273, no positions 6.430 (Anson et al. 2025). That difference between small and large is open, and what the recipes are for.
''')
md('''
### The needle

A loss says little about far text, because little of it helps. The **needle** test does: one item is hidden at some depth of a long list, and asked for. Rows are lengths, columns depths, darkness is accuracy; five seeds each, trained on 64 items (`supertf experiment run recall --record`).
''')
code('''
recall = recorded("recall")
SHOWN = ("softmax none", "ssmax none", "softmax p-rope", "ssmax p-rope")


def depths(name):
    """Accuracy by length and depth, mean over seeds."""
    found = [recall.values(name, "by_depth", n) for n in recall.experiment.lengths]
    return torch.tensor(found, dtype=torch.float64).nanmean(dim=1).tolist()


grids = {name: depths(name) for name in SHOWN}
figure = plots.depth_maps(grids, recall.experiment.lengths)
''')
code('''
worst = {name: min(min(row) for row in grid) for name, grid in grids.items()}
print({name: round(value, 2) for name, value in worst.items()}, "where it is worst")
assert worst["ssmax none"] > 0.95 > worst["softmax none"]
''')
md('''
**What you should see.** Without positions a list of 2,048 items, 32 times the trained length, is answered at every depth with SSMax, and fades at all depths with softmax. With partly rotated positions it matters where the needle lies, and SSMax mends only a part (why, is in notebook 04).
''')
md('''
## 5. Two changes, four models

The project that this lab grew from drew one figure: the training loss of SSMax without positions below that of softmax with positions. Two things had changed, there was one run of each, and the figure credited the pair. The same figure as it should have been has all four models, the same seeds for each, and intervals. (The positions are sinusoidal here, as they were there.) **Predict** all three rows: what SSMax does, what leaving out the positions does, and whether one depends on the other.
''')
code('''
from supertf.analysis import two_by_two

DESIGN = {(a, p): f"{a} {p}" for a in ("softmax", "ssmax") for p in ("sinusoidal", "none")}
steps = language.values("softmax none", "steps")[0]
curves = {name: (steps, language.values(name, "training")) for name in DESIGN.values()}
figure = plots.seed_bands(curves, xlabel="step", ylabel="training loss (nats per token)", ylim=(1.5, 3))
''')
code('''
effects = two_by_two({key: language.values(name, "validation_loss") for key, name in DESIGN.items()})
rows = {
    "softmax → SSMax": effects.first,
    "sinusoidal → none": effects.second,
    "interaction": effects.interaction,
}
figure = plots.interval_rows(rows, "change of validation loss (nats per token, 95 %, 5 seeds)")
print({name: str(effect) for name, effect in rows.items()})
assert effects.second.low > 0.1 and max(abs(effects.first.low), abs(effects.first.high)) < 0.05
''')
md('''
### Exercise: Three effects of two changes

*15 minutes, ●●●.* Write `effects_of(plain, first, second, both)` from four lists of losses, one per seed: models without any change, with the first, with the second, with both. Return three means: what the first change does, averaged over models with and without the second; what the second does, likewise; and the interaction, by how much more the first does where the second is made.
''')
code('''
def effects_of(plain, first, second, both):
    return None
''',['exercise'])
code('''check("three effects of two changes", effects_of)''')
md('''
<details><summary>Hint</summary>

What the first change does to models without the second, and to models with it: two numbers, of which you want the mean and the difference.
</details>

<details><summary>Solution</summary>

```python
def effects_of(plain, first, second, both):
    a, b, c, d = (sum(losses) / len(losses) for losses in (plain, first, second, both))
    of_first = (b - a), (d - c)
    of_second = (c - a), (d - b)
    return sum(of_first) / 2, sum(of_second) / 2, of_first[1] - of_first[0]
```

With intervals over seeds, `two_by_two` in `supertf.analysis` does the same.
</details>
''')
md('''
**What you should see.** Leaving out the positions costs a quarter of a nat [.23, .26]; SSMax changes next to nothing; neither depends on the other by more than .03. So at this size the pair loses, and it would be wrong to hold that against SSMax. Whether this is so at 124 million parameters on 2.4 billion tokens is what the recipe `gpt2-small` is for. `ssmax none` is among its variants: that row is missing in the published table (Anson et al. 2025 report none 3.397, RoPE 3.261, RoPE with SSMax 3.260 at 162 million).
''')
md('''
## 6. Recap

- A training needs 16 bytes per parameter and activations that grow with the micro-batch; hours follow from six FLOPs per weight and token, and from the share of the device that a step reaches.
- That share is small for small models: read it beside tokens per second.
- A checkpoint that holds everything the next step depends on makes an interruption invisible: on a processor bit for bit.
- Loss by position and a grid of needles say more about length than one number; two changes take four models.

From here: `supertf plan --device t4` lists all recipes, `supertf train --recipe NAME` runs one, `supertf bench gpu` measures what a card does.

## References

- Kaplan et al. *Scaling Laws for Neural Language Models.* 2020. arXiv 2001.08361. (Six FLOPs per weight and token.)
- Chowdhery et al. *PaLM: Scaling Language Modeling with Pathways.* 2022. arXiv 2204.02311. (Model FLOPs utilisation.)
- Penedo et al. *The FineWeb Datasets.* 2024. arXiv 2406.17557.
- Anson, Wang, Aitchison. *Scale-invariant attention.* 2025. arXiv 2505.17083.
- Nakanishi. *Scalable-Softmax Is Superior for Attention.* 2025. arXiv 2501.19399.
''')
code('show_solved()')
code('''
record(
    "10_train_on_a_gpu",
    parameters=planned.parameters,
    steps=settings.steps,
    lowest_loss=min(ends.values()),
    resumed_apart=apart,
    effect_of_no_positions=effects.second.mean,
)
''')
nb=nbformat.v4.new_notebook(cells=out,metadata=base.metadata)
open(P,'w').write(written(nb))
n=sum(c.cell_type=='code' for c in out)
w=' '.join(c.source for c in out if c.cell_type!='code')
print(n,'code',len(out)-n,'md',len(w.split()),len(re.sub(r'<details>.*?</details>','',w,flags=re.S).split()))
