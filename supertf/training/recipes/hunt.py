"""A hunt for super weights while a model learns: GPT-2 small's size with SwiGLU, looked at along the way."""

from supertf.model import GPTConfig
from supertf.training.recipes.description import Recipe
from supertf.training.settings import TrainSettings

RECIPES = (
    Recipe(
        name="super-weight-hunt",
        question="When does a super weight appear, and does it also under SSMax, or with a zero key?",
        config=GPTConfig(n_inner=2048, position="rope", norm="rmsnorm", mlp="swiglu", bias=False),
        variants={
            "softmax": {},
            "ssmax": {"attention": "ssmax"},
            "zero key": {"zero_key": True},
        },
        data="HuggingFaceFW/fineweb:sample-10BT",
        tokens=4578 * 2**19,
        settings=TrainSettings(
            batch_size=16, grad_accumulation=32, lr=1e-3, warmup=250, validate_every=250, save_every=250
        ),
        looks=24,
    ),
)
