"""Executing notebooks: one by papermill, several side by side in processes with a share of the cores each."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from queue import Empty
from typing import Any, TypeVar

import nbformat
import papermill
import psutil
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from nbclient.exceptions import CellTimeoutError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets import Type
from traitlets.config import Config

from supertf.errors import UserError
from supertf.lab.book.executed import Result, outputs_of, where
from supertf.lab.book.executed import problems as problems_in
from supertf.lab.exercises.solved import MEMORY
from supertf.lab.notebook import FIGURES_MIME

CELL_SECONDS = 1800  # how long a cell takes is no matter of correctness: only after this it is given up
LANES = min(2, os.cpu_count() or 1)  # two notebooks on a core each are done sooner than one after the other
LOOK_AGAIN = 1.0  # seconds
Returned = TypeVar("Returned")


def execute(
    source: Path | NotebookNode,
    target: Path,
    parameters: dict[str, Any],
    statuses: set[str],
    folder: Path,
    cell_seconds: int = CELL_SECONDS,
) -> Result:
    """Run one notebook with papermill and look closely at what came out.

    Args:
        source: the notebook or its path.
        target: where the executed notebook is written.
        parameters: to set; the notebook must have them.
        statuses: those ("passed", "unsolved", "failed") that its exercise checks may have.
        folder: to run in.
        cell_seconds: after which a cell, or the kernel's start, is given up.

    Raises:
        UserError: the notebook has no such parameter. All else that goes wrong is in the result's problems.
    """
    notebook = nbformat.read(source, as_version=4) if isinstance(source, Path) else source
    check_known(notebook, target.stem, parameters)
    target.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    running = NotebookNode(source="# before the first cell")

    def begins(cell: NotebookNode, cell_index: int) -> None:
        nonlocal running
        running = cell
        with contextlib.suppress(NotImplementedError):  # Windows, where nbclient cannot take Ctrl-C either
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)  # it ends all, not one notebook

    problems = []
    with tempfile.TemporaryDirectory() as sockets:
        try:
            papermill.execute_notebook(
                notebook,
                target,
                parameters,
                kernel_name="python3",
                cwd=folder,
                start_timeout=cell_seconds,
                timeout=cell_seconds,
                on_cell_execute=begins,
                config=kernels(sockets),
                progress_bar=False,
            )
        except PapermillExecutionError as error:
            message = f"{error.ename}: {error.evalue}".strip()
            problems = [f"{where(error.source, error.exec_count)}: {message.splitlines()[0]}"]
        except CellTimeoutError:
            load = f"load average {psutil.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
            problems = [f"{where(running.source)}: timed out after {cell_seconds:,} s; {load}"]
        except RuntimeError as error:  # the kernel died, or did not start
            problems = [f"{where(running.source)}: {str(error).splitlines()[0]}"]
    seconds = time.monotonic() - start
    executed = nbformat.read(target, as_version=4)
    problems = problems or problems_in(executed, statuses)
    figures = {} if problems else dict(outputs_of(executed, FIGURES_MIME)[-1]["figures"])
    return Result(target.stem, seconds, executed, problems, figures)


def check_known(notebook: NotebookNode, name: str, parameters: dict[str, Any]) -> None:
    """`UserError` on a parameter that the notebook does not have; papermill would go on with the default."""
    known = papermill.inspect_notebook(notebook)
    if unknown := set(parameters) - set(known):
        raise UserError(f"{name} has no parameter {', '.join(sorted(unknown))}; it has {', '.join(known)}")


def kernels(folder: str) -> Config:
    """How kernels are spoken to: by `PatientClient`, and through files in `folder` where the system can.

    That needs not even the loopback network. Notebooks that run at the same time have a folder each.
    """
    settings = {"AsyncKernelManager": {"client_class": f"{__name__}.PatientClient"}}
    if os.name == "posix":
        settings["KernelManager"] = {"transport": "ipc", "ip": f"{folder}/k"}
    return Config(settings)


class PatientChannel(AsyncZMQSocketChannel):
    """A channel that does not rely on being woken: every new wait begins with a look.

    jupyter_client's waits for zmq's word that a message is there. zmq gives that word once, and a message
    sent on the same channel at that moment, as nbclient does for every output inside a widget, takes it: the
    reply then lies there unread until the time for the cell is up. On busy machines this happens.
    """

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:  # type: ignore[override]
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


def side_by_side(
    call: Callable[..., Returned], jobs: Sequence[tuple], lanes: int = LANES
) -> Generator[Returned, None, None]:
    """The results of `call(*job)` as they come, at most `lanes` at a time, begun in order.

    In processes, as papermill changes the working directory; they and their kernels get as many threads as
    leave each lane its share of the cores. When the caller closes this early, after Ctrl-C say, all end.
    """
    lanes = max(1, min(lanes, len(jobs)))
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // lanes)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        pool = stack.enter_context(ProcessPoolExecutor(lanes, context, _start, (threads, folder)))
        try:
            for future in as_completed([pool.submit(call, *job) for job in jobs]):
                yield future.result()
        except BaseException:
            for lane in multiprocessing.active_children():
                with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
                    for process in (*psutil.Process(lane.pid).children(recursive=True), lane):
                        process.kill()
            raise


def _start(threads: int, folder: str) -> None:
    """Prepare a lane's process, whose environment its kernels inherit; Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ[MEMORY] = str(Path(folder, "solved.json"))  # what is solved here is no reader's doing
