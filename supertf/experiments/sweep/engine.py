"""Where cells are measured: in this process, in others beside it, or by the workers of a cluster.

joblib does it: its backend "loky" here, "dask" on a cluster, or any other that is registered with it and
hands over results one by one (its "multiprocessing" does not, nor does ray's).
"""

import contextlib
import signal
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor
from joblib.parallel import ParallelBackendBase

from supertf.errors import UserError


@contextlib.contextmanager
def connected(backend: str, scheduler: str | None) -> Iterator[str | ParallelBackendBase]:
    """What `unordered` takes as its backend.

    Args:
        backend: a name that joblib knows.
        scheduler: the address of dask's scheduler, such as "tcp://127.0.0.1:8786"; with "dask" only.

    Raises:
        UserError: one of both without the other, `distributed` is not installed, no scheduler answers there,
            it has no workers, or, later, it is lost or its workers die.
    """
    if (backend == "dask") != (scheduler is not None):
        raise UserError(
            f"backend {backend!r} and scheduler {scheduler!r}: dask needs its scheduler's address, such as "
            "tcp://127.0.0.1:8786, and only dask takes one"
        )
    if scheduler is None:
        yield backend
        return
    try:
        from supertf.experiments.sweep.dask_cluster import cluster
    except ImportError as error:
        raise UserError(f"backend 'dask' needs a package ({error}): pip install distributed") from error
    with cluster(scheduler) as connection:
        yield connection


def unordered(
    function: Callable[[Any], Any], arguments: Iterable[Any], jobs: int, backend: str | ParallelBackendBase
) -> Generator[Any, None, None]:
    """Call a function with each argument, and give the results as they come.

    `jobs` processes share the cores; one job of "loky" runs in this process, and gets its argument when it is
    due. When the iterator is closed, or an exception leaves it, processes here are ended at once, and a
    cluster is given nothing more. What is lost then is what was being computed.

    Raises:
        UserError: a backend that joblib does not have, or a process that died.
    """
    calls = (joblib.delayed(function)(argument) for argument in arguments)
    try:
        parallel = joblib.Parallel(
            n_jobs=jobs,
            backend=backend,
            return_as="generator_unordered",
            batch_size=1,
            # A cluster gets everything, so that workers that come later have something to do. Processes here
            # get one at a time: if this one is killed, they end what they do, and five minutes later.
            pre_dispatch="n_jobs" if backend == "loky" else "all",
            # Ctrl-C in a terminal reaches every process: it is for this one, which ends the others.
            initializer=signal.signal,
            initargs=(signal.SIGINT, signal.SIG_IGN),
        )
    except ValueError as error:
        raise UserError(f"backend {backend!r}: {error}") from error
    results = parallel(calls)
    try:
        for result in results:  # noqa: UP028 - joblib would warn of what is cancelled, see below
            yield result
    except BrokenProcessPool as error:
        raise UserError(
            "a process of the sweep died, most likely for lack of memory: try fewer jobs; what was finished "
            "is kept"
        ) from error
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.close()
        if backend == "loky" and jobs != 1:  # joblib would keep them, with the code and models they have
            get_reusable_executor().shutdown(kill_workers=True)
