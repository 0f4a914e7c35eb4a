"""Super weights: planted ones are found at their coordinates, in every family and one after the other."""

from types import SimpleNamespace

import pytest
import torch
from families import EVERY, PROMPT, SANDWICH, plant, tiny
from planted import CONFIG
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from supertf.data.tokenizer import load_tokenizer
from supertf.model.gpt import GPT
from supertf.model.weight_matrices import block_name, output_projections
from supertf.superweights import find
from supertf.superweights.edit import scaled_weights
from supertf.superweights.find import candidates, find_spikes, search

pytest.importorskip("transformers")
COORDINATES = [(0, 0, 0), (1, 7, 21), (2, 15, 39), (0, 15, 0), (2, 0, 39)]


def planted(family, *coordinates, **settings):
    model = tiny(family)
    for coordinate in coordinates:
        plant(model, coordinate, **settings)
    return model


@pytest.mark.parametrize("coordinate", COORDINATES)
@pytest.mark.parametrize("family", EVERY)
def test_a_planted_weight_is_found_at_its_coordinates_by_both_rules(family, coordinate):
    spikes = find_spikes(planted(family, coordinate), PROMPT)
    for found in (candidates(spikes), candidates(spikes, threshold=None, ratio=20.0)):
        assert [spike.coordinate for spike in found] == [coordinate]
        assert found[0].input.channel == coordinate[2]
        assert found[0].weight == 3.0
        assert found[0].share == pytest.approx(1.0, abs=0.01)
        assert found[0].input.value > 899
        assert found[0].input.token == found[0].output.token


@pytest.mark.parametrize("family", EVERY)
def test_what_is_added_is_what_the_stream_loses_without_the_mlp(family):
    model = planted(family, (1, 7, 21))
    for spike, projection in zip(find_spikes(model, PROMPT), output_projections(model), strict=True):
        after = []
        block = model.get_submodule(block_name(projection)).register_forward_hook(
            lambda _, inputs, output, after=after: after.append(
                output[0] if type(output) is tuple else output
            )
        )
        with torch.inference_mode():
            model(torch.tensor([PROMPT]))
            silent = projection.module.register_forward_hook(lambda _, inputs, output: output * 0)
            model(torch.tensor([PROMPT]))
        block.remove()
        silent.remove()
        lost = (after[0] - after[1])[0]  # (T, C)
        assert spike.added.value == pytest.approx(
            lost[spike.added.token, spike.added.channel].item(), rel=1e-3
        )
        assert abs(spike.added.value) == pytest.approx(lost.abs().max().item(), rel=1e-3)
        follows = family in SANDWICH or family == "Granite"
        assert (spike.added != spike.output) == follows and (spike.gain != 1.0) == follows


@pytest.mark.parametrize("family", SANDWICH)
def test_behind_a_norm_the_spike_is_that_of_the_stream(family):
    model = planted(family, (1, 7, 21), weight=0.1, height=30.0)
    [found] = candidates(find_spikes(model, PROMPT))  # though the projection shows 30 and 3
    assert found.coordinate == (1, 7, 21) and found.share == pytest.approx(1.0, abs=0.01)
    assert abs(found.input.value) < 50 and abs(found.output.value) < 5
    assert abs(found.added.value) > 300 and found.gain > 50
    assert search(model, PROMPT).removed == [(1, 7, 21)]
    small = planted(family, (1, 7, 21), gain=2.0)  # 900 and 2,700, of which the stream gets 8
    assert candidates(find_spikes(small, PROMPT)) == []


def test_a_norm_that_turns_a_channel_round_does_not_change_which_weight_carries_it():
    model = planted("Olmo2", (1, 7, 21), gain=-100.0)
    [found] = candidates(find_spikes(model, PROMPT))
    assert found.coordinate == (1, 7, 21) and found.added.value < 0 < found.output.value


def test_nothing_listens_any_more_after_a_pass_also_one_that_fails():
    model = planted("Olmo2", (1, 7, 21))
    block = model.model.model.layers[1]

    def fail(*_):
        raise RuntimeError("in the norm")

    handle = block.post_feedforward_layernorm.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="in the norm"):
        find_spikes(model, PROMPT)
    handle.remove()
    assert torch.overrides._get_current_function_mode() is None
    find_spikes(model, PROMPT)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("family", EVERY)
def test_without_a_planted_weight_nothing_is_found(family):
    spikes = find_spikes(tiny(family), PROMPT)
    assert [spike.layer for spike in spikes] == [0, 1, 2]
    assert candidates(spikes) == candidates(spikes, threshold=None, ratio=20.0) == []


def test_the_scale_free_rule_does_not_depend_on_the_scale():
    small = planted("supertf GELU", (1, 7, 21), height=15.0)
    spikes = find_spikes(small, PROMPT)
    assert candidates(spikes) == []
    assert [spike.coordinate for spike in candidates(spikes, threshold=None, ratio=20.0)] == [(1, 7, 21)]
    assert candidates(spikes, threshold=50.0, ratio=20.0) == []


def test_candidates_are_ordered_by_the_smaller_peak_and_must_exceed_both_limits():
    spikes = find_spikes(planted("Llama", (0, 3, 5), (1, 7, 21), (2, 4, 4)), PROMPT)
    sizes = [spike.size for spike in candidates(spikes, threshold=0.0)]
    assert sizes == sorted((spike.size for spike in spikes), reverse=True)
    largest = candidates(spikes)[0]
    assert largest.size == min(abs(largest.input.value), abs(largest.output.value))
    assert candidates(spikes, threshold=largest.size) == []
    assert candidates(spikes, threshold=None, ratio=max(spike.ratio for spike in spikes)) == []


@pytest.mark.parametrize("tokens", [2, 1024])
def test_layers_may_have_different_widths(tokens):
    class Uneven(torch.nn.Module):
        config, device = SimpleNamespace(vocab_size=9, n_ctx=1024), "cpu"

        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList()
            for width in (5, 5, 6, 6, 8):
                block, block.mlp = torch.nn.Module(), torch.nn.Module()
                block.mlp.down_proj = torch.nn.Linear(width, 3)
                self.layers.append(block)

        def forward(self, idx, last_only):
            for layer, block in enumerate(self.layers):
                x = torch.ones(1, idx.shape[1], block.mlp.down_proj.in_features)
                x[..., layer] = 10.0 + layer
                block.mlp.down_proj(x)

    spikes = find_spikes(Uneven(), [1] * tokens)
    assert [(spike.input.value, spike.input.channel) for spike in spikes] == [(10.0 + i, i) for i in range(5)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["Llama", "GPT2", "OPT", "Olmo2", "supertf SwiGLU", "supertf GELU"])
def test_two_planted_weights_come_one_after_the_other_then_the_spikes_are_gone(family, dtype):
    model = planted(family, (0, 3, 5))
    plant(model, (0, 9, 5), weight=2.0)  # a second weight that reads the same channel
    model.to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = search(model, PROMPT)
    assert found.removed == [(0, 3, 5), (0, 9, 5)] == [spike.coordinate for spike in found]
    assert found.spikes_gone and [found.round_of(spike) for spike in found] == [1, 2]
    assert found.rounds[-1].candidates == [] and len(found.rounds[-1].spikes) == 3
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("family", ["Llama", "GPT2", "OPT", "Falcon", "Phi", "supertf GELU"])
def test_a_weight_taken_out_of_the_pass_is_as_good_as_a_zero_in_the_matrix(family):
    gone = [(0, 3, 5), (1, 7, 21), (1, 7, 4)]
    model = planted(family, *gone[:2])
    found = find_spikes(model, PROMPT, removed=gone)
    with scaled_weights(model, gone):
        expected = find_spikes(model, PROMPT)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.coordinate == theirs.coordinate
        assert (ours.weight, ours.share) == pytest.approx((theirs.weight, theirs.share), rel=1e-4)
        for side in ("input", "output"):
            a, b = getattr(ours, side), getattr(theirs, side)
            assert (a.token, a.channel) == (b.token, b.channel)
            assert (a.value, a.ratio) == pytest.approx((b.value, b.ratio), rel=1e-4)


def test_rounds_that_end_before_the_spikes_do_are_visible():
    model = planted("Llama", (0, 3, 5), (2, 4, 4))
    found = search(model, PROMPT, rounds=1)
    assert len(found.rounds) == 1 and found.removed and not found.spikes_gone
    assert search(model, PROMPT, rounds=8).spikes_gone


def test_a_matrix_tied_to_another_which_cannot_be_edited_is_searched():
    model = planted("Llama", (1, 7, 21))
    layers = model.model.model.layers
    layers[2].mlp.down_proj.weight = layers[1].mlp.down_proj.weight
    assert search(model, PROMPT).removed[0] == (1, 7, 21)


class Allocated(TorchDispatchMode):
    """Counts the bytes of every new tensor that operations make."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        known = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if is_tensor(leaf)}
        for leaf in tree_leaves(result):
            if is_tensor(leaf) and leaf.untyped_storage().data_ptr() not in known:
                self.bytes += leaf.untyped_storage().nbytes()
        return result


def is_tensor(leaf):
    return isinstance(leaf, torch.Tensor)


def allocated(run):
    with Allocated() as counter:
        run()
    return counter.bytes


def test_on_a_long_prompt_hardly_anything_is_allocated_beside_the_pass():
    """Next to nothing per token, where one layer's input and output alone would be 4 (K + C) = 224 bytes."""
    torch.manual_seed(0)
    model = GPT(CONFIG.__class__(**{**CONFIG.to_dict(), "n_ctx": 2048})).eval()
    extra = []
    for tokens in (1024, 2048):
        prompt = [3] * tokens
        idx = torch.tensor([prompt])
        with torch.inference_mode():
            bare = allocated(lambda idx=idx: model(idx, last_only=True))
        extra.append(allocated(lambda prompt=prompt: find_spikes(model, prompt)) - bare)
    ids = 2 * 8 * 1024  # the prompt as a tensor, for the model and for its check
    columns = CONFIG.n_layer * 2 * 2 * 4 * 1024  # where a peak's channel is searched for its token
    assert extra[1] - extra[0] <= ids + columns


@pytest.mark.real_model
def test_the_known_super_weight_of_smollm2_comes_first(smollm2):
    spikes = find_spikes(smollm2, load_tokenizer("smollm2-135m").encode(find.PROMPT))
    first = candidates(spikes)[0]
    assert first.coordinate == (11, 507, 1229)
    assert first.weight == pytest.approx(5.876, abs=1e-3)
    assert first.input.value == pytest.approx(2996, rel=0.01)
    assert first.output.value == pytest.approx(24022, rel=0.01)
    assert first.share == pytest.approx(17604 / 24022, rel=0.01)
    assert (first.input.token, first.output.token) == (0, 0)
    assert (28, 507, 678) in [spike.coordinate for spike in candidates(spikes)]
