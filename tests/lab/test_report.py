"""The report: measured part by part, resumed, honest where nothing is found, and text stays text."""

import dataclasses
import json
import re
from types import SimpleNamespace

import families
import pytest
import torch
from chromium import NEEDED, open_page
from planted import CONFIG, planted_model

from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError
from supertf.files import read_json
from supertf.lab.report import measured
from supertf.lab.report.measured import PARTS, Asked, measure
from supertf.lab.report.page import report_page
from supertf.superweights.ablation import ablate

TEXTS = ("prose:evaluate:0", "prose:evaluate:1", "readmes:evaluate:0")
MADE = {"config": {"model": "x", "texts": ["a", "b"]}, "versions": {"torch": "2"}, "commands": ["supertf x"]}
EVIL = "</script><script>document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\">"


def a_model(model=None, **more):
    model = model or planted_model(config=dataclasses.replace(CONFIG, vocab_size=257, n_ctx=64))
    return Asked("planted", model, load_tokenizer("bytes"), TEXTS, tokens=80, progress=False, **more)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    asked = a_model()
    before = {name: value.clone() for name, value in asked.model.state_dict().items()}
    result = measure(asked, folder)
    assert all(torch.equal(value, before[name]) for name, value in asked.model.state_dict().items())
    return SimpleNamespace(asked=asked, folder=folder, parts=result)


def test_every_part_is_plain_data_and_kept_in_a_file(found):
    assert list(found.parts) == list(PARTS)
    for name, part in found.parts.items():
        assert read_json(found.folder / f"{name}.json") == part == json.loads(json.dumps(part))
        assert "left_out" not in part


def test_the_verdict_is_that_of_ablate_and_controls_stand_beside_it(found):
    asked, verdict = found.asked, found.parts["verdict"]
    alone = ablate(asked.model, "1[7, 21]", asked.losses(), measured.CONTROLS, progress=False)
    assert (verdict["verdict"], verdict["caption"]) == (alone.verdict, alone.caption())
    assert verdict["rows"][0]["times"] == alone.candidate.ratio
    assert [row["role"] for row in verdict["rows"][-4:]] == ["control"] * 4
    assert found.parts["dial"]["times"][0] != 1 == found.parts["dial"]["times"][measured.FACTORS.index(1.0)]


def test_each_way_of_pruning_and_rounding_spares_nothing_the_candidates_and_random_weights(found):
    rows = found.parts["smaller"]["rows"]
    groups = {}
    for row in rows:
        groups.setdefault(row["name"], []).append(row.get("spared", row.get("left_out")))
    assert list(groups) == [*measured.CUTS, *measured.SCHEMES]
    [why] = groups.pop("int4, blocks of 64 x 64")  # of which this small model has none
    assert "64" in why
    assert all(spared == ["nothing", "the candidates", "random weights"] for spared in groups.values())


def test_an_interrupted_report_goes_on_where_it_stopped(found, tmp_path, monkeypatch):
    calls = []

    def stopped(asked, parts):
        calls.append("dial")
        if len(calls) == 1:
            raise KeyboardInterrupt
        return measured.dial(asked, parts)

    monkeypatch.setitem(PARTS, "dial", stopped)
    with pytest.raises(KeyboardInterrupt):
        measure(found.asked, tmp_path)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["spikes", "verdict"]
    for part in ("spikes", "verdict"):
        monkeypatch.setitem(PARTS, part, lambda *_: pytest.fail("measured again"))
    assert measure(found.asked, tmp_path)["dial"] == found.parts["dial"] and len(calls) == 2


def test_a_damaged_part_is_measured_again(found, tmp_path, monkeypatch):
    for name, part in found.parts.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    (tmp_path / "words.json").write_text('{"said": ')
    assert measure(found.asked, tmp_path) == found.parts


def test_other_weights_texts_seeds_and_code_are_another_report(found, monkeypatch):
    known = found.asked.identity()
    assert known == a_model().identity()
    other = a_model(seed=1)
    with torch.no_grad():
        other_weight = a_model()
        other_weight.model.h[0].mlp.c_proj.weight[0, 0] += 1
    fewer = dataclasses.replace(found.asked, tokens=79)
    others = {one.identity() for one in (other, other_weight, fewer)}
    monkeypatch.setattr(measured, "package_digest", lambda: "other code")
    others.add(found.asked.identity())
    assert len(others) == 4 and known not in others


def test_what_a_model_does_not_allow_is_left_out_with_the_reason(tmp_path, monkeypatch):
    for name, value in {"vocab_size": 257, "max_position_embeddings": 64}.items():
        monkeypatch.setitem(families.SMALL, name, value)
    model = families.tiny("Gemma2")
    result = measure(Asked("gemma", model, load_tokenizer("bytes"), TEXTS, 48, progress=False), tmp_path)
    assert "GPT-2, Llama and Mistral" in result["attention"]["left_out"]
    text = report_page("gemma", result, MADE)
    assert "Left out: attention weights are seen in" in text and "attention-figure" not in text


def test_without_a_candidate_the_strongest_spike_is_tried_and_the_page_says_so(tmp_path):
    torch.manual_seed(0)
    plain = planted_model(config=dataclasses.replace(CONFIG, vocab_size=257, n_ctx=64))
    with torch.no_grad():
        plain.h[1].mlp.c_fc.weight.div_(500)
    result = measure(a_model(plain), tmp_path)
    assert result["spikes"]["candidates"] == 0 and len(result["spikes"]["tried"]) == 1
    assert "No candidate by the paper's rule" in report_page("x", result, MADE)


def test_a_model_that_cannot_be_edited_has_no_report(found, tmp_path, monkeypatch):
    def refuse(*_):
        raise UserError("packed weights")

    monkeypatch.setitem(PARTS, "verdict", refuse)
    with pytest.raises(UserError, match="packed weights"):
        measure(found.asked, tmp_path)


def evil(parts):
    """Results in which every text is markup that would change the page's title."""
    parts = json.loads(json.dumps(parts))
    parts["spikes"]["prompts"] = {EVIL: next(iter(parts["spikes"]["prompts"].values()))}
    parts["spikes"]["prompts"][EVIL]["tokens"][0] = EVIL
    parts["words"]["said"] = {EVIL: dict.fromkeys(("as it is", "without", "control"), EVIL)}
    parts["verdict"]["caption"] = EVIL
    return parts


def test_the_page_loads_nothing_and_all_texts_are_escaped(found):
    text = report_page(EVIL, evil(found.parts), {**MADE, "commands": [EVIL], "config": {"model": EVIL}})
    page = text.replace(text[text.index("<script>") : text.index("</script>")], "")  # but for plotly.js
    assert re.findall(r'(?:src|href)="?(?:https?:)?//', page) == []
    assert "<img" not in page and page.count("<script>") == 5, "one for each figure"


class TestInTheBrowser:
    pytestmark = NEEDED

    def opened(self, browser, folder, text, complaints):
        path = folder / "report.html"
        path.write_text(text, encoding="utf-8")
        page = open_page(browser, path, complaints, viewport={"width": 390, "height": 900})
        page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 5")
        return page

    def test_figures_draw_and_a_phone_is_wide_enough(self, browser, found, tmp_path):
        complaints = []
        page = self.opened(browser, tmp_path, report_page("planted", found.parts, MADE), complaints)
        assert page.locator(".js-plotly-plot").count() == 5
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert complaints == []

    def test_a_model_that_writes_markup_changes_nothing(self, browser, found, tmp_path):
        complaints = []
        text = report_page(EVIL, evil(found.parts), {**MADE, "commands": [EVIL]})
        page = self.opened(browser, tmp_path, text, complaints)
        page.wait_for_timeout(300)
        assert page.title() == f"supertf report: {EVIL}"
        assert EVIL in page.locator("h1").text_content() and page.locator("img").count() == 0
        assert complaints == []
