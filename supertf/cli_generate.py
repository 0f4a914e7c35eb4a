"""`supertf generate`: continue a prompt, printed as it is chosen."""

import argparse
import codecs
import contextlib
import time

from supertf.cli import boolean, positive_int, print_result, seed
from supertf.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `supertf generate`."""
    parser.add_argument(
        "--model", default="smollm2-135m", help="smollm2-135m, a folder, a run, a GGUF file or a hub id"
    )
    parser.add_argument(
        "--tokenizer", help="gpt2, bytes, smollm2-135m or a tokenizer file; default: the model's"
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
        help="put the end-of-text token in front (default: as the model was trained by supertf)",
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

    from supertf.checkpoint import load_tokenizer_of, trained_with_bos
    from supertf.device import pick_device_dtype
    from supertf.generation import stream
    from supertf.packed import packed_weights
    from supertf.pretrained import load_model
    from supertf.tokenizer import load_tokenizer

    only_cpu = args.weights in ("int8", "int4")
    device, _, _ = pick_device_dtype("cpu" if only_cpu else args.device)
    if only_cpu and args.device not in (None, "cpu"):
        raise UserError(f"--weights {args.weights} runs on the CPU, not on {args.device}: leave out --device")
    dtype = torch.float32 if args.weights == "float32" else torch.bfloat16
    model = load_model(args.model, device=device, dtype=dtype)
    if args.tokenizer:
        tokenizer = load_tokenizer(args.tokenizer)
    else:
        tokenizer = load_tokenizer_of(args.model, model.config.vocab_size)
    bos = trained_with_bos(args.model) if args.bos is None else args.bos
    prompt = [tokenizer.eot_token] if bos else []
    prompt += tokenizer.encode(args.prompt, allowed_special="all")
    ends = {tokenizer.encode_single_token(name) for name in tokenizer.special_tokens_set}
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character can span tokens
    pieces: list[str] = []
    prompt_tokens, tokens = len(prompt), 0
    on_cpu = device.type == "cpu" and args.weights != "float32"
    with packed_weights(model, args.weights) if on_cpu else contextlib.nullcontext():
        start = time.perf_counter()
        chosen = stream(
            model,
            prompt,
            args.max_new_tokens,
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            seed=args.seed,
            stop=ends,
        )
        if not args.json:
            print(args.prompt, end="", flush=True)
        for token in chosen:
            tokens += 1
            pieces.append(decoder.decode(tokenizer.decode_single_token_bytes(token)))
            if not args.json:
                print(pieces[-1], end="", flush=True)
        seconds = time.perf_counter() - start
    pieces.append(decoder.decode(b"", final=True))
    if not args.json:
        print(pieces[-1])
        return 0
    result = {
        "model": args.model,
        "prompt": args.prompt,
        "text": "".join(pieces),
        "bos": bos,
        "prompt_tokens": prompt_tokens,
        "new_tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "temperature": args.temperature,
        "seed": args.seed,
        "weights": args.weights,
        "device": str(device),
    }
    print_result(result, as_json=True)
    return 0
