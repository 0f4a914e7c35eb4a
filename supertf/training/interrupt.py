"""Ctrl-C at a convenient moment."""

import signal
import threading
from types import FrameType
from typing import Any


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM inside a `with` block into `requested`; the second acts as usual."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.__exit__()
