__version__: str

from .analysis import attention_entropy as attention_entropy
from .analysis import perplexity as perplexity
from .compression import compare as compare
from .compression import prune as prune
from .compression import pruned as pruned
from .compression import quantize as quantize
from .compression import quantized as quantized
from .data import load_tokenizer as load_tokenizer
from .data import read_tokens as read_tokens
from .model import GPT as GPT
from .model import PRESETS as PRESETS
from .model import GPTConfig as GPTConfig
from .model import generate as generate
from .model import load as load
from .model import load_model as load_model
from .superweights import ablate as ablate
from .superweights import find_super_weights as find_super_weights
from .training import TrainSettings as TrainSettings
from .training import train as train
