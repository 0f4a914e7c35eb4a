"""Recipes: each is tried, small, and a smaller one is of the same kind."""

import dataclasses

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tiny import tiny_tokens

from supertf.errors import UserError
from supertf.model.gpt import GPT
from supertf.training.loop import train
from supertf.training.recipes.catalogue import RECIPES, recipe
from supertf.training.recipes.text import token_files

pytestmark = pytest.mark.usefixtures("one_thread")
EVERY = [(name, variant) for name, one in RECIPES.items() for variant in one.variants]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return tiny_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_every_variant_of_every_recipe_trains_when_it_is_made_small(name, variant, tokens):
    small = recipe(name, 1e-5)
    config = dataclasses.replace(small.of(variant), vocab_size=257)
    quick = {"steps": 2, "batch_size": 2, "grad_accumulation": 1, "length": 8, "validation_windows": 2}
    settings = dataclasses.replace(small.for_processes(1), **quick, device="cpu", progress=False)
    result = train(config, *tokens, settings)
    assert result.step == 2 and len(result.metrics) == 2


def test_the_sizes_are_those_that_their_names_say():
    gpt2 = recipe("gpt2-small")
    assert 123e6 < GPT(gpt2.of()).num_parameters() < 125e6
    assert gpt2.tokens_per_step == recipe("gpt2-small-4096").tokens_per_step == 2**19
    assert gpt2.for_processes(1).steps == 4578
    assert {name for name in gpt2.variants if name.startswith("ssmax")} == {
        "ssmax rope",
        "ssmax p-rope",
        "ssmax none",
    }


@given(st.sampled_from(list(RECIPES)), st.floats(1e-6, 1))
def test_a_smaller_recipe_is_no_larger_and_still_a_decoder(name, scale):
    whole, small = recipe(name), recipe(name, scale)
    assert small.variants == whole.variants
    for field in ("n_layer", "n_head", "n_embd", "n_ctx"):
        assert getattr(small.config, field) <= getattr(whole.config, field)
    assert small.config.n_layer >= 2 and small.config.head_dim % 2 == 0
    assert 1 <= small.tokens <= whole.tokens and small.tokens_per_step <= whole.tokens_per_step
    for variant in small.variants:
        small.of(variant)  # which refuses what does not fit together


@pytest.mark.parametrize("processes", [1, 2, 4, 32])
def test_more_processes_share_the_windows_of_a_step(processes):
    one = recipe("gpt2-small")
    settings = one.for_processes(processes)
    assert settings.grad_accumulation * processes == one.settings.grad_accumulation
    assert settings.steps == 4578


def test_token_files_are_made_once_and_stop_at_the_tokens_of_the_recipe(tmp_path):
    (tmp_path / "book.txt").write_text("It was a line of a book, and then another.\n\n" * 20_000)
    small = dataclasses.replace(recipe("original-small", 1e-5), tokenizer="bytes", tokens=100_000)
    train_file, validation = token_files(small, tmp_path / "data", str(tmp_path / "book.txt"), progress=False)
    assert len(train_file) + len(validation) >= 100_000 and len(train_file) > 5 * len(validation)
    made = train_file.path.stat().st_mtime_ns
    for data in (None, str(tmp_path / "book.txt")):
        again, _ = token_files(small, tmp_path / "data", data, progress=False)
        assert again.path.stat().st_mtime_ns == made
    with pytest.raises(UserError, match=r"has tokens of local book\.txt, not of .*: choose another folder"):
        token_files(small, tmp_path / "data", "prose:train", progress=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: recipe("gpt3"), "unknown recipe 'gpt3'; choose from gpt2-small, "),
        (lambda: recipe("gpt2-small", 0), "scale is 0, expected more than 0 and at most 1"),
        (lambda: recipe("gpt2-small", 2), "scale is 2, "),
        (lambda: recipe("gpt2-small").of("rope"), "gpt2-small has no variant 'rope'; choose from softmax"),
    ],
)
def test_a_mistake_is_one_line(call, message):
    with pytest.raises(UserError, match=message):
        call()
