"""The names of all ways of pruning, and which need a text: for options and messages, without PyTorch.

static      single weights become zero, the same for all tokens: `pruning_plan`
structured  whole channels or heads become zero, so that they can be left out: `structured`
dynamic     inputs are dropped, others for every token: `dynamic_pruning`
"""

FAMILIES = {
    "static": ("random", "magnitude", "wanda", "sparsegpt"),
    "structured": ("channels", "heads"),
    "dynamic": ("inputs", "gate", "top"),
}
FAMILY = {method: family for family, methods in FAMILIES.items() for method in methods}


def needs_text(method: str, score: str | None = None) -> bool:
    """Whether the method reads a text before it can plan. score: of channels and heads."""
    if FAMILY[method] == "structured":
        return score in (None, "activation")
    return method in ("wanda", "sparsegpt", "inputs", "gate")
