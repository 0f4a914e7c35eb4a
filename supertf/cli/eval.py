"""`supertf eval`: perplexity of a model on text, also by position."""

import argparse
from typing import TYPE_CHECKING, Any

from supertf.cli.main import boolean, positive_int, print_result

if TYPE_CHECKING:
    pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `supertf eval`."""
    parser.add_argument(
        "--model", default="smollm2-135m", help="smollm2-135m, a folder, a run, a GGUF file or a hub id"
    )
    parser.add_argument(
        "--tokenizer",
        help="gpt2, bytes, smollm2-135m, a tokenizer file or another model; default: the model's",
    )
    parser.add_argument(
        "--data", default="python-docs:stdlib", help="a token file (.bin), or text as in supertf data"
    )
    parser.add_argument("--length", type=positive_int, help="tokens per window (default: 512 or the context)")
    parser.add_argument("--stride", type=positive_int, help="tokens between windows (default: the length)")
    parser.add_argument("--max_tokens", type=positive_int, default=16384, help="read this many at most")
    parser.add_argument("--batch_size", type=positive_int, default=4, help="windows at a time")
    parser.add_argument(
        "--bos",
        type=boolean,
        metavar="BOOL",
        help="begin windows with a BOS token (default: as the model expects)",
    )
    parser.add_argument("--by_position", action="store_true", help="also the loss at each position")
    parser.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Print loss, perplexity and what they were measured on."""
    from supertf.analysis import loss_by_position, perplexity
    from supertf.cli.subject import Subject
    from supertf.device import check_finite

    subject = Subject(args.model, args.tokenizer, args.bos, args.device)
    model, bos_id = subject.model, subject.bos_id
    ids = subject.read(args.data, args.max_tokens)
    length = subject.length(args.length, 512)
    found = perplexity(model, ids, length, args.stride, args.batch_size, bos_id)
    check_finite(found.loss, "the loss")
    result: dict[str, Any] = {
        "model": args.model,
        "data": args.data,
        "tokens": found.tokens,
        "length": length,
        "context": subject.context,
        "stride": args.stride or length,
        "bos": bos_id is not None,
        "loss": found.loss,
        "perplexity": found.perplexity,
    }
    if args.by_position:
        losses = loss_by_position(model, ids, length, args.batch_size, bos_id=bos_id).tolist()
        if args.json:
            result["loss_by_position"] = losses
        else:
            result |= spans(losses)
    print_result(result, args.json)
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
