"""The verbs that people import: all there, documented, and their examples do what they say."""

import doctest
import functools
import importlib

import pytest

import supertf

VERBS = (
    *("load", "read_tokens", "find_super_weights", "ablate", "prune", "pruned", "quantize", "quantized"),
    *("compare", "generate", "perplexity", "train", "attention_entropy"),
)
ROOMS = ("data", "model", "analysis", "superweights", "compression", "training")


def test_dir_shows_every_verb():
    assert set(VERBS) <= set(dir(supertf))
    assert all(callable(getattr(supertf, name)) for name in VERBS)


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_says_what_it_takes_gives_and_refuses(name):
    text = getattr(supertf, name).__doc__
    assert all(f"{part}:\n" in text for part in ("Args", "Raises", "Example")), name


@pytest.mark.slow
@pytest.mark.real_model
@pytest.mark.parametrize("name", VERBS)
def test_the_example_of_a_verb_runs(name, smollm2, one_thread):
    verb = getattr(supertf, name)
    names = {}
    for room in ROOMS:
        module = importlib.import_module(f"supertf.{room}")
        names |= {own: getattr(module, own) for own in module.__all__}
    names |= {own: getattr(supertf, own) for own in dir(supertf) if own in supertf.__all__}
    names["load"] = functools.cache(supertf.load)
    found = doctest.DocTestFinder(recurse=False).find(verb, name, globs=names)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert sum(len(one.examples) for one in found) >= 2, f"{name} has no example"
    assert all(runner.run(one).failed == 0 for one in found)
