"""transformers as the lab uses it: without warnings of its own, and its errors in one line."""

import contextlib
import logging
from collections.abc import Iterator
from types import ModuleType

from safetensors import SafetensorError

from supertf.errors import UserError

# What transformers and what it reads with raise on a model that is missing, damaged or of no known kind.
LOADING_ERRORS = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError)
LOADING_ERRORS += (SafetensorError,)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[ModuleType]:
    """transformers without warnings and bars of its own; downloads keep theirs. `UserError` without it."""
    try:
        import transformers
    except ImportError as error:
        raise UserError("models of this kind are read by transformers: `pip install transformers`") from error
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    loggers = {logger: logger.level for logger in map(logging.getLogger, ("transformers", "accelerate"))}
    bars = is_progress_bar_enabled()
    disable_progress_bar()
    enable_progress_bars()  # the hub's, which transformers switches off with its own
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield transformers
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)
        if bars:
            enable_progress_bar()


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its kind when it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".: ") if lines else type(error).__name__
