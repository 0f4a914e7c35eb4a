"""All exercises, by notebook."""

from supertf.errors import UserError
from supertf.lab.exercises import (
    inside,
    longer_than_trained,
    no_positions,
    pruning,
    quantization,
    scalable_softmax,
    small_gpt,
    smaller_and_faster,
    start_here,
    super_weights,
    train_on_a_gpu,
)
from supertf.lab.exercises.checking import Exercise

EXERCISES: dict[str, tuple[Exercise, ...]] = {
    "00": start_here.EXERCISES,
    "01": small_gpt.EXERCISES,
    "02": scalable_softmax.EXERCISES,
    "03": no_positions.EXERCISES,
    "04": longer_than_trained.EXERCISES,
    "05": super_weights.EXERCISES,
    "06": inside.EXERCISES,
    "07": pruning.EXERCISES,
    "08": smaller_and_faster.EXERCISES,
    "09": quantization.EXERCISES,
    "10": train_on_a_gpu.EXERCISES,
}


def exercise(name: str) -> Exercise:
    """By its name.

    Raises:
        UserError: there is none of that name.
    """
    for one in (one for several in EXERCISES.values() for one in several):
        if one.name == name:
            return one
    raise UserError(f"there is no exercise {name!r}; choose from {', '.join(names())}")


def names() -> list[str]:
    """Of all exercises, in the order of the notebooks."""
    return [one.name for several in EXERCISES.values() for one in several]
