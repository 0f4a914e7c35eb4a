"""A dask cluster as a backend of joblib's; importing this needs the package `distributed`."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import distributed
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker
from joblib._dask import DaskDistributedBackend

from supertf.errors import UserError

PATIENCE = 10  # seconds to wait for the scheduler, and for a first worker


class Backend(DaskDistributedBackend):
    """joblib's, which waits for ever for a task whose worker died, and does not use a cluster of one core."""

    def effective_n_jobs(self, n_jobs: int) -> int:
        """How many tasks run at a time; one would make joblib call the function in this process."""
        return max(2, super().effective_n_jobs(n_jobs))

    def submit(self, func: Any, callback: Callable[[Any], Any]) -> "Future[Any]":
        """Have a task done; `callback` gets its result, and also what dask has to say in place of one."""
        future = super().submit(func, callback)
        future.add_done_callback(lambda done: done.exception() and callback(done.exception()))
        return future


@contextlib.contextmanager
def cluster(scheduler: str) -> Iterator[Backend]:
    """Connect to a scheduler for as long as the `with` block takes; see `engine.connected`."""
    try:
        client = distributed.Client(scheduler, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(f"no dask scheduler answers at {scheduler}: {error}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except distributed.TimeoutError as error:
            raise UserError(
                f"the dask scheduler at {scheduler} has no workers: dask worker {scheduler} --nthreads 1"
            ) from error
        try:
            yield Backend(client=client)
        except KilledWorker as error:
            raise UserError(
                f"a cell ended {error.allowed_failures + 1} workers of the cluster, most likely for lack of "
                "memory: see their logs; what was finished is kept"
            ) from error
        except (distributed.CancelledError, CommClosedError) as error:
            raise UserError(f"lost the dask scheduler at {scheduler}: what was finished is kept") from error
