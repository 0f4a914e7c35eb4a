"""What can only be done to this package's own decoder, whose parts have known names."""

from torch import nn

from supertf.errors import UserError
from supertf.model import GPT


def as_gpt(model: nn.Module, what: str) -> GPT:
    """The model, or `UserError` if it is of another class; what: is done, to begin the message with."""
    if not isinstance(model, GPT):
        raise UserError(
            f"{what} this package's GPT, not {type(model).__name__}: `load_model` makes one of GPT-2 and "
            "Llama checkpoints"
        )
    return model
