"""A small model with a planted super weight, for the tests of finding and removing them."""

import dataclasses
from pathlib import Path

import torch
from hypothesis import strategies as st

from supertf.compression.pruning.input_quantiles import input_sizes
from supertf.compression.pruning.recovery import recover
from supertf.data.tokenizer import load_tokenizer
from supertf.model.config import GPTConfig
from supertf.model.context_changes import INPUTS, ROUNDING, WEIGHTS, ForAWhile, changes
from supertf.model.gpt import GPT
from supertf.training import checkpoint

CONFIG = GPTConfig(
    vocab_size=50, n_ctx=24, n_layer=3, n_head=2, n_embd=16, n_inner=40, mlp="swiglu", position="none"
)
LENGTH = 12  # of a window
IDS = torch.randint(0, 50, (20 * LENGTH,), generator=torch.Generator().manual_seed(1))
PLANTED = (1, 7, 21)  # the weight that `planted_model` has, unless it says otherwise
COORDINATES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15), st.integers(0, 39)), max_size=5)
PROMPT = [3, 1, 4, 1, 5]
TEXT = torch.arange(4000) * 7 % 48 + torch.randint(0, 2, (4000,), generator=torch.Generator().manual_seed(1))


def planted_model(layer=1, out=7, into=21, config=CONFIG):
    """A random model with one channel that fires strongly and one large weight that reads it."""
    torch.manual_seed(0)
    model = GPT(config).eval()
    mlp = model.h[layer].mlp
    with torch.no_grad():
        for rows in (into, config.inner + into):  # gate and up rows of the channel
            mlp.c_fc.weight[rows] *= 500
        mlp.c_proj.weight[out, into] = 3.0
    return model


def held(model):
    """What contexts do to modules of the model now: kinds of changes, and classes."""
    kinds = (WEIGHTS, INPUTS, ROUNDING)
    found = [kind for module in model.modules() for kind in kinds if changes(module, kind)]
    return found + [type(module) for module in model.modules() if isinstance(module, ForAWhile)]


def learned_model():
    """A small model that knows the beginning of TEXT."""
    torch.manual_seed(0)
    fresh = GPT(dataclasses.replace(CONFIG, init_std=0.125))
    return recover(fresh, TEXT[:1600], 150, length=8, batch_size=4, lr=1e-2, progress=False).model


def sizes_by_method(model, ids, length):
    """What each method of dynamic pruning is given."""
    inputs, gate = (input_sizes(model, ids, length, of=of) for of in ("inputs", "gate"))
    return {"inputs": inputs, "gate": gate, "top": None}


@torch.no_grad()
def step_by_step(model, tokens):
    """Logits of tokens that are read one at a time with a cache, (T, V)."""
    cache = model.new_cache()
    return torch.cat([model(torch.tensor([[token]]), cache=cache).logits[0] for token in tokens])


def byte_model(layer=1, out=7, into=21):
    """A model that reads bytes, with a planted weight that decides what it says."""
    model = planted_model(layer, out, into, dataclasses.replace(CONFIG, vocab_size=257))
    with torch.no_grad():
        model.ln_f.weight *= 30
    return model


def saved(model: GPT, folder: Path) -> str:
    """The folder, with a checkpoint in it of a model that reads bytes, as `load` takes it."""
    optimizer = torch.optim.AdamW(model.parameters())
    moments = checkpoint.optimizer_tensors(model, optimizer)
    checkpoint.save(folder, model, moments, {}, {"step": 0}, load_tokenizer("bytes"))
    return str(folder)


def zeroed(damage):
    """A loss of 1 nat and the damage of every weight that is zero; damage: nats by coordinate."""

    def loss(model):
        weights = [block.mlp.c_proj.weight for block in model.h]
        return 1.0 + sum(nats for (layer, *place), nats in damage.items() if not weights[layer][tuple(place)])

    return loss
