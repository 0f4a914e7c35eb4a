"""The variants of GPT-2 small at a size that a processor trains in seconds, byte by byte."""

from supertf.model import GPTConfig
from supertf.training.recipes.description import Recipe
from supertf.training.recipes.gpt2_small import VARIANTS
from supertf.training.settings import TrainSettings

RECIPES = (
    Recipe(
        name="lab",
        question="What do the variants of gpt2-small look like in a minute, where there is no GPU?",
        config=GPTConfig(
            vocab_size=257,
            n_ctx=64,
            n_layer=3,
            n_head=4,
            n_embd=64,
            norm="rmsnorm",
            bias=False,
            qk_norm=True,
            position="rope",
        ),
        variants=VARIANTS,
        data="library-docs:train",
        tokens=200 * 32 * 64,
        settings=TrainSettings(batch_size=32, lr=5e-3, validate_every=50, save_every=50),
        tokenizer="bytes",
    ),
)
