"""A measure for tests of the experiment machinery; the fixture `toy` copies it into a module of its own."""

import os
import random
import signal
import time
from pathlib import Path

from supertf.errors import UserError

CALLS = []


def levels(settings, seed, lengths):
    CALLS.append((settings["level"], seed))
    mishap, at = settings["mishap"] or (None, None)
    if at == seed:
        mishaps[mishap]()
    noise = random.Random(seed)
    return {
        "accuracy": {length: settings["level"] + noise.gauss(0, 0.1) for length in lengths},
        "curve": [noise.random() for _ in range(3)],
        "loss": None if settings["level"] == 1 else settings["steps"] / 3,
        "pid": os.getpid(),
    }


def not_json(settings, seed, lengths):
    return {"loss": float("nan")}


def waits(settings, seed, lengths):
    CALLS.append((settings["level"], seed))
    return {"waiting": "for a hub"}


def alone(settings, seed, lengths):
    CALLS.append(seed)
    time.sleep(0.001)
    assert CALLS.pop() == seed and not CALLS
    return {}


def refuse():
    raise UserError("there is no room")


def interrupt():
    signal.raise_signal(signal.SIGINT)


def once(mishap):
    """Only the first time, in whatever process that is."""
    mark = Path(__file__).with_name("once")
    if not mark.exists():
        mark.touch()
        mishap()


def sleep():
    time.sleep(60)


def die():
    os._exit(3)


mishaps = {
    "refuse": refuse,
    "interrupt": interrupt,
    "interrupt once": lambda: once(interrupt),
    "sleep": sleep,
    "die": die,
    "die once": lambda: once(die),
}
