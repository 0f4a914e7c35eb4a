"""Stretches of a text as a model reads them: which tokens, in which windows, behind which BOS token."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from supertf.data.reading import read_ids
from supertf.data.roles import PARTS, RUN, overlap, runs
from supertf.data.texts import TEXTS
from supertf.errors import Note, UserError

PART_ROLES = ("evaluate", "calibrate", "fit")  # of the parts of a shipped text
WORDS = 1000  # tokens of a vocabulary from which on most are longer than a few characters


@dataclass(frozen=True, eq=False)
class Text:
    """A text as token ids, to be read in windows.

    Attributes:
        ids: (N,) int64.
        length: tokens of a window, the BOS token included.
        bos_id: begins every window, None where nothing does.
        name: of the text, for tables.
    """

    ids: Tensor
    length: int
    bos_id: int | None = None
    name: str = "a text"

    def __len__(self) -> int:
        """Tokens of the text itself."""
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Text({self.name!r}, {len(self)} tokens, windows of {self.length})"

    def windows(self) -> Tensor:
        """Whole windows side by side, (W, length) int64, each behind the BOS token; what is left over is
        left out."""
        room = self.length - (self.bos_id is not None)
        rows = self.ids[: len(self) // room * room].view(-1, room)
        return (
            rows if self.bos_id is None else torch.cat([rows.new_full((len(rows), 1), self.bos_id), rows], 1)
        )


@overload
def read_tokens(data: str, tokenizer: Any, *, windows: int = 8, length: int = 512) -> Text: ...
@overload
def read_tokens(
    data: str, tokenizer: Any, *, windows: Sequence[int], length: int = 512
) -> tuple[Text, ...]: ...
def read_tokens(
    data: str, tokenizer: Any, *, windows: int | Sequence[int] = 8, length: int = 512
) -> Text | tuple[Text, ...]:
    """The beginning of a text as token ids, in parts that share no token.

    The first part is to be scored: without a BOS token it has one token more, the last target. The others are
    to be read: a calibration, and what is fitted to. Of a shipped text they are of its roles "evaluate",
    "calibrate" and "fit", which share no passage; of others they follow each other, and a `Note` says how
    much of what is scored is repeated in what follows.

    Args:
        data: "library-docs", "readmes" or "prose", or whatever `iter_documents` takes, such as a file; or a
            token file (.bin).
        tokenizer: as `load` gives it; its `bos_id` begins every window.
        windows: how many; several numbers give as many parts.
        length: tokens of a window, the BOS token included.

    Returns:
        A `Text`, or one for each number.

    Raises:
        UserError: the text cannot be read, is too short for all windows, or has fewer roles.

    Example:
        >>> tokenizer = load_tokenizer("bytes")
        >>> held_out, calibration = read_tokens("prose", tokenizer, windows=(2, 3), length=64)
        >>> held_out, calibration.windows().shape
        (Text('prose:evaluate', 129 tokens, windows of 64), torch.Size([3, 64]))
    """
    bos_id = getattr(tokenizer, "bos_id", None)
    counts = [windows] if isinstance(windows, int) else list(windows)
    room = length - (bos_id is not None)
    sizes = [counts[0] * length + (bos_id is None), *(count * room for count in counts[1:])]
    by_role = data in TEXTS
    if by_role and len(counts) > len(PART_ROLES):
        raise UserError(f"{len(counts)} parts of {data}, which has {', '.join(PART_ROLES)}: ask for fewer")
    if by_role:
        names = [f"{data}:{role}" for role in PART_ROLES[: len(counts)]]
        found = [read_ids(name, tokenizer, size) for name, size in zip(names, sizes, strict=True)]
    else:
        names = [data] * len(counts)
        ids = read_ids(data, tokenizer, sum(sizes))
        found = np.split(ids, np.cumsum(sizes)[:-1])  # of a short text the last are short, or empty
        check_repeats(data, tokenizer, found)
    for name, part, size in zip(names, found, sizes, strict=True):
        if len(part) < size and by_role:
            raise UserError(
                f"{name} has {len(part)} tokens, and {size} are asked for: fewer or shorter windows"
            )
    if (total := sum(map(len, found))) < sum(sizes):
        others = f" and {sum(sizes[1:])} others to calibrate with" if len(sizes) > 1 else ""
        raise UserError(
            f"{data} has {total} tokens, and {sizes[0]} are to be held out{others}: give a longer text, "
            "or fewer or shorter windows"
        )
    parts = tuple(
        Text(torch.as_tensor(part), length, bos_id, name) for name, part in zip(names, found, strict=True)
    )
    return parts[0] if isinstance(windows, int) else parts


def check_repeats(data: str, tokenizer: Any, parts: list[np.ndarray]) -> None:
    """Say in a `Note` that what is scored, the first of the parts of a text, is also in the others."""
    if tokenizer.n_vocab < WORDS:
        return
    scored, others = len(runs(parts[0])), np.concatenate([*parts[1:], parts[0][:0]])
    if shared := overlap(others, parts[0]):
        warnings.warn(
            f"{data} repeats itself: {shared} of the {scored} runs of {RUN} tokens that are scored are also "
            f"in what is calibrated with or fitted to; {', '.join(TEXTS)} have parts that share none",
            Note,
            stacklevel=3,
        )


def held_out_texts(
    data: str, tokenizer: Any, *, count: int = 10, windows: int = 4, length: int = 512
) -> list[Text]:
    """Disjoint texts to score, no passage of which is in a text's other roles: for intervals over texts.

    Args:
        data: a text with roles, such as "prose", or a file.
        tokenizer: as `load` gives it; its `bos_id` begins every window.
        count: how many texts, 12 at most.
        windows: of each text.
        length: tokens of a window, the BOS token included.

    Raises:
        UserError: there are fewer texts, or they are shorter.
    """
    if not 1 <= count <= PARTS:
        raise UserError(f"{count} texts of {data} to score; choose 1 to {PARTS}")
    names = [f"{data}:evaluate:{part}" for part in range(count)]
    return [read_tokens(name, tokenizer, windows=windows, length=length) for name in names]
