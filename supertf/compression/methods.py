"""Every way of pruning by its name: a new one is a function in `scores`, and a line here.

Nothing heavy is imported: the command line takes its choices from here.

static      single weights become zero, the same for all tokens: `pruning.static`
structured  whole channels or heads become zero, so that they can be left out: `pruning.structured`
dynamic     inputs are dropped, others for every token: `pruning.dynamic`
"""

from dataclasses import dataclass
from typing import Any

from supertf.errors import UserError


@dataclass(frozen=True)
class Method:
    """One way of pruning.

    Attributes:
        family: "static", "structured" or "dynamic".
        needs: what is to be known of a text's activations: "squares" or "products" of every matrix's inputs
            (`Calibration`), quantiles of the "inputs" or of the "gate" (`InputSizes`); None is nothing.
        scopes: of static ones, the groups in which weights can be compared, its own first.
    """

    family: str
    needs: str | None = None
    scopes: tuple[str, ...] = ()


METHODS = {
    "random": Method("static", None, ("matrix", "row", "global")),
    "magnitude": Method("static", None, ("matrix", "row", "global")),
    "wanda": Method("static", "squares", ("row", "matrix", "global")),
    "sparsegpt": Method("static", "products", ("columns",)),  # which also changes what it keeps
    "channels": Method("structured", "squares"),
    "heads": Method("structured", "squares"),
    "inputs": Method("dynamic", "inputs"),
    "gate": Method("dynamic", "gate"),
    "top": Method("dynamic"),
}
FAMILY = {name: method.family for name, method in METHODS.items()}


def of_family(family: str) -> tuple[str, ...]:
    """The names of a family's methods.

    Args:
        family: "static", "structured" or "dynamic".
    """
    return tuple(name for name, own in FAMILY.items() if own == family)


OPTIONS = {  # those that not all methods have
    "pattern": of_family("static"),
    "scope": of_family("static"),
    "score": of_family("structured"),
    "matrices": (*of_family("static"), "inputs", "top"),
}


def check_method(method: str, **options: Any) -> None:
    """`UserError` on an unknown method, and on one of OPTIONS that it does not have but was given."""
    if method not in METHODS:
        raise UserError(f"unknown pruning method {method!r}; choose from {', '.join(METHODS)}")
    for name, value in options.items():
        if value is not None and method not in OPTIONS[name]:
            raise UserError(f"{name} is for {', '.join(OPTIONS[name])}, not for {method}: leave it out")


def needs_text(method: str, score: str | None = None) -> bool:
    """Whether the method reads a text before it can plan.

    Args:
        method: a name in `METHODS`.
        score: of channels and heads: only "activation", which None is, reads one.
    """
    if FAMILY[method] == "structured":
        return score in (None, "activation")
    return METHODS[method].needs is not None
