"""The entropy of attention, as a verb: the same numbers as the statistics', and a table that can be read."""

import doctest
import re

import pytest
import torch
from tiny import tiny_config

from supertf.analysis import attention_entropy, attention_stats, entropy, losses
from supertf.model.gpt import GPT


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return GPT(tiny_config(attention="ssmax")).eval()


def test_the_entropies_are_those_of_the_statistics_of_one_text_or_of_several(model):
    idx = torch.randint(0, 257, (3, 9), generator=torch.Generator().manual_seed(0))
    many, one = attention_entropy(model, idx), attention_entropy(model, idx[1].tolist())
    assert many.nats.shape == (2, 3, 2, 9) and one.nats.shape == (2, 2, 9)
    assert one.n.tolist() == list(range(1, 10))
    for layer, stats in enumerate(attention_stats(model, idx)):
        assert torch.equal(many.nats[layer], stats.entropy)
        assert torch.equal(many.normalized[layer], stats.normalized)
    torch.testing.assert_close(many.nats[:, 1], one.nats)
    torch.testing.assert_close(one.normalized[..., 1:], one.nats[..., 1:] / one.n[1:].log())


def test_uniform_attention_is_all_of_log_n_and_the_table_says_so(model):
    uniform = GPT(tiny_config()).eval()
    with torch.no_grad():
        uniform.h[0].attn.c_attn.weight.mul_(20)
        uniform.h[1].attn.c_attn.weight.zero_()
    found = attention_entropy(uniform, range(8))
    nats, normalized = found.by_head()
    assert normalized[1].tolist() == pytest.approx([1, 1]) and (normalized[0] < 0.99).all()
    expected = torch.arange(2.0, 9).log().mean().item()
    assert nats[1].tolist() == pytest.approx([expected] * 2)
    lines = str(found).splitlines()
    assert "means over 7 queries" in lines[0] and len(lines) == 4
    assert re.fullmatch(rf" +1 +{expected:.3f} \(1\.00\) .* #\d", lines[3])
    cells = re.findall(r'<td title="([^"]+)"[^>]*>([\d.]+)</td>', found._repr_html_())
    assert cells[2:] == [("100% of log n", f"{expected:.2f}")] * 2


@pytest.mark.parametrize("module", [entropy, losses])
def test_the_examples_run(module):
    failed, attempted = doctest.testmod(module)
    assert attempted > 0 == failed
