"""`supertf tasks`: what a model reaches in tasks, beside its perplexity."""

from dataclasses import asdict
from typing import Annotated

from typer import Argument, Option, Typer

from supertf.cli.options import Device, Json, Model, Tokenizer
from supertf.cli.parsing import Command
from supertf.cli.printing import print_result

app = Typer()


@app.command(cls=Command)
def tasks(
    names: Annotated[
        list[str],
        Argument(
            metavar="TASK...",
            help="last_words (of passages of the shipped texts), or what EleutherAI's lm-eval knows, such as "
            "lambada_openai or hellaswag, also a YAML file of a task of your own",
        ),
    ],
    model: Model = "smollm2-135m",
    tokenizer: Tokenizer = None,
    limit: Annotated[
        int | None, Option(min=1, help="questions of each task (default: all; 100 a text of last_words)")
    ] = None,
    batch_size: Annotated[int, Option(min=1, help="texts read at a time")] = 8,
    device: Device = None,
    json: Json = False,
) -> int:
    """Ask a model the questions of tasks: shares of right answers, with 95 % intervals."""
    from supertf.analysis import task_scores
    from supertf.cli.subject import Subject

    subject = Subject(model, tokenizer, device=device)
    found = task_scores(subject.model, subject.tokenizer, names, limit, batch_size)
    if json:
        scores = [asdict(one) for one in found.scores]
        print_result(
            {**subject.config(tasks=names, limit=limit), "seconds": subject.seconds(), "scores": scores}, True
        )
    else:
        print(found)
    return 0
