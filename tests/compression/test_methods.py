"""Every way of pruning by its name does what its own module does."""

import pytest
import torch
from planted import IDS, LENGTH, PLANTED

from supertf.compression.methods import FAMILY, needs_text
from supertf.compression.pruning.dynamic import dynamically_pruned, plan_dynamic
from supertf.compression.pruning.static import plan_static
from supertf.compression.pruning.structured import plan_structured
from supertf.compression.verbs import calibration_for, plan_pruning, pruned
from supertf.data.text import Text

pytestmark = pytest.mark.usefixtures("one_thread", "unchanged")


@pytest.mark.parametrize("method", FAMILY)
def test_a_method_by_name_computes_what_its_own_module_does(model, calibration, sizes, method):
    prepared = calibration_for(model, method, Text(IDS, LENGTH))
    assert (prepared is not None) == needs_text(method)
    ours = plan_pruning(model, method, sparsity=0.5, calibration=prepared, watch=[PLANTED], progress=False)
    if FAMILY[method] == "dynamic":
        theirs = plan_dynamic(model, method, 0.5, sizes[method])
    else:
        plan = plan_static if FAMILY[method] == "static" else plan_structured
        theirs = plan(model, method, 0.5, calibration, watch=[PLANTED], progress=False)
        assert ours.fates == theirs.fates
    alone = dynamically_pruned if FAMILY[method] == "dynamic" else pruned
    idx = IDS[None, :LENGTH]
    with torch.no_grad():
        dense = model(idx).logits
        with pruned(model, ours) as skipped:
            by_name = model(idx).logits
        with alone(model, theirs):
            expected = model(idx).logits
    assert (skipped is not None) == (FAMILY[method] == "dynamic")
    assert torch.equal(by_name, expected)
    assert not torch.equal(by_name, dense)
