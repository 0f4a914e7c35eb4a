"""The super weights benchmark: what it times, and the checkpoint it generates."""

import pytest
import torch
from planted import PROMPT, planted_model

from supertf.bench import superweights as bench_superweights
from supertf.bench.superweights import compare, from_disk, generate_checkpoint
from supertf.bench.timing import Seconds
from supertf.data.downloads import is_present

pytest.importorskip("transformers")
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(bench_superweights, "SHAPE", SMALL)
    monkeypatch.setattr(bench_superweights, "PLANTED", (3, 12, 43))


def test_the_ratio_is_the_time_of_finding_over_that_of_the_pass(monkeypatch):
    def rounds(rivals, repeats, title):
        seconds = Seconds(rivals)
        seconds.update({"bare": [1.0, 2.0, 4.0], "find": [1.5, 2.2, 4.0]})
        yield seconds

    monkeypatch.setattr(bench_superweights, "rounds", rounds)
    found = compare(planted_model(), PROMPT, repeats=3)
    assert found == {"bare_seconds": 1.0, "find_seconds": 1.5, "ratio": pytest.approx(1.1)}


def test_a_generated_checkpoint_has_the_size_asked_for_and_is_written_layer_by_layer(
    small, tmp_path, monkeypatch
):
    written = []
    write = bench_superweights.write_tensors
    monkeypatch.setattr(
        bench_superweights,
        "write_tensors",
        lambda path, tensors: (written.append(sum(t.nbytes for t in tensors.values())), write(path, tensors)),
    )
    size = generate_checkpoint(tmp_path, 0.001)
    assert 1e6 <= size < 1.03e6  # the next layer would have made it larger
    assert sum(written) == size
    assert max(written) < 0.03e6
    on_disk = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert size < on_disk < 1.1 * size


def test_the_planted_weight_comes_back_from_disk_with_figures_of_its_own_process(small, tmp_path):
    result = from_disk(tmp_path, 0.0002)
    assert result["planted"] == "3[12, 43]" and result["planted_found"]
    assert result["shards"] > 4
    assert 1e8 < result["peak_bytes_before"] <= result["peak_bytes"] < 1.5e9
    assert result["memory_per_checkpoint"] == result["peak_bytes"] / result["checkpoint_bytes"]


def test_the_peak_of_memory_grows_by_what_is_used():
    before = bench_superweights.peak_bytes()
    torch.ones(before + 50_000_000, dtype=torch.uint8)
    assert bench_superweights.peak_bytes() >= before + 50_000_000


@pytest.mark.real_model
@pytest.mark.slow
@pytest.mark.skipif(not is_present("smollm2-135m"), reason="run `supertf fetch smollm2-135m` first")
def test_smollm2_is_searched_and_the_search_timed(monkeypatch):
    monkeypatch.setattr(bench_superweights, "LENGTHS", (10,))
    *_, found = bench_superweights.run(repeats=1)
    assert found["found"][0] == "11[507, 1229]"
    assert found["first_find_seconds"] > 0
    assert found["float32"]["10 tokens"]["ratio"] > 0 and found["bfloat16"]["10 tokens"]["ratio"] > 0
