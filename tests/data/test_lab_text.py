"""The lab's own training text: a shipped text's roles as tokens, made once, also by several at a time."""

from supertf.data import lab_text
from supertf.data.corpus import iter_documents
from supertf.data.lab_text import LAB_TEXT, lab_tokens

STORY = "Once there was a ship that sailed to the north. "


def test_the_lab_s_tokens_are_the_roles_to_train_on_and_to_score():
    for file, role in zip(lab_tokens(257), ("train", "evaluate"), strict=True):
        documents = list(iter_documents(f"{LAB_TEXT}:{role}"))
        text = "".join(f"{one}\0" for one in documents)
        ends = file.tokens[:] == file.tokenizer.eot_token
        assert ends.sum() == len(documents)
        assert file.tokenizer.decode(file.tokens[~ends].tolist()) == text.replace("\0", "")


def test_the_labs_tokens_may_be_made_by_two_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SUPERTF_CACHE", str(tmp_path))
    monkeypatch.setattr(lab_text, "iter_documents", lambda *_, **__: [STORY] * 100)
    prepare, faster = lab_text.prepare, []

    def slow(documents, *arguments, **options):
        def meanwhile():
            yield from documents
            monkeypatch.setattr(lab_text, "prepare", prepare)
            faster.extend(lab_tokens(257))

        return prepare(meanwhile(), *arguments, **options)

    monkeypatch.setattr(lab_text, "prepare", slow)
    for ours, theirs in zip(lab_tokens(257), faster, strict=True):
        ours.verify()
        assert ours.manifest == theirs.manifest
    (folder,) = (tmp_path / "lab-tokens").iterdir()  # nothing else is left behind
    assert {path.parent for path in (ours.path, theirs.path)} == {folder}
