"""What notebooks need: set-up, checked exercises, figures; and the book made of executed notebooks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
