"""A result's code: every module that a measure reaches counts, and no comment does."""

import ast
import subprocess
import sys

import pytest

from supertf.errors import UserError
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.experiments.sweep.cells import module_of
from supertf.experiments.sweep.code_identity import code_of, differing, imports, named, plain


def test_all_of_supertf_that_measures_load_is_among_their_code():
    """What Python really loads, in a process of its own, is a lower bound: functions import more."""
    measures = sorted({module_of(one.measure) for one in EXPERIMENTS.values()})
    code = f"import sys, {', '.join(measures)}; print(*(one for one in sys.modules if one[:7] == 'supertf'))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split()) - {"supertf.experiments.sweep.description"}
    assert loaded <= set().union(*map(code_of, measures))


def test_imports_are_found_wherever_they_are():
    tree = ast.parse(
        "import a.b as c\n"
        "def f():\n    from . import near\n    from ..up import thing\n    from supertf import load_model\n"
    )
    found = set(imports(tree, "pack.inner"))
    assert {"a", "a.b", "pack.inner.near", "pack.up", "pack.up.thing", "supertf.model.pretrained"} <= found


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("x = 1", "# why\nx = (\n  1)", True),
        ('def f():\n    """Why."""\n    return 1', "def f():\n    return 1", True),
        ('class A:\n    """Why."""\n    x = 1', 'class A:\n    """How."""\n    x = 1', True),
        ("x = 1", "x = True", False),
        ("x = 1", "x = 1.0", False),
        ("def f(): return", "def f(): return None", False),
        ("f(*a)", "f(**a)", False),
        ('x = f"{a}"', 'x = f"{a!r}"', False),
        ("{None: 1}", "{**None}", False),
    ],
)
def test_only_what_runs_counts(one, other, same):
    assert (plain(ast.parse(one)) == plain(ast.parse(other))) == same


def test_differences_are_named():
    assert differing({"a": "1", "b": "1"}, {"b": "2", "c": "1"}) == ["a", "b", "c"]
    assert named(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_a_module_without_a_source_is_refused():
    with pytest.raises(UserError, match=r"supertf\.nothing has no source file"):
        code_of("supertf.nothing")
