from .byte_pairs import train_bpe as train_bpe
from .corpus import iter_documents as iter_documents
from .downloads import fetch as fetch
from .reading import lab_tokens as lab_tokens
from .reading import read_ids as read_ids
from .tasks import Task as Task
from .token_files import TokenFile as TokenFile
from .token_files import Windows as Windows
from .token_files import batches as batches
from .token_writer import prepare as prepare
from .tokenizer import load_tokenizer as load_tokenizer
from .tokenizer import save_tokenizer as save_tokenizer

# isort: split
# what other rooms also need
from .byte_pairs import valid_unicode as valid_unicode
from .corpus import describe as describe
from .corpus import hub_trouble as hub_trouble
from .downloads import WHEELS as WHEELS
from .downloads import is_present as is_present
from .downloads import places as places
from .downloads import smollm2_path as smollm2_path
from .tasks import Batch as Batch
from .tokenizer import check_vocabulary as check_vocabulary
from .tokenizer import gguf_tokenizer as gguf_tokenizer
from .tokenizer import special_ids as special_ids
from .tokenizer import unused_ids as unused_ids
