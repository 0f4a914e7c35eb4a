"""The tokenizing benchmark: its figures and ratios belong together."""

import pydoc_data.topics

import pytest

from supertf.bench import data as bench_data
from supertf.data.downloads import is_present


@pytest.mark.skipif(not is_present("gpt2-vocabulary"), reason="needs `supertf fetch gpt2-vocabulary`")
def test_figures_and_ratios_belong_together(monkeypatch):
    """That both tokenizers give the same ids the benchmark asserts by itself."""
    texts = [text for text in pydoc_data.topics.topics.values() if len(text) > 500]
    texts.insert(0, "naïve 漢字 🙂 \n\n x=1")
    monkeypatch.setattr(bench_data, "iter_documents", lambda name: iter(texts))
    *_, result = bench_data.run(megabytes=0.3, repeats=1)
    assert {"datasets", "torch"} <= set(result["machine"]["versions"])
    assert 0.3 <= result["megabytes"] < 0.5
    for cores in ("1_core", "2_cores"):
        ours, theirs = (result[f"{name}_{cores}_mb_per_s"] for name in ("supertf", "datasets_map"))
        assert result[f"ratio_{cores}"] == pytest.approx(ours / theirs)
        assert ours > 0
