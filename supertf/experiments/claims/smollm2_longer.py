"""What is claimed about SmolLM2-135M beyond the context of its training."""

from supertf.experiments.sweep.judging import Claim


def than(domain: str, first: str, second: str) -> dict[str, float]:
    """Nats per token that the first change costs more than the second."""
    return {f"{first}, {domain}": 1, f"{second}, {domain}": -1}


CLAIMS = tuple(
    claim
    for domain in ("library-docs", "prose")
    for claim in (
        Claim(
            "smollm2_longer",
            f"Beyond 8,192 tokens log n alone reads worse than no change: {domain}",
            than(domain, "logn", "as trained"),
            more=0,
            path=("beyond",),
        ),
        Claim(
            "smollm2_longer",
            f"Beyond 8,192 tokens four times the RoPE base reads a nat better: {domain}",
            than(domain, "rope base x 4", "as trained"),
            less=-1,
            path=("beyond",),
        ),
        Claim(
            "smollm2_longer",
            f"Inside 8,192 tokens four times the RoPE base reads worse: {domain}",
            than(domain, "rope base x 4", "as trained"),
            more=0,
            path=("inside",),
        ),
        Claim(
            "smollm2_longer",
            f"With that base log n beyond 8,192 tokens helps: {domain}",
            than(domain, "rope base x 4, logn", "rope base x 4"),
            less=0,
            path=("beyond",),
        ),
        Claim(
            "smollm2_longer",
            f"With that base a constant of 1.08 is as good as log n beyond, to within .01: {domain}",
            than(domain, "rope base x 4, constant 1.08", "rope base x 4, logn"),
            more=-0.01,
            less=0.01,
            path=("beyond",),
        ),
    )
)
