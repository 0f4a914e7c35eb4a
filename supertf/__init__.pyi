__version__: str

from .analysis import attention_entropy as attention_entropy
from .analysis import perplexity as perplexity
from .data import load_tokenizer as load_tokenizer
from .model import GPT as GPT
from .model import PRESETS as PRESETS
from .model import GPTConfig as GPTConfig
from .model import generate as generate
from .model import load_model as load_model
from .training import TrainSettings as TrainSettings
from .training import train as train
