"""The variants of GPT-2 small at a size that a processor trains in seconds, byte by byte."""

from supertf.model import language_config
from supertf.training.recipes.description import Recipe
from supertf.training.recipes.gpt2_small import VARIANTS
from supertf.training.settings import TrainSettings

RECIPES = (
    Recipe(
        name="lab",
        question="What do the variants of gpt2-small look like in a minute, where there is no GPU?",
        config=language_config(257, 64, position="rope", qk_norm=True, init_std=0.02),
        variants=VARIANTS,
        data="library-docs:train",
        tokens=200 * 32 * 64,
        settings=TrainSettings(batch_size=32, lr=5e-3, validate_every=50, save_every=50),
        tokenizer="bytes",
    ),
)
