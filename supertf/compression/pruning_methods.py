"""Every way of pruning by its name: what it needs to know, its plan, and a model with the plan applied.

The names are in `pruning_names`.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

from torch import Tensor, nn

from supertf.compression.calibration import Calibration, calibrate
from supertf.compression.dynamic_pruning import DynamicPruning, Skipped, dynamically_pruned, plan_dynamic
from supertf.compression.input_quantiles import InputSizes, input_sizes
from supertf.compression.pruning import Pruning, pruned
from supertf.compression.pruning_names import FAMILY, needs_text
from supertf.compression.pruning_plan import plan
from supertf.compression.structured import KINDS, check_class, plan_structured
from supertf.errors import UserError
from supertf.model import Coordinate

Prepared = Calibration | InputSizes | None


def prepare(
    model: nn.Module,
    method: str,
    ids: Sequence[int] | Tensor,
    length: int = 512,
    kinds: Iterable[str] | None = None,
    score: str | None = None,
) -> Prepared:
    """What a method must know of the model's activations on a text (N,); None where it needs nothing.

    Raises `UserError` on an unknown method, and as `calibrate` and `input_sizes` do.
    """
    check_method(method)
    if FAMILY[method] == "structured":
        check_class(model)
    if not needs_text(method, score):
        return None
    if FAMILY[method] == "dynamic":
        return input_sizes(model, ids, length, "gate" if method == "gate" else "inputs", kinds)
    kinds = KINDS[method][1:] if method in KINDS else kinds
    return calibrate(model, ids, length, method == "sparsegpt", kinds)


def make_plan(
    model: nn.Module,
    method: str,
    sparsity: float | None,
    prepared: Prepared = None,
    protect: Iterable[Coordinate] = (),
    watch: Iterable[Coordinate] = (),
    scope: str | None = None,
    pattern: str | None = None,
    score: str | None = None,
    seed: int = 0,
    kinds: Iterable[str] | None = None,
    progress: bool = True,
) -> Pruning | DynamicPruning:
    """The plan of any method: `plan`, `plan_structured` or `plan_dynamic`.

    prepared: from `prepare`, of the same model. watch: for the fates of a static or structured plan; a
    dynamic one is watched at work. Options that a method does not have are not to be given.
    """
    check_method(method)
    if FAMILY[method] == "static":
        return plan(model, method, sparsity, prepared, protect, watch, scope, pattern, seed, kinds, progress)
    if FAMILY[method] == "structured":
        score = score or "activation"
        return plan_structured(
            model, method, sparsity, prepared, protect, watch, score, seed=seed, progress=progress
        )
    return plan_dynamic(model, method, sparsity, prepared, protect, kinds)


def applied(
    model: nn.Module, plan: Pruning | DynamicPruning, watch: Iterable[Coordinate] = ()
) -> AbstractContextManager[Skipped | None]:
    """Run the model with a plan applied while the context lasts; a dynamic one counts what it skips."""
    return dynamically_pruned(model, plan, watch) if isinstance(plan, DynamicPruning) else pruned(model, plan)


def check_method(method: str) -> None:
    """`UserError` on an unknown method."""
    if method not in FAMILY:
        raise UserError(f"unknown pruning method {method!r}; choose from {', '.join(FAMILY)}")
