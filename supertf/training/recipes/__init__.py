"""Trainings with a name, each a file: what is trained, on what, for how long; and smaller ones like them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
