"""Sweeps on a real dask cluster: its workers are processes on this machine, and talk over loopback only."""

import os
import sys

import distributed
import pytest

from supertf.errors import UserError
from supertf.experiments.sweep.cells import measure_of
from supertf.experiments.sweep.description import cell_hash
from supertf.experiments.sweep.runner import run

pytestmark = pytest.mark.slow  # workers import torch


@pytest.fixture
def cluster(toy, tmp_path):
    """A scheduler with two workers, which can import the toy's measure."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        local_directory=str(tmp_path / "workers"),
        scheduler_kwargs={"allowed_failures": 1},
    ) as started:
        yield started


@pytest.fixture
def there(cluster):
    """Options of `run` for that cluster."""
    return {"backend": "dask", "scheduler": cluster.scheduler_address, "progress": False}


def without_pids(results) -> list[dict]:
    return [{**one["result"], "pid": None} for one in results.cells]


def test_a_cluster_gives_the_same_results_and_they_are_kept_here(toy, there, tmp_path):
    here = run(toy, progress=False)
    measured = run(toy, folder=tmp_path / "there", **there)
    assert without_pids(measured) == without_pids(here)
    assert os.getpid() not in {one["result"]["pid"] for one in measured.cells}
    assert {path.stem for path in (tmp_path / "there" / "toy").iterdir()} == set(map(cell_hash, toy.cells()))
    assert run(toy, folder=tmp_path / "there", **there) == measured
    assert run(toy, folder=tmp_path / "there", progress=False).cells == measured.cells


def test_what_differs_on_a_cluster_or_goes_wrong_there_is_named(toy, there, tmp_path):
    with pytest.raises(UserError, match=r"^toy, (low|high), seed 1: there is no room$"):
        run(toy, changes={"mishap": ["refuse", 1]}, **there)
    with distributed.Client(there["scheduler"]) as client:
        client.run(measure_of, toy.measure)
    source = tmp_path / "toy_lab" / "measures.py"
    source.write_text(source.read_text().replace("gauss(0, 0.1)", "gauss(0, 0.2)"))
    sys.modules.pop("toy_lab.measures", None)  # loaded anew here, and not there
    with pytest.raises(UserError, match=r"it would be measured with other code of toy_lab\.measures, since"):
        run(toy, **there)


def test_a_killed_worker_s_cell_is_measured_by_another_unless_it_kills_that_too(toy, there, tmp_path):
    measured = run(toy, changes={"mishap": ["die once", 1]}, **there)
    assert (tmp_path / "toy_lab" / "once").exists()
    assert without_pids(measured) == without_pids(run(toy, progress=False))
    changes = {"mishap": ["die", 2]}
    with pytest.raises(UserError, match="a cell ended 2 workers of the cluster, most likely for lack of mem"):
        run(toy, changes=changes, **there)


def test_no_workers_no_scheduler_and_no_package_are_one_line(toy, monkeypatch):
    monkeypatch.setattr("supertf.experiments.sweep.dask_cluster.PATIENCE", 1)
    with (
        distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as empty,
        pytest.raises(UserError, match=r"has no workers: dask worker tcp://127.* --nthreads 1"),
    ):
        run(toy, backend="dask", scheduler=empty.scheduler_address)
    with pytest.raises(UserError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:9: "):
        run(toy, backend="dask", scheduler="tcp://127.0.0.1:9")
    with pytest.raises(UserError, match="no dask scheduler answers at ftp://nowhere: "):
        run(toy, backend="dask", scheduler="ftp://nowhere")
    monkeypatch.delitem(sys.modules, "supertf.experiments.sweep.dask_cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"backend 'dask' needs a package \(.*distributed.*pip install dist"):
        run(toy, backend="dask", scheduler="tcp://127.0.0.1:9")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "dask"}, "dask needs its scheduler's address, such as tcp://127.0.0.1:8786"),
        ({"scheduler": "tcp://127.0.0.1:8786"}, "only dask takes one"),
        ({"backend": "nonsense"}, "backend 'nonsense': Invalid backend: nonsense, expected one of "),
        ({"backend": "multiprocessing", "jobs": 2}, "does not support return_as=generator_unordered"),
    ],
)
def test_a_backend_that_cannot_run_a_sweep_is_refused(toy, options, message):
    with pytest.raises(UserError, match=message):
        run(toy, **options)
