"""Tasks beside perplexity: the last words of passages, and what EleutherAI's harness asks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from supertf.analysis.last_words import finds_last_words
from supertf.data import TEXTS, last_words
from supertf.errors import UserError
from supertf.model import LanguageModel
from supertf.tables import Tabular, number

LAST_WORDS = "last_words"
Z = 1.96  # standard deviations to each side, of 95 %
PASSAGES = 100  # of each text, unless a limit says otherwise


@dataclass(frozen=True)
class TaskScore:
    """What a model reached in one task.

    Attributes:
        task: its name.
        metric: such as "acc", the share of right answers.
        value: of the metric.
        stderr: its standard error over questions; None where there is none.
        questions: how many were asked.
    """

    task: str
    metric: str
    value: float
    stderr: float | None
    questions: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of 95 %: Wilson's for shares, which are exact at 0 and 1, too, else 1.96 standard errors."""
        if self.stderr is None:
            return None
        if not self.metric.startswith(("acc", "exact_match")) or not 0 <= self.value <= 1:
            return self.value - Z * self.stderr, self.value + Z * self.stderr
        n = self.questions
        middle, shrink = self.value + Z**2 / (2 * n), 1 + Z**2 / n
        half = Z * math.sqrt(self.value * (1 - self.value) / n + (Z / (2 * n)) ** 2)
        return (middle - half) / shrink, (middle + half) / shrink


@dataclass(frozen=True)
class TaskScores(Tabular):
    """What a model reached in several tasks; prints as a table, with 95 % intervals."""

    scores: tuple[TaskScore, ...]

    def columns(self) -> list[str]:
        """The table's head."""
        return ["task", "metric", "value", "from", "to", "questions"]

    def rows(self) -> list[list[str]]:
        """A line for each metric."""
        found = []
        for one in self.scores:
            ends = map(number, one.interval or (None, None))
            found.append([one.task, one.metric, number(one.value), *ends, str(one.questions)])
        return found

    def caption(self) -> str:
        """What the columns mean."""
        return "from, to: 95 % over the questions of a task; of shares Wilson's interval"


def task_scores(
    model: LanguageModel,
    tokenizer: Any,
    tasks: Sequence[str],
    limit: int | None = None,
    batch_size: int = 8,
    progress: bool = True,
) -> TaskScores:
    """Ask a model the questions of tasks.

    Args:
        model: a `GPT` or an `HFModel`, in evaluation mode.
        tokenizer: as `load` gives it.
        tasks: "last_words", this lab's (see `last_words`), on each shipped text, without network; and what
            EleutherAI's harness (`pip install lm-eval`) knows, such as "lambada_openai" or "hellaswag", whose
            data come from the hub, or a YAML file that describes another of its tasks.
        limit: questions of each task at most; default all, of "last_words" 100 of each text.
        batch_size: texts read at once.
        progress: show bars.

    Returns:
        Every metric of every task, last words last.

    Raises:
        UserError: no task, one that is not known, data that cannot be reached, a harness that is not
            installed.

    Example:
        >>> model, tokenizer = load("smollm2-135m")
        >>> with scaled_weights(model, [(11, 507, 1229)]):
        ...     without = task_scores(model, tokenizer, ["last_words"], limit=5)
        >>> max(one.value for one in without.scores) < 0.5
        True
    """
    if not tasks:
        raise UserError(f"no task is named; expected some, such as {LAST_WORDS!r} or 'lambada_openai'")
    found = []
    others = [task for task in tasks if task != LAST_WORDS]
    if others:  # first: what can be refused is refused before anything is measured
        try:
            from supertf.analysis.harness import harness_results
        except ModuleNotFoundError as error:
            raise UserError(
                f"{', '.join(others)}: not a task of this lab, which has {LAST_WORDS!r}, and EleutherAI's "
                f"harness is not here ({error}): `pip install lm-eval`"
            ) from None
        results = harness_results(model, tokenizer, others, limit, batch_size, progress)
        found = [TaskScore(*one) for one in results]
    if LAST_WORDS in tasks:
        for name in TEXTS:
            passages = last_words(name, tokenizer, limit or PASSAGES)
            right = finds_last_words(model, passages, batch_size)
            found.append(share(f"{LAST_WORDS} {name}", right))
    return TaskScores(tuple(found))


def share(task: str, right: Sequence[bool]) -> TaskScore:
    """The share of right answers; its standard error is that of a mean."""
    value = sum(right) / len(right)
    stderr = math.sqrt(value * (1 - value) / (len(right) - 1)) if len(right) > 1 else None
    return TaskScore(task, "acc", value, stderr, len(right))
