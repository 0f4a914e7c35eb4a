"""EleutherAI's harness asks our models as it asks those of transformers, and this lab's task as the lab does.

Where lm-eval is not installed this is skipped; it is optional.
"""

import json
from types import SimpleNamespace

import pytest
import torch
from own_tokenizers import SENTENCE, SPECIAL, own_tokenizer

pytest.importorskip("lm_eval")
transformers = pytest.importorskip("transformers")

from lm_eval.models.huggingface import HFLM  # noqa: E402

from supertf.analysis.harness import HarnessModel  # noqa: E402
from supertf.analysis.last_words import finds_last_words  # noqa: E402
from supertf.analysis.tasks import task_scores  # noqa: E402
from supertf.data.passages import Passage, passages  # noqa: E402
from supertf.errors import UserError  # noqa: E402
from supertf.model.hf_model import HFModel  # noqa: E402
from supertf.model.hf_tokenizer import HFTokenizer  # noqa: E402

WORDS = SENTENCE.split()


@pytest.fixture(scope="module", params=[None, SPECIAL[1]], ids=["no BOS", "BOS"])
def both(request):
    """Ours and the harness's own view of one tiny Llama."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    theirs, tokenizer = transformers.LlamaForCausalLM(config).eval(), own_tokenizer(bos=request.param)
    ours = HarnessModel(HFModel(theirs), HFTokenizer(tokenizer), 3, progress=False)
    # its cache of logits mistakes two questions for one where the tokens before the last agree
    return ours, HFLM(
        theirs, tokenizer=tokenizer, batch_size=3, device="cpu", max_length=64, logits_cache=False
    )


def asked(*several):
    return [SimpleNamespace(args=one, arguments=one) for one in several]


def test_continuations_get_the_same_probabilities(both):
    ours, theirs = both
    questions = asked(
        *((" ".join(WORDS[:i]), " " + " ".join(WORDS[i : i + 3])) for i in range(1, 9)),
        ("", "Was it?"),
        ("It was ", "a line"),  # a space that belongs to the word behind it
        (SENTENCE * 12, " another"),  # longer than the context
    )
    found, expected = ours.loglikelihood(questions), theirs.loglikelihood(questions, disable_tqdm=True)
    for (mine, greedy), (their, also) in zip(found, expected, strict=True):
        assert mine == pytest.approx(their, abs=1e-4)
        assert greedy == also


def test_whole_texts_get_the_same_probabilities(both):
    ours, theirs = both
    if ours.bos_id is not None:
        pytest.skip("the harness's own model puts BOS twice before a whole text")
    texts = asked(("It was",), (SENTENCE,), (SENTENCE * 9,))
    found = ours.loglikelihood_rolling(texts)
    assert found == pytest.approx(theirs.loglikelihood_rolling(texts, disable_tqdm=True), abs=1e-3)


def test_answers_are_the_same(both):
    ours, theirs = both
    settings = {"until": ["\n\n", "zz"], "max_gen_toks": 8, "do_sample": False}
    questions = asked(*((" ".join(WORDS[:i]), dict(settings)) for i in range(2, 5)))
    assert ours.generate_until(questions) == theirs.generate_until(questions, disable_tqdm=True)


def test_sampled_answers_and_long_ones_are_refused(both):
    ours, _ = both
    with pytest.raises(UserError, match="sampled answers"):
        ours.generate_until(asked(("It", {"do_sample": True})))
    with pytest.raises(UserError, match="more than the 64 that the model reads"):
        ours.loglikelihood(asked(("It", SENTENCE * 12)))
    with pytest.raises(UserError, match="wants 64 new tokens"):
        ours.generate_until(asked(("It", {"max_gen_toks": 64})))
    with pytest.raises(UserError, match="no token of its own"):
        ours.loglikelihood(asked(("It was", "")))
    assert ours.loglikelihood([]) == []


def test_a_task_of_ones_own_counts_what_this_lab_counts(both, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    ours, _ = both
    text = " ".join(f"the cat {i} sat on a mat and the dog saw the table with a lamp" for i in range(9))
    found = passages(f"{text} so that it was the table. " * 6)
    assert found
    rows = [{"before": before, "word": word} for before, word in found]
    (tmp_path / "words.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "words.yaml").write_text(
        "task: our_words\ndataset_path: json\noutput_type: loglikelihood\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: '{tmp_path / 'words.jsonl'}'}}}}\n"
        'doc_to_text: "{{before}}"\ndoc_to_target: "{{\' \' + word}}"\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    one, *none = task_scores(
        ours.model, ours.tokenizer, [str(tmp_path / "words.yaml")], progress=False
    ).scores
    assert not none
    encoded = [
        (ours.tok_encode(before), ours.tokenizer.encode_ordinary(f" {word}")) for before, word in found
    ]
    right = finds_last_words(ours.model, [Passage((*ids, *word), len(word)) for ids, word in encoded])
    assert (one.task, one.metric, one.questions) == ("our_words", "acc", len(found))
    assert one.value == pytest.approx(sum(right) / len(right))


def test_a_task_that_nobody_knows_is_one_line(both):
    with pytest.raises(UserError, match="no task 'nonsense'"):
        task_scores(both[0].model, both[0].tokenizer, ["nonsense"])
    with pytest.raises(UserError, match=r"could not ask absent\.yaml"):
        task_scores(both[0].model, both[0].tokenizer, ["absent.yaml"])
