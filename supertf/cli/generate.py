"""`supertf generate`: continue a prompt, printed as it is chosen."""

import argparse
import contextlib
import time
from collections.abc import Iterable, Iterator

from supertf.cli.main import boolean, positive_int, print_result, seed
from supertf.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `supertf generate`."""
    parser.add_argument(
        "--model", default="smollm2-135m", help="smollm2-135m, a folder, a run, a GGUF file or a hub id"
    )
    parser.add_argument(
        "--tokenizer",
        help="gpt2, bytes, smollm2-135m, a tokenizer file or another model; default: the model's",
    )
    parser.add_argument("--prompt", default="The capital of France is")
    parser.add_argument("--max_new_tokens", type=positive_int, default=64)
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0 takes the likeliest token every time"
    )
    parser.add_argument("--top_k", type=int, help="sample among this many likeliest tokens")
    parser.add_argument("--top_p", type=float, help="sample among the likeliest tokens that sum to this")
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument(
        "--bos",
        type=boolean,
        metavar="BOOL",
        help="put a BOS token in front (default: as the model expects)",
    )
    parser.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    parser.add_argument(
        "--weights",
        choices=("float32", "bfloat16", "int8", "int4"),
        default="float32",
        help="precision of the weights; int8 and int4 need a CPU",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object at the end instead of streaming"
    )


def run(args: argparse.Namespace) -> int:
    """Stream the continuation to standard output, or print it as JSON."""
    import torch

    from supertf.cli.subject import Subject
    from supertf.compression import packed_weights
    from supertf.data import valid_unicode
    from supertf.model import GPT, stream

    only_cpu = args.weights in ("int8", "int4")
    if only_cpu and args.device not in (None, "cpu"):
        raise UserError(f"--weights {args.weights} runs on the CPU, not on {args.device}: leave out --device")
    dtype = torch.float32 if args.weights == "float32" else torch.bfloat16
    device = "cpu" if only_cpu else args.device
    subject = Subject(args.model, args.tokenizer, args.bos, device, dtype=dtype)
    model = subject.model
    prompt = subject.encode(args.prompt)
    subject.check_context(len(prompt) + args.max_new_tokens)
    pieces: list[str] = []
    tokens: list[int] = []
    ours = isinstance(model, GPT)
    if only_cpu and not ours:
        raise UserError(
            f"--weights {args.weights} packs this lab's models, and {args.model} is read by transformers: "
            "choose bfloat16 or float32"
        )
    packed = ours and model.device.type == "cpu" and args.weights != "float32"
    with packed_weights(model, args.weights) if packed else contextlib.nullcontext():
        start = time.perf_counter()
        chosen = stream(
            model,
            prompt,
            args.max_new_tokens,
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            seed=args.seed,
            stop=subject.ends,
            exclude=subject.unused,
        )
        if not args.json:
            print(valid_unicode(args.prompt), end="", flush=True)
        for piece in subject.spoken(prompt, kept(chosen, tokens)):
            pieces.append(piece)
            if not args.json:
                print(piece, end="", flush=True)
        seconds = time.perf_counter() - start
    if not args.json:
        print()
        return 0
    result = {
        "model": args.model,
        "prompt": args.prompt,
        "text": "".join(pieces),
        "bos": subject.bos_id is not None,
        "prompt_tokens": len(prompt),
        "new_tokens": len(tokens),
        "tokens_per_second": len(tokens) / seconds,
        "temperature": args.temperature,
        "seed": args.seed,
        "weights": args.weights,
        "device": str(model.device),
    }
    print_result(result, as_json=True)
    return 0


def kept(chosen: Iterable[int], tokens: list[int]) -> Iterator[int]:
    """The tokens as they are chosen, which are also appended to a list."""
    for token in chosen:
        tokens.append(token)
        yield token
