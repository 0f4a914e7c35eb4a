"""What a model computes: losses, also by position, attention's entropy and sinks, the residual stream.

And what can be said of figures over seeds: intervals and paired differences.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
