"""`supertf generate`: continue a prompt, printed as it is chosen."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Annotated

from typer import Option, Typer

from supertf.cli.options import Bos, Device, Json, Model, NewTokens, Seed, Tokenizer, one_of
from supertf.cli.parsing import Command
from supertf.cli.printing import print_result
from supertf.errors import UserError

app = Typer()


@app.command(cls=Command)
def generate(
    model: Model = "smollm2-135m",
    tokenizer: Tokenizer = None,
    prompt: Annotated[str, Option(help="what to continue")] = "The capital of France is",
    max_new_tokens: NewTokens = 64,
    temperature: Annotated[float, Option(help="0 takes the likeliest token every time")] = 0.0,
    top_k: Annotated[int | None, Option(help="sample among this many likeliest tokens")] = None,
    top_p: Annotated[float | None, Option(help="sample among the likeliest tokens that sum to this")] = None,
    seed: Seed = 0,
    bos: Bos = None,
    device: Device = None,
    weights: Annotated[
        str,
        Option(
            **one_of(["float32", "bfloat16", "int8", "int4"]),
            help="precision of the weights; int8 and int4 need a CPU",
        ),
    ] = "float32",
    json: Json = False,
) -> int:
    """Continue a prompt. Its text is printed as it is chosen, or at the end with --json."""
    import torch

    from supertf.cli.subject import Subject
    from supertf.compression import packed_weights
    from supertf.data import valid_unicode
    from supertf.model import GPT, stream

    only_cpu = weights in ("int8", "int4")
    if only_cpu and device not in (None, "cpu"):
        raise UserError(f"--weights {weights} runs on the CPU, not on {device}: leave out --device")
    dtype = torch.float32 if weights == "float32" else torch.bfloat16
    subject = Subject(model, tokenizer, bos, "cpu" if only_cpu else device, dtype=dtype)
    ids = subject.encode(prompt)
    subject.check_context(len(ids) + max_new_tokens)
    packed: AbstractContextManager[None] = contextlib.nullcontext()
    if isinstance(subject.model, GPT):
        if subject.model.device.type == "cpu" and weights != "float32":
            packed = packed_weights(subject.model, weights)
    elif only_cpu:
        raise UserError(
            f"--weights {weights} packs this lab's models, and {model} is read by transformers: "
            "choose bfloat16 or float32"
        )
    pieces: list[str] = []
    tokens: list[int] = []
    with packed:
        start = time.perf_counter()
        chosen = stream(
            subject.model,
            ids,
            max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            stop=subject.ends,
            exclude=subject.unused,
        )
        if not json:
            print(valid_unicode(prompt), end="", flush=True)
        for piece in subject.spoken(ids, kept(chosen, tokens)):
            pieces.append(piece)
            if not json:
                print(piece, end="", flush=True)
        seconds = time.perf_counter() - start
    if not json:
        print()
        return 0
    result = {
        "model": model,
        "prompt": prompt,
        "text": "".join(pieces),
        "bos": subject.bos_id is not None,
        "prompt_tokens": len(ids),
        "new_tokens": len(tokens),
        "tokens_per_second": len(tokens) / seconds,
        "temperature": temperature,
        "seed": seed,
        "weights": weights,
        "device": str(subject.model.device),
    }
    print_result(result, as_json=True)
    return 0


def kept(chosen: Iterable[int], tokens: list[int]) -> Iterator[int]:
    """The tokens as they are chosen, which are also appended to a list."""
    for token in chosen:
        tokens.append(token)
        yield token
