"""Text becomes tokens: corpora, tokenizers, token files and their windows, tasks with known answers.

What is fetched once and kept for offline use is fetched here, too.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
