"""The smollm2_longer experiment: SmolLM2-135M beyond the 8,192 tokens of its training."""

from typing import Any

from supertf.analysis import loss_by_position
from supertf.data import iter_documents, load_tokenizer
from supertf.experiments.sweep.description import Experiment
from supertf.model import Tokenizer, load_model, with_changes

MODEL = "smollm2-135m"
PIECE = 1024  # positions whose losses are averaged
APART = 16_384  # tokens from one text's beginning to the next one's: other pages of the documentation

EXPERIMENT = Experiment(
    name="smollm2_longer",
    question="Does anything without training let SmolLM2-135M read twice the 8,192 tokens it was trained on?",
    measure="smollm2_longer:longer",
    settings={"changes": {}},
    variants={
        "as trained": {},
        "logn": {"changes": {"attention": "logn"}},
        "constant 1.08": {"changes": {"attention": "constant", "attention_constant": 1.08}},
        "rope base x 4": {"changes": {"rope_base": 400_000.0}},
        "rope base x 4, logn": {"changes": {"rope_base": 400_000.0, "attention": "logn"}},
    },
    lengths=(16384,),
    seeds=(0, 1, 2),
)


def longer(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Loss by position of one text that is as long as the longest of `lengths`; `seed` is which text.

    settings: `changes` of the model's config. Result: `pieces`, mean loss in nats of every 1,024 positions;
    `inside` and `beyond`, means over the positions inside the trained context and beyond it.
    """
    model = load_model(MODEL)
    trained = model.config.n_ctx
    losses = loss_by_position(
        with_changes(model, **settings["changes"]), text(seed, max(lengths)), max(lengths)
    )
    return {
        "pieces": [float(piece.mean()) for piece in losses.split(PIECE)],
        "inside": float(losses[:trained].mean()),
        "beyond": float(losses[trained:].mean()) if len(losses) > trained else None,
    }


def text(number: int, length: int, tokenizer: Tokenizer | None = None) -> list[int]:
    """Tokens of Python's and the scientific packages' documentation: the text of that number, length + 1.

    tokenizer: None is SmolLM2's.
    """
    encode = (tokenizer or load_tokenizer(MODEL)).encode_ordinary
    ids: list[int] = []
    for document in iter_documents("python-docs", progress=False):
        ids += encode(document)
        if len(ids) > (number + 1) * length:
            break
    return ids[number * length : (number + 1) * length + 1]
