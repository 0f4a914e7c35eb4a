"""How a budget of dropped inputs is shared out among matrices: more where it changes the predictions less.

What dropping the inputs of one matrix alone does to the model's next-token probabilities, a KL divergence on
a short text, is measured for several shares. As if these divergences added up, the budget is then spent step
by step where the next step costs least, as TEAL (Liu et al. 2024, arXiv 2408.14690, algorithm 1) does inside
a block with the error of the block's output.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from supertf.calibration import windows_of
from supertf.dynamic_pruning import dynamically_pruned, plan_dynamic, shares_of
from supertf.errors import UserError
from supertf.input_sizes import InputSizes

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@torch.no_grad()
def divergences(
    model: nn.Module,
    method: str,
    ids: Sequence[int] | Tensor,
    sizes: InputSizes | None = None,
    length: int = 256,
    kinds: Iterable[str] | None = None,
    shares: Sequence[float] = SHARES,
    progress: bool = True,
) -> dict[str, list[float]]:
    """For each matrix, the KL divergence of the dense model's next-token probabilities from those with these
    shares of its inputs dropped, a mean over the tokens of a text (N,), in nats.

    method, sizes, kinds: as `plan_dynamic` takes them. Every share of every matrix reads the text, of which a
    few hundred tokens do. Raises `UserError` as `plan_dynamic` and `calibrate` do.
    """
    windows = windows_of(model, ids, length)[:, 0].to(model.device)  # (windows, length)
    dense = model(windows).logits.log_softmax(-1)
    found: dict[str, list[float]] = {}
    names = shares_of(model, method, 0.0, kinds)
    for name in tqdm(names, desc="divergences by matrix", disable=not progress, leave=False):
        found[name] = []
        for share in shares:
            plan = plan_dynamic(model, method, {name: share}, sizes, kinds=kinds)
            with dynamically_pruned(model, plan):
                pruned = model(windows).logits.log_softmax(-1)
            found[name].append(
                F.kl_div(
                    pruned.flatten(0, 1), dense.flatten(0, 1), log_target=True, reduction="batchmean"
                ).item()
            )
    return found


def shared_out(
    costs: Mapping[str, Sequence[float]], mean: float, shares: Sequence[float] = SHARES
) -> dict[str, float]:
    """A share for each matrix, 0 or one of `shares`, that are `mean` on average or the least more, chosen so
    that the costs add up to little: the next step up is always the one that costs least for what it drops.

    costs: by matrix, of each of the shares, which rise. A matrix may go up several steps at once, so that a
    dear step before a cheap one is no barrier. Raises `UserError` on a mean that the shares do not reach.
    """
    if not 0 <= mean <= shares[-1]:
        raise UserError(f"a mean share of {mean}, expected 0 to {shares[-1]}, the largest that was measured")
    at = dict.fromkeys(costs, -1)  # index of each matrix's share; -1 is none dropped

    def share(index: int) -> float:
        return 0.0 if index < 0 else shares[index]

    def cost(name: str, index: int) -> float:
        return 0.0 if index < 0 else costs[name][index]

    while sum(map(share, at.values())) < mean * len(at) - 1e-9:
        steps = [
            ((cost(name, to) - cost(name, now)) / (share(to) - share(now)), name, to)
            for name, now in at.items()
            for to in range(now + 1, len(shares))
        ]
        _, name, to = min(steps)
        at[name] = to
    return {name: share(index) for name, index in at.items()}
