"""Which share of the inputs to drop of which kind of matrix: the most work spared for what one will lose.

Each kind is pruned alone, at several shares, and the loss on a short text says what that costs. As if these
costs added up, the best combination within a budget is looked up. (The divergence from the dense model's
predictions would be less noisy, but the loss is what one is judged by.) TEAL (Liu et al. 2024, arXiv
2408.14690, algorithm 1) shares out a budget inside each layer instead, by the errors of its outputs. The
text should be other text than what the result is judged by.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor
from tqdm.auto import tqdm

from supertf.analysis import perplexity
from supertf.compression.pruning.dynamic import dynamically_pruned, plan_dynamic
from supertf.compression.pruning.input_quantiles import InputSizes
from supertf.errors import UserError
from supertf.model import LanguageModel, kind, matrices

Costs = dict[str, dict[float, float]]  # by kind and share, in nats per token


def kind_costs(
    model: LanguageModel,
    sizes: InputSizes,
    ids: Sequence[int] | Tensor,
    shares: Iterable[float],
    *,
    length: int = 512,
    progress: bool = True,
) -> Costs:
    """How much the loss on a text rises where one kind of matrix alone is pruned by thresholds ("inputs").

    Args:
        model: is not changed.
        sizes: its `input_sizes`; every kind that was measured is tried.
        ids: the text, (N,) int.
        shares: of the inputs that go, each tried with each kind.
        length: tokens of a window.

    Returns:
        By kind and share, in nats per token; 0 for the share 0.

    Raises:
        UserError: as `plan_dynamic` and `perplexity` do.
    """
    shares = list(shares)
    kinds = dict.fromkeys(map(kind, sizes.widths))
    trials = list(itertools.product(kinds, shares))
    dense = perplexity(model, ids, length).loss
    costs: Costs = {one: {0.0: 0.0} for one in kinds}
    for one, share in tqdm(trials, desc="costs by kind", disable=not progress, leave=False):
        with dynamically_pruned(model, plan_dynamic(model, "inputs", {one: share}, sizes)):
            costs[one][share] = perplexity(model, ids, length).loss - dense
    return costs


def most_spared(
    model: LanguageModel, costs: Mapping[str, Mapping[float, float]], budget: float
) -> dict[str, float]:
    """The share for each kind that spares the most weights while costs add up to at most the budget.

    Args:
        model: to count weights of.
        costs: of `kind_costs`; one below 0 counts as 0, since what a short text seems to gain is chance.
        budget: nats per token.

    Returns:
        By kind, one of its shares: what `plan_dynamic` takes as sparsity.

    Raises:
        UserError: the budget is below 0 or not finite.
    """
    if not 0 <= budget < math.inf:
        raise UserError(f"the budget is {budget}, expected nats per token such as 0.04")
    weights = {one: sum(matrix.weight.numel() for matrix in matrices(model, [one]).values()) for one in costs}
    choices = [dict(zip(costs, shares, strict=True)) for shares in itertools.product(*costs.values())]

    def cost(choice: dict[str, float]) -> float:
        return sum(max(costs[one][share], 0.0) for one, share in choice.items())

    def spared(choice: dict[str, float]) -> float:
        return sum(weights[one] * share for one, share in choice.items())

    return max((choice for choice in choices if cost(choice) <= budget), key=spared)
