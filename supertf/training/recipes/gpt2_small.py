"""GPT-2 small on 2.4 billion tokens of FineWeb, as many as in Anson et al. 2025 (arXiv 2505.17083, Table 1).

They trained 162 million parameters for 4,578 steps of half a million tokens and have no row of SSMax without
positions. The optimizer is another one here: AdamW and not Muon, GELU and not squared ReLU.
"""

from typing import Any

from supertf.model import GPTConfig
from supertf.training.recipes.description import Recipe
from supertf.training.settings import TrainSettings

POSITIONS: dict[str, dict[str, Any]] = {
    "rope": {"position": "rope"},
    "p-rope": {"position": "rope", "rope_fraction": 0.5},
    "none": {"position": "none"},
}
VARIANTS = {
    f"{attention} {label}": {"attention": attention, **position}
    for attention in ("softmax", "ssmax")
    for label, position in POSITIONS.items()
}
TOKENS = 4578 * 2**19

RECIPES = tuple(
    Recipe(
        name=name,
        question="What does SSMax gain with each position code, inside the trained context and beyond?",
        config=GPTConfig(n_ctx=context, position="rope", norm="rmsnorm", bias=False, qk_norm=True),
        variants=VARIANTS,
        data="HuggingFaceFW/fineweb:sample-10BT",
        tokens=TOKENS,
        settings=TrainSettings(
            batch_size=2**14 // context,
            grad_accumulation=32,
            lr=1e-3,
            warmup=250,
            validate_every=250,
            save_every=250,
        ),
    )
    for name, context in (("gpt2-small", 1024), ("gpt2-small-4096", 4096))
)
