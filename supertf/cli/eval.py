"""`supertf eval`: perplexity of a model on text, also by position."""

from typing import Annotated, Any

from typer import Option, Typer

from supertf.cli.options import Bos, Data, Device, Json, MaxTokens, Model, Tokenizer, WindowLength
from supertf.cli.parsing import Command
from supertf.cli.printing import print_result

app = Typer()


@app.command("eval", cls=Command)
def evaluate(
    model: Model = "smollm2-135m",
    tokenizer: Tokenizer = None,
    data: Data = "library-docs:evaluate",
    length: WindowLength = None,
    stride: Annotated[int | None, Option(min=1, help="tokens between windows (default: the length)")] = None,
    max_tokens: MaxTokens = 16384,
    batch_size: Annotated[int, Option(min=1, help="windows at a time")] = 4,
    bos: Bos = None,
    by_position: Annotated[bool, Option("--by_position", help="also the loss at each position")] = False,
    device: Device = None,
    json: Json = False,
) -> int:
    """Measure a model's perplexity on text, also by position."""
    from supertf.analysis import loss_by_position, perplexity
    from supertf.cli.subject import Subject
    from supertf.device import check_finite

    subject = Subject(model, tokenizer, bos, device)
    ids = subject.read(data, max_tokens)
    length = subject.length(length, 512)
    found = perplexity(subject.model, ids, length, stride, batch_size, subject.bos_id)
    check_finite(found.loss, "the loss")
    result: dict[str, Any] = {
        "model": model,
        "data": data,
        "tokens": found.tokens,
        "length": length,
        "context": subject.context,
        "stride": stride or length,
        "bos": subject.bos_id is not None,
        "loss": found.loss,
        "perplexity": found.perplexity,
    }
    if by_position:
        losses = loss_by_position(subject.model, ids, length, batch_size, bos_id=subject.bos_id).tolist()
        result |= {"loss_by_position": losses} if json else spans(losses)
    print_result(result, json)
    return 0


def spans(losses: list[float]) -> dict[str, float]:
    """Mean losses over positions 1, 2-3, 4-7, 8-15 and so on, for people to read."""
    result = {}
    first = 1
    while first <= len(losses):
        last = min(2 * first - 1, len(losses))
        result[f"loss at {first}-{last}"] = sum(losses[first - 1 : last]) / (last - first + 1)
        first = last + 1
    return result
