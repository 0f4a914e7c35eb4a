"""Weights are learned: settings, the training loop, its run folders, training on tasks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
