"""Small Hugging Face tokenizers of their own, for tests of models that bring theirs."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

transformers = pytest.importorskip("transformers")
SENTENCE = "It was a line of a book, and then another. Was it? "
SPECIAL = ("<|endoftext|>", "<|im_start|>")


def own_tokenizer(vocab_size=300, bos=None, added=(), text=SENTENCE):
    """A transformers tokenizer: a byte-level BPE trained on a text, with ids 0 and 1 for two special tokens.

    bos: a special token to begin every text with. added: further tokens behind the others, not special.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=[*SPECIAL], show_progress=False
    )
    backend.train_from_iterator([text] * 20, trainer)
    if bos is not None:
        pair = (bos, backend.token_to_id(bos))
        backend.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[pair])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=SPECIAL[0], bos_token=bos or SPECIAL[0]
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    return tokenizer
