"""Texts by name, as token ids."""

from typing import Any

import numpy as np

from supertf.data.corpus import iter_documents
from supertf.data.token_files import TokenFile
from supertf.data.tokenizer import tokenizer_spec
from supertf.errors import UserError


def read_ids(data: str, tokenizer: Any, max_tokens: int) -> np.ndarray:
    """The beginning of a text or a token file, as token ids.

    Args:
        data: a token file (`.bin`), or what `iter_documents` takes, such as "python-docs".
        tokenizer: of the model that is to read the ids, as `load` gives it.
        max_tokens: ids wanted.

    Returns:
        (N,) int64, N at most `max_tokens`; every document ends with the end-of-text token.

    Raises:
        UserError: the text cannot be read, or the token file was changed or is of another tokenizer.
    """
    if data.endswith(".bin"):
        file = TokenFile(data)
        if file.manifest["tokenizer"] != tokenizer_spec(tokenizer):
            raise UserError(
                f"{data} was written with another tokenizer than the model's: give the text itself"
            )
        file.verify()
        return file.tokens[:max_tokens].astype(np.int64)
    ids: list[int] = []
    for document in iter_documents(data):
        ids += tokenizer.encode_ordinary(document)
        ids.append(tokenizer.eot_token)
        if len(ids) >= max_tokens:
            break
    return np.array(ids[:max_tokens], dtype=np.int64)
