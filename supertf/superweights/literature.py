"""Super weights that others have published: the list with its sources, and a check of it on a model.

`published.json` holds every coordinate with who published it, what was claimed, and where sources disagree;
negatives are in it too. `published_checks.json` holds what this lab measured of them itself, written by
`supertf superweights verify MODEL --record`; all others are only cited.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from supertf.data import is_present
from supertf.files import read_json
from supertf.model import Coordinate, LanguageModel, output_projections, parse, show
from supertf.superweights.ablation import Ablation, Measure, ablate
from supertf.superweights.find import SuperWeights, search

LIST = Path(__file__).with_name("published.json")
CHECKS = Path(__file__).with_name("published_checks.json")
LOADED_AS = {"HuggingFaceTB/SmolLM2-135M-Instruct": "smollm2-135m"}  # this lab's own name for a hub id


@dataclass(frozen=True)
class Published:
    """One published coordinate.

    Attributes:
        model: a hub id.
        coordinate: (layer, out, in).
        sources: who published it.
        claimed: what they say in this lab's words, "super", "harmful" or "inert"; None when they leave it
            open.
        value: of the weight, where published.
        measure, before, after: the published effect of removing it.
        note: what else to know, also where sources disagree.
    """

    model: str
    coordinate: Coordinate
    sources: tuple[str, ...]
    claimed: str | None = None
    value: float | None = None
    measure: str | None = None
    before: float | None = None
    after: float | None = None
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON, the coordinate in its written form."""
        return {**vars(self), "coordinate": show(self.coordinate), "sources": list(self.sources)}


def published(model: str | None = None) -> list[Published]:
    """All published coordinates, or those of one model.

    Args:
        model: a hub id, its last part, a folder called so, or this lab's own name; None for all.
    """
    listed = read_json(LIST)
    found = []
    for fields in listed["entries"]:
        if model is None or same_model(model, fields["model"]):
            sources = tuple(listed["sources"][name] for name in fields["sources"])
            found.append(
                Published(**{**fields, "coordinate": parse(fields["coordinate"]), "sources": sources})
            )
    return found


def same_model(name: str, hub_id: str) -> bool:
    """Whether a name given by a user means the model of a hub id."""
    names = (hub_id, LOADED_AS.get(hub_id, hub_id))
    return Path(name).name.lower() in {Path(known).name.lower() for known in names}


def is_here(hub_id: str) -> bool:
    """Whether a model's weights are on this machine: fetched by this lab, or in the hub's cache."""
    if hub_id in LOADED_AS and is_present(LOADED_AS[hub_id]):
        return True
    from huggingface_hub import try_to_load_from_cache

    names = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(hub_id, name), str) for name in names)


@dataclass(frozen=True)
class Check:
    """A published coordinate on a model at hand.

    Attributes:
        published: what others say.
        round: the first pass of `search`, from 1, where the coordinate carries its layer's spike; None when
            none shows it.
        rank: the spike's place among the candidates of all layers there, largest first; None also when the
            spike is below the threshold.
        ablation: its removal beside controls; None when the model has no such weight.
    """

    published: Published
    round: int | None
    rank: int | None
    ablation: Ablation | None

    @property
    def verdict(self) -> str:
        """`Ablation.verdict`, or "outside" when the model has no such weight."""
        return self.ablation.verdict if self.ablation else "outside"

    @property
    def confirmed(self) -> bool | None:
        """Whether the verdict is the claimed one; None without a claim."""
        return None if self.published.claimed is None else self.verdict == self.published.claimed

    @property
    def same_value(self) -> bool | None:
        """Whether the weight is the published one within 1 %; None when there is nothing to compare."""
        if self.ablation is None or self.published.value is None:
            return None
        return math.isclose(self.ablation.weight, self.published.value, rel_tol=0.01)

    def to_dict(self) -> dict[str, Any]:
        """As JSON: what was published and what came out."""
        found = self.ablation
        interval = found and found.candidate.interval
        return {
            **self.published.to_dict(),
            "inside": found is not None,
            "round": self.round,
            "rank": self.rank,
            "weight": found and found.weight,
            "same_value": self.same_value,
            "loss": found and found.base,
            "ratio": found and found.candidate.ratio,
            "interval": interval and [interval.low, interval.high],
            "random_ratio": found and found.random.ratio,
            "largest_ratio": found and found.largest.ratio,
            "row_ratio": found and found.row.ratio,
            "verdict": self.verdict,
            "confirmed": self.confirmed,
        }


def verify(
    model: LanguageModel,
    prompt: Sequence[int],
    entries: Iterable[Published],
    text: Measure | Sequence[Measure],
    controls: int = 20,
    seed: int = 0,
    rounds: int = 8,
    progress: bool = True,
) -> list[Check]:
    """Look for each published coordinate with `search`, and remove it beside its controls.

    Each is removed alone: of several in one model, none need be super by itself.

    Args:
        model: that they are looked for in.
        prompt: token ids for the search.
        entries: from `published`; a coordinate outside the model is a result, not an error.
        text: that the loss is measured on, or several, as `ablate` takes them.
        controls, seed: as for `ablate`.
        rounds: passes of the search at most.
        progress: show a bar.

    Returns:
        A `Check` of each.

    Raises:
        UserError: what `search` and `ablate` refuse.
    """
    entries = list(entries)
    shapes = [projection.weight.shape for projection in output_projections(model)]
    found = search(model, prompt, rounds=rounds)
    checks = []
    for one in tqdm(entries, desc="published coordinates", disable=not progress, leave=False):
        layer, out, into = one.coordinate
        inside = layer < len(shapes) and out < shapes[layer][0] and into < shapes[layer][1]
        ablation = ablate(model, one.coordinate, text, controls, seed, progress=False) if inside else None
        checks.append(Check(one, *first_shown(found, one.coordinate), ablation))
    return checks


def first_shown(found: SuperWeights, coordinate: Coordinate) -> tuple[int | None, int | None]:
    """(round, rank) of a `Check`."""
    for number, one in enumerate(found.rounds, 1):
        if coordinate in [spike.coordinate for spike in one.spikes]:
            ranked = [spike.coordinate for spike in one.candidates]
            return number, ranked.index(coordinate) + 1 if coordinate in ranked else None
    return None, None


def recorded_checks() -> dict[str, dict[str, Any]]:
    """What this lab measured of the list: {hub id: {"checks": [...], "config": ..., "versions": ...}}."""
    return read_json(CHECKS)
