"""What is claimed about repairing a pruned model."""

from supertf.experiments.claims.contrasts import better, excess
from supertf.experiments.sweep.judging import Claim

CLAIMS = (
    better("repairing", "A fifth of the channels costs more than 10 %", "channels", "nothing", more=1.1),
    better(
        "repairing",
        "Training wins back some of what a fifth of the channels costs",
        "channels, trained",
        "channels",
    ),
    better(
        "repairing",
        "Training with the dense model for a teacher wins back some of what a fifth of the channels costs",
        "channels, taught",
        "channels",
    ),
    better(
        "repairing",
        "Fitting anew wins back some of what a fifth of the channels costs",
        "channels, refitted",
        "channels",
    ),
    better(
        "repairing",
        "Fitting anew wins back more than training, on the same tokens",
        "channels, refitted",
        "channels, trained",
    ),
    better(
        "repairing",
        "Fitted on six times the tokens, channels cost less",
        "channels, refitted on six times",
        "channels, refitted",
    ),
    better(
        "repairing",
        "Fitted on a third of the tokens, channels cost more",
        "channels, refitted on a third",
        "channels, refitted",
        more=1,
    ),
    better(
        "repairing",
        "A dense model, trained alike, stays ahead of the trained one by 5 %",
        "channels, trained",
        "nothing, trained",
        more=1.05,
    ),
    better(
        "repairing",
        "Trained on one domain, channels cost more than on three, of as many tokens",
        "channels, trained on library-docs",
        "channels, trained",
        more=1,
    ),
    better(
        "repairing",
        "Fitted on one domain, channels cost more than on three, of as many tokens",
        "channels, refitted on library-docs",
        "channels, refitted",
        more=1,
    ),
    better(
        "repairing", "Fitting anew wins back some of what dropped inputs cost", "inputs, refitted", "inputs"
    ),
    better(
        "repairing",
        "Fitted on six times the tokens, dropped inputs are worth less than 2 %",
        "inputs, refitted on six times",
        "nothing",
        less=1.02,
    ),
    better(
        "repairing",
        "After training, the pruned model still needs the super weight",
        "channels, trained, without the weight",
        "channels, trained",
        more=2,
    ),
    better(
        "repairing",
        "After training, the dense model still needs the super weight",
        "nothing, trained, without the weight",
        "nothing, trained",
        more=2,
    ),
    Claim(
        "repairing",
        "The pruned model needs the super weight less after training than before",
        excess(
            "channels, without the weight",
            "channels, trained",
            "channels, trained, without the weight",
            "channels",
        ),
        less=1,
    ),
    Claim(
        "repairing",
        "The dense model needs the super weight less after training than before",
        excess("nothing, without the weight", "nothing, trained", "nothing, trained, without the weight"),
        less=1,
    ),
)
