"""The tokenizing benchmark compares like with like."""

import pydoc_data.topics

import pytest

from supertf.bench import data as bench_data
from supertf.data.byte_pairs import train_bpe


def test_the_peer_gives_the_same_ids():
    texts = list(pydoc_data.topics.topics.values())
    encoding = train_bpe(texts[:20], 600)
    peer = bench_data.to_hf(encoding)
    for text in [*texts, "naïve 漢字 🙂 \n\n x=1"]:
        assert peer.encode(text).ids == encoding.encode_ordinary(text)


def test_figures_and_ratios_belong_together(monkeypatch):
    texts = [text for text in pydoc_data.topics.topics.values() if len(text) > 500]
    monkeypatch.setattr(bench_data, "iter_documents", lambda name: iter(texts))
    monkeypatch.setattr(bench_data, "is_present", lambda name: False)
    *_, result = bench_data.run(megabytes=0.1, repeats=1)
    assert {"datasets", "torch"} <= set(result["machine"]["versions"])
    assert 0.1 <= result["megabytes"] < 0.3
    for cores in ("1_core", "2_cores"):
        ours, theirs = (result[f"{name}_{cores}_mb_per_s"] for name in ("supertf", "datasets_map"))
        assert result[f"ratio_{cores}"] == pytest.approx(ours / theirs)
        assert ours > 0
