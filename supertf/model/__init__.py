"""The decoder: its config, attention scalings, positions, generation, and models of every format on disk.

`gpt.GPT` is the model, to be read from top to bottom; `pretrained` and `hf_model` load and save.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
