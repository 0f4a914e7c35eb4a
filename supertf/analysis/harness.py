"""EleutherAI's evaluation harness (the package lm-eval, which is optional) asked about a model."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm.auto import tqdm

from supertf.analysis.continuations import Continuation, score_continuations
from supertf.errors import UserError, first_line
from supertf.model import ENDLESS, LanguageModel, generate, text_ends

BOOTSTRAPS = 1000  # of metrics that are no means
NEW_TOKENS = 256  # of a generated answer, where the task does not say
LONGEST = 2048  # tokens of a text, of a model without a limit


class HarnessModel(TemplateLM):
    """A model and its tokenizer, as the harness asks them."""

    def __init__(self, model: LanguageModel, tokenizer: Any, batch_size: int, progress: bool) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.bos_id: int | None = getattr(tokenizer, "bos_id", None)
        self.batch_size, self.progress = batch_size, progress
        context = model.config.length_limit or model.config.n_ctx
        self.max_length = LONGEST if context == ENDLESS else context

    @property
    def eot_token_id(self) -> int:
        """What ends a text."""
        return self.tokenizer.eot_token

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has nothing before it."""
        return self.eot_token_id if self.bos_id is None else self.bos_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids, behind BOS where the model expects it."""
        begins = self.bos_id is not None and add_special_tokens is not False
        return [*([self.bos_id] if begins else []), *self.tokenizer.encode_ordinary(string)]

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Long contexts lose their beginnings; texts of like lengths share a batch."""
        sizes = [len(ids) for _, _, ids in requests]
        if 0 in sizes:
            raise UserError("an answer of the harness has no token of its own behind its question")
        if (longest := max(sizes, default=0)) > self.max_length:
            raise UserError(
                f"an answer of the harness has {longest} tokens, more than the {self.max_length} that the "
                "model reads"
            )
        texts = [
            Continuation((context + ids)[-self.max_length - 1 : -len(ids)], ids)
            for _, context, ids in requests
        ]
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i].context) - len(texts[i].ids))
        found: dict[int, tuple[float, bool]] = {}
        with tqdm(total=len(texts), desc="answers", disable=disable_tqdm or not self.progress) as bar:
            for first in range(0, len(order), self.batch_size):
                several = order[first : first + self.batch_size]
                scored = score_continuations(self.model, [texts[i] for i in several], self.batch_size)
                found.update(zip(several, scored, strict=True))
                bar.update(len(several))
        return [found[i] for i in range(len(texts))]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, each token predicted once."""
        found = []
        for request in requests:
            ids = self.tokenizer.encode_ordinary(request.args[0])
            windows = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            parts = [("", *make_disjoint_window(window)) for window in windows]
            found.append(sum(one for one, _ in self._loglikelihood_tokens(parts, disable_tqdm)))
        return found

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers, up to the first of the task's stops."""
        found = []
        for request in tqdm(requests, desc="answers", disable=disable_tqdm or not self.progress):
            context, given = request.args
            settings = normalize_gen_kwargs(given, NEW_TOKENS)
            if settings.get("do_sample") or settings.get("temperature"):
                raise UserError("a task of the harness wants sampled answers; here they are greedy")
            new = settings["max_gen_toks"]
            if new >= self.max_length:
                raise UserError(
                    f"a task of the harness wants {new} new tokens, and the model reads {self.max_length}"
                )
            prompt = self.tok_encode(context)[new - self.max_length :]
            written = generate(self.model, prompt, new, stop=text_ends(self.tokenizer))
            answer = self.tokenizer.decode(written)
            stops = settings.get("until") or []
            for stop in [stops] if isinstance(stops, str) else stops:
                answer = answer.partition(stop)[0] if stop else answer
            found.append(answer)
        return found


def harness_results(
    model: LanguageModel,
    tokenizer: Any,
    tasks: Sequence[str],
    limit: int | None,
    batch_size: int,
    progress: bool,
) -> Iterator[tuple[str, str, float, float | None, int]]:
    """Task, metric, value, standard error and number of questions, for every metric of every task.

    Args:
        tasks: names that the harness knows, or YAML files that describe others.
        limit: questions of each task at most; None: all.

    Raises:
        UserError: a task that it does not know, or whose data cannot be reached.
    """
    asked = HarnessModel(model, tokenizer, batch_size, progress)
    try:
        with quiet():
            manager = TaskManager()
            for task in tasks:
                if task not in manager.all_tasks and not task.endswith((".yaml", ".yml")):
                    raise UserError(
                        f"the harness has no task {task!r}: `lm-eval ls tasks` lists them; or give a YAML "
                        "file of your own"
                    )
            result = simple_evaluate(
                asked,
                tasks=list(tasks),
                limit=limit,
                task_manager=manager,
                bootstrap_iters=BOOTSTRAPS,
                log_samples=False,
                random_seed=None,
                numpy_random_seed=None,
                torch_random_seed=None,
            )
    except UserError:
        raise
    except Exception as error:  # of YAML files, templates and code that others wrote
        raise UserError(f"the harness could not ask {', '.join(tasks)}: {first_line(error)}") from error
    for task, metrics in result["results"].items():
        number = result["n-samples"].get(task, {}).get("effective", metrics.get("sample_len", 0))
        for name, value in metrics.items():
            metric, _, filtered = name.partition(",")
            if filtered and isinstance(value, Real) and not metric.endswith("_stderr"):
                stderr = metrics.get(f"{metric}_stderr,{filtered}")
                yield task, metric, float(value), float(stderr) if isinstance(stderr, Real) else None, number


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Of what the harness logs, only warnings; of what it prints, nothing on standard output; and its errors
    are estimated here, not in a process for each core."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.WARNING)
    before = os.environ.get("DISABLE_MULTIPROC", "")  # empty says the same as none
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)
        os.environ["DISABLE_MULTIPROC"] = before
