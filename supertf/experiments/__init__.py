"""Comparisons as data: what is varied, on which seeds, by which measure; the runner; recorded results."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
