from . import timing as timing
from .generate import weight_bytes as weight_bytes
from .plan import this_machine as this_machine
from .timing import interleave as interleave
from .timing import machine as machine
from .timing import ratios as ratios
from .timing import spread as spread
from .train import our_step as our_step
