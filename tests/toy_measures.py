"""A measure for tests of the experiment machinery; the fixture `toy` copies it into a module of its own."""

import os
import random
import signal
import time

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


def no_dict(settings, seed, lengths):
    return [1.0]


def refuse():
    raise UserError("there is no room")


def interrupt():
    signal.raise_signal(signal.SIGINT)


def interrupt_twice():
    interrupt()
    interrupt()
    raise AssertionError("the second Ctrl-C stops at once")


def sleep():
    time.sleep(60)


def die():
    os._exit(3)


mishaps = {
    "refuse": refuse,
    "interrupt": interrupt,
    "interrupt twice": interrupt_twice,
    "sleep": sleep,
    "die": die,
}
