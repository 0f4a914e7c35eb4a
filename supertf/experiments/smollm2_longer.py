"""The smollm2_longer experiment: SmolLM2-135M beyond the 8,192 tokens of its training."""

from typing import Any

from supertf.analysis import loss_by_position
from supertf.data import load_tokenizer, read_ids
from supertf.errors import UserError
from supertf.experiments.sweep.description import Experiment
from supertf.model import load_model, with_changes

MODEL = "smollm2-135m"
PIECE = 1024  # positions whose losses are averaged
CHANGES: dict[str, dict[str, Any]] = {
    "as trained": {},
    "logn": {"attention": "logn"},
    "constant 1.08": {"attention": "constant", "attention_constant": 1.08},  # log 16,384 / log 8,192
    "rope base x 4": {"rope_base": 400_000.0},
    "rope base x 4, logn": {"rope_base": 400_000.0, "attention": "logn"},
    "rope base x 4, constant 1.08": {
        "rope_base": 400_000.0,
        "attention": "constant",
        "attention_constant": 1.08,
    },
}

EXPERIMENT = Experiment(
    name="smollm2_longer",
    question="Does anything without training let SmolLM2-135M read twice the 8,192 tokens it was trained on?",
    measure="smollm2_longer:longer",
    settings={"domain": "library-docs", "changes": {}},
    variants={
        f"{name}, {domain}": {"domain": domain, "changes": changes}
        for domain in ("library-docs", "prose")  # the READMEs are too short
        for name, changes in CHANGES.items()
    },
    lengths=(16384,),
    seeds=(0, 1, 2),
)


def longer(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Loss by position of one text that is as long as the longest of `lengths`; `seed` is which text.

    settings: `domain` of the text, and `changes` of the model's config. Result: `pieces`, mean loss in nats
    of every 1,024 positions; `inside` and `beyond`, means over positions inside the trained context and
    beyond it.
    """
    model = load_model(MODEL)
    trained = model.config.n_ctx
    ids = text(settings["domain"], seed, max(lengths))
    losses = loss_by_position(with_changes(model, **settings["changes"]), ids, max(lengths))
    return {
        "pieces": [float(piece.mean()) for piece in losses.split(PIECE)],
        "inside": float(losses[:trained].mean()),
        "beyond": float(losses[trained:].mean()) if len(losses) > trained else None,
    }


def text(domain: str, number: int, length: int) -> list[int]:
    """SmolLM2's tokens of a domain: the text of that number, length + 1.

    Of its role "train", which is the largest: nothing of this is trained here.

    Raises:
        UserError: the domain has no such text.
    """
    end = (number + 1) * length + 1
    ids = read_ids(f"{domain}:train", load_tokenizer(MODEL), end)
    if len(ids) < end:
        raise UserError(f"{domain}:train has {len(ids)} tokens, and text {number} of {length} ends at {end}")
    return ids[number * length :].tolist()
