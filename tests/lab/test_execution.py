"""Kernels: one that does not start is a problem of its notebook; a message is read although its announcement
was taken by another."""

import asyncio
import time

import pytest
import zmq
import zmq.asyncio
from jupyter_client.session import Session
from nbformat.v4 import new_code_cell, new_notebook

from supertf.lab.book.execution import PatientChannel, PatientClient, execute


async def after_a_lost_announcement(kind, folder) -> dict:
    """What a channel gets of a message that comes just before one is sent on its socket.

    jupyter_client's own channel gets it only when its timeout is over.
    """
    session, context = Session(key=b""), zmq.asyncio.Context()
    with zmq.Context() as plain, plain.socket(zmq.ROUTER) as kernel, context.socket(zmq.DEALER) as client:
        kernel.bind(f"ipc://{folder}/lost")
        client.connect(f"ipc://{folder}/lost")
        channel = kind(client, session)
        channel.send(session.msg("hello"))
        address, *_ = kernel.recv_multipart()
        waiting = asyncio.ensure_future(channel.get_msg(timeout=600))
        await asyncio.sleep(0.1)  # it waits now
        session.send(kernel, "reply", ident=address)
        time.sleep(0.1)  # the reply arrives while nobody looks
        channel.send(session.msg("another"))
        try:
            return await asyncio.wait_for(waiting, 60)
        finally:
            context.destroy(linger=0)


def test_a_reply_is_read_whose_announcement_was_lost(tmp_path):
    found = asyncio.run(after_a_lost_announcement(PatientChannel, tmp_path))
    assert found["msg_type"] == "reply"


@pytest.mark.slow
def test_a_kernel_that_does_not_start_is_a_problem_of_its_notebook(tmp_path):
    (tmp_path / "ipykernel_launcher.py").write_text("raise SystemExit(1)")  # found before the real one
    result = execute(
        new_notebook(cells=[new_code_cell("1 + 1")]), tmp_path / "out.ipynb", {}, set(), tmp_path
    )
    assert result.problems == ["cell `# before the first cell`: Kernel died before replying to kernel_info"]


@pytest.mark.slow
def test_notebooks_are_executed_through_it(tmp_path, monkeypatch):
    asked, get = [], PatientChannel.get_msg

    async def get_msg(self, timeout=None):
        asked.append(self)
        return await get(self, timeout)

    monkeypatch.setattr(PatientChannel, "get_msg", get_msg)
    execute(new_notebook(cells=[new_code_cell("1 + 1")]), tmp_path / "out.ipynb", {}, set(), tmp_path)
    assert asked and PatientClient.shell_channel_class.klass is PatientChannel
