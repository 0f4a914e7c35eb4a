"""The free scale: curves are recognised, and training reaches the p_n that are fitted."""

import math

import pytest

from supertf.errors import UserError
from supertf.experiments.free_scale import fits, scale
from supertf.experiments.sweep.catalogue import experiment

N = [16, 24, 40, 64, 100, 256, 500, 1024]
CURVES = {
    "log n": lambda n: 0.2 * math.log(n) + 0.1,
    "power of n": lambda n: 0.3 * n**0.4,
    "square root of n": lambda n: 0.3 * math.sqrt(n) + 2,
    "linear in n": lambda n: 0.01 * n + 0.5,
}


@pytest.mark.parametrize("name", CURVES)
def test_each_curve_fits_its_own_points_best(name):
    found = fits(N, [CURVES[name](n) for n in N])
    assert found[name]["r2"] == pytest.approx(1)
    assert max(found, key=lambda other: found[other]["r2"]) == name
    if name == "log n":
        assert (found[name]["a"], found[name]["b"]) == pytest.approx((0.2, 0.1))
    if name == "power of n":
        assert (found[name]["a"], math.exp(found[name]["b"])) == pytest.approx((0.4, 0.3))


@pytest.mark.parametrize("p", [[1.0, 1.0, 1.0], [1.0, -0.5, 2.0]])
def test_scales_that_no_curve_can_be_fitted_to_are_refused(p):
    with pytest.raises(UserError, match="positive scales that differ"):
        fits([8, 16, 32], p)


def test_a_cell_fits_exactly_the_scales_that_queries_used(one_thread):
    settings = experiment("free_scale").narrowed(changes={"steps": 6}).settings
    found = scale(settings, 0, (16, 40))
    assert found["n"] == [17, 18, 19, 20, 41, 42, 43, 44]
    assert all(value != 1 for value in found["p"])
    assert found["fits"] == fits(found["n"], found["p"])
