"""The three sizes of the project that this lab grew from, as the 2 x 2 design that its comparison needs,
and with the position codes of the other recipes."""

from supertf.model import preset
from supertf.training.recipes import gpt2_small
from supertf.training.recipes.description import Recipe
from supertf.training.settings import TrainSettings

RECIPES = tuple(
    Recipe(
        name=f"original-{size}",
        question="Which of two changes, SSMax and no positions, changes the loss?",
        config=preset(size, n_ctx=1024),
        variants={
            f"{attention} {position}": {"attention": attention, "position": position}
            for attention in ("softmax", "ssmax")
            for position in ("sinusoidal", "none")
        }
        | gpt2_small.VARIANTS,
        data="eliplutchok/fineweb-small-sample",
        tokens=100_000_000,
        settings=TrainSettings(batch_size=6, lr=5e-5, validate_every=1000, save_every=1000),
    )
    for size in ("small", "default", "large")
)
