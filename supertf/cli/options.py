"""Options that several commands share, alone and in groups, and kinds of values that typer has not."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from typer import BadParameter, Option

Bool = Any  # what `boolean` parses; where the annotation is bool, typer makes a flag that takes no value


def boolean(text: Any) -> bool:
    """Parse True or False, as in `--ssmax False`."""
    if str(text).lower() in ("true", "yes", "1"):
        return True
    if str(text).lower() in ("false", "no", "0"):
        return False
    raise BadParameter(f"expected True or False, got {text!r}")


def one_of(names: Iterable[str]) -> dict[str, Any]:
    """What makes of a `Option` or `Argument` a choice among these names, which the shell completes."""
    names = list(names)

    def parse(text: str) -> str:
        if text in names:
            return text
        raise BadParameter(f"expected one of {', '.join(names)}, got {text!r}")

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return {"parser": parse, "autocompletion": complete, "metavar": "|".join(names)}


SEEDS: dict[str, Any] = {"min": 0, "max": 2**63 - 1}  # which every generator takes

Json = Annotated[bool, Option("--json", help="print the result as JSON")]
Seed = Annotated[int, Option(**SEEDS, help="of what is random")]
Device = Annotated[str | None, Option(help="cpu, cuda, cuda:1 or mps (default: the best there is)")]

Model = Annotated[str, Option(help="smollm2-135m, a hub id, a folder, a run or a GGUF file")]
Tokenizer = Annotated[
    str | None,
    Option(help="gpt2, bytes, smollm2-135m, a tokenizer file or another model (default: the model's)"),
]
Bos = Annotated[
    Bool,
    Option(
        parser=boolean,
        metavar="BOOL",
        help="begin prompt and windows with a BOS token (default: as the model expects)",
    ),
]

Data = Annotated[str, Option(help="a token file (.bin), or text as in supertf data")]
MaxTokens = Annotated[int, Option(min=1, help="read this many at most")]
NewTokens = Annotated[int, Option(min=1, help="tokens that go on from the prompt")]
WindowLength = Annotated[int | None, Option(min=1, help="tokens per window (default: 512 or the context)")]


@dataclass
class Loading:
    """How a model is loaded, and where."""

    tokenizer: Tokenizer = None
    bos: Bos = None
    device: Device = None


# Of `supertf prune` and `quantize`, which set a model beside what they make of it.
PROTECTED = "super (each candidate, see superweights find), none, or as in '11[507, 1229]'"


@dataclass
class Comparing:
    """What changes, and on which text and with which prompt the model is compared with what it becomes."""

    matrices: Annotated[list[str] | None, Option(metavar="KIND", help="as in mlp.c_proj (default: all)")] = (
        None
    )
    data: Data = "library-docs"
    windows: Annotated[int, Option(min=1, help="of held-out text")] = 8
    length: WindowLength = None
    calibration_windows: Annotated[
        int | None,
        Option(
            min=1,
            help="of other text (default: 8, of dynamic methods 2; 0 where none is needed)",
        ),
    ] = None
    prompt: Annotated[str, Option(help="both models go on with it")] = "The capital of France is"
    max_new_tokens: NewTokens = 20


# Of `supertf superweights`.
SpikePrompt = Annotated[
    str | None, Option("--prompt", help="what the spikes are looked for in (default: the paper's)")
]
Controls = Annotated[int, Option(min=1, help="random and largest weights")]


@dataclass
class LossText:
    """The texts that losses are measured on."""

    data: Annotated[
        list[str] | None,
        Option(help="token files (.bin), or texts as in supertf data (default: twelve, four of each domain)"),
    ] = None
    length: Annotated[int | None, Option(min=1, help="tokens per window (default: 256 or the context)")] = (
        None
    )
    max_tokens: Annotated[int, Option(min=1, help="read this many of each at most")] = 256
