"""All claims, what became of each, and the page that lists them."""

from supertf.errors import UserError
from supertf.experiments.claims import (
    extreme,
    free_scale,
    growth,
    language,
    longer_training,
    pruning,
    quantizing,
    recall,
    removals,
    repairing,
    smollm2_longer,
)
from supertf.experiments.sweep.judging import Judgement, judge
from supertf.experiments.sweep.results import recorded

CLAIMS = {
    "recall": recall.CLAIMS,
    "extreme": extreme.CLAIMS,
    "free_scale": free_scale.CLAIMS,
    "language": language.CLAIMS,
    "longer_training": longer_training.CLAIMS,
    "smollm2_longer": smollm2_longer.CLAIMS,
    "growth": growth.CLAIMS,
    "removals": removals.CLAIMS,
    "pruning": pruning.CLAIMS,
    "repairing": repairing.CLAIMS,
    "quantizing": quantizing.CLAIMS,
}
HEAD = """# What the lab claims

Written by `supertf experiment claims --output CLAIMS.md` from the recorded results: do not edit it. Every
claim but those about recall was written down, in `supertf/experiments/claims/`, before the run that judges
it. "Holds" and "fails": the mean lies on that side of the bound, with a p-value below .05 that is corrected
for all claims about the experiment (Holm 1979); else it is open.

That does not make every claim a prediction from nothing. Before those about removals were written, three of
their weights had been measured on twelve of the thirty texts, 256 tokens of each, and seven conditions had
been tried on the first window of three; the bounds are older, from another text. Those about pruning,
repairing and quantizing come from earlier runs on Python's documentation, which is no text of these, and so
do those about language and smollm2_longer; those about extreme from a run with fewer lengths, questions and
constants. Of those about free_scale the first five come from an earlier run, the slopes from the derivation
in notebook 02. Those about recall are the exception to the rule above: they were written after its run, and
only say what it says."""


def judged(experiment: str) -> Judgement:
    """What the recorded results of an experiment say of the claims about it.

    Raises:
        UserError: no claims are made about it, or it is not recorded.
    """
    if experiment not in CLAIMS:
        raise UserError(f"no claims are made about {experiment!r}; choose from {', '.join(CLAIMS)}")
    return judge(CLAIMS[experiment], recorded(experiment))


def page() -> str:
    """All claims and what became of them, in Markdown."""
    parts = [HEAD]
    for name in CLAIMS:
        found, results = judged(name), recorded(name)
        minutes, processor = results.meta["seconds"] / 60, results.meta["processor"]
        seeds = ", ".join(map(str, results.experiment.seeds))
        parts += [
            f"## {name}",
            results.experiment.question,
            f"`supertf experiment run {name}`: {len(results.cells)} cells, {minutes:.0f} minutes on "
            f"{processor}. Seeds: {seeds}. In the table: {found.caption()}.",
            markdown(found.columns(), found.cells()),
        ]
    return "\n\n".join(parts) + "\n"


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
