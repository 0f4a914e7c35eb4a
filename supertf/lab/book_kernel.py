"""The client through which notebooks are executed: it looks for messages again and again.

jupyter_client's waits for zmq's word that a message is there. zmq gives that word once, and a message sent on
the same channel at that moment, as nbclient does for every output inside a widget, takes it: the reply then
lies there unread until the time for the cell is up. On busy machines this happens.
"""

import time
from queue import Empty
from typing import Any

from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from traitlets import Type

LOOK_AGAIN = 1.0  # seconds


class PatientChannel(AsyncZMQSocketChannel):
    """A channel that does not rely on being woken: every new wait begins with a look."""

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message; `Empty` after so many seconds without one."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LOOK_AGAIN if end is None else min(LOOK_AGAIN, max(0.0, end - time.monotonic()))
            try:
                return await super().get_msg(left)
            except Empty:
                if end is not None and time.monotonic() >= end:
                    raise


class PatientClient(AsyncKernelClient):
    """jupyter_client's, with such channels for replies and outputs."""

    shell_channel_class = Type(PatientChannel)
    iopub_channel_class = Type(PatientChannel)
