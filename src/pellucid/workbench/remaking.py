"""The map, region and numbers that an object holds against those made again."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pellucid.core.explanation import Explanation
from pellucid.core.metric import Metric
from pellucid.io.dicomfile import DAMAGED
from pellucid.io.guard import reading
from pellucid.io.objects.codes import unit_code
from pellucid.io.objects.marks import RESEARCH, plain
from pellucid.io.objects.reading import Kind, OurObject, read_map, read_region, read_report
from pellucid.io.objects.recipe import MapFacts, map_digest
from pellucid.io.objects.source import Source
from pellucid.show.rules import decide
from pellucid.workbench.evaluating import Scored
from pellucid.workbench.telling import LARGEST, OUTPUT, SMALLEST

State = Literal["agrees", "differs", "not verified"]
SCORES = 1e-4  # of a score: it is read off maps and sums of many forwards
_WHOLE = 62  # characters of a title that was surely not cut to the 64 of an LO, even behind a space
_SLACK = 1.01  # of half a step of a 16-bit map: the steps are counted in float32


@dataclass(frozen=True)
class Finding:
    """One thing that was verified, or could not be.

    Args:
        name: of it.
        state: how it came out.
        words: why, without anything about whose image it is.
        value: the difference, where it is a number.
    """

    name: str
    state: State
    words: str
    value: float | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON types."""
        value = self.value if self.value is not None and isfinite(self.value) else None
        return {"name": self.name, "state": self.state, "words": self.words, "value": value}


def compare_map(ours: OurObject, source: Source, values: NDArray[np.float32], tolerance: float) -> list[Finding]:
    """The stored map against the one made now, voxel by voxel.

    Args:
        ours: a Parametric Map.
        source: that it lies on.
        values: made now, on the image's grid.
        tolerance: as a share of the largest magnitude; half a step of a 16-bit map comes on top.
    """
    geometry, facts = source.geometry, ours.recipe.made
    found = read_map(ours, geometry) if geometry is not None else None
    if found is None:
        return [Finding("geometry", "differs", "the map does not lie on the voxels of the source")]
    placed = Finding("geometry", "agrees", "every voxel of the map lies on its voxel of the source")
    stored = found.volume.array.reshape(values.shape)
    largest = max(abs(facts.low), abs(facts.high))
    allowed = tolerance * largest + found.step / 2 * _SLACK
    apart = np.nan_to_num(np.abs(stored.astype(np.float64) - values), nan=np.inf)
    off, beyond = float(apart.max()), int((apart > allowed).sum())
    again = compare_facts(facts, MapFacts.of(values, facts.unit), tolerance)
    kept = found.step > 0 or map_digest(stored) == facts.digest
    if not beyond and kept:
        words = f"made again, it differs by at most {off:.3g} (allowed {allowed:.3g}; largest value {largest:.3g})"
        return [placed, Finding("map", "agrees", words, off)]
    where = tuple(int(i) for i in np.unravel_index(int(apart.argmax()), apart.shape))
    words = f"{beyond} voxels differ by more than {allowed:.3g}, at most by {off:.3g} at voxel {where}"
    return [placed, Finding("map", "differs", f"{_cause(again, kept)}: {words}", off)]


def _cause(again: Finding, kept: bool) -> str:
    """Which of the three does not fit: what is stored, what was recorded of it, or what the recipe gives."""
    if again.state == "agrees":
        return "the map was edited: the recipe gives the map that was recorded, and the stored one is another"
    if kept:
        return (
            "the stored map is the recorded one, and the recipe gives another: another setting, seed or version made it"
        )
    return "the stored map is neither the one that was recorded nor what the recipe gives"


def compare_facts(recorded: MapFacts, found: MapFacts, tolerance: float) -> Finding:
    """What was recorded of the map against the one made now."""
    if found.digest == recorded.digest:
        return Finding("recorded map", "agrees", "made again, the map is bit for bit the one that was recorded", 0.0)
    if found.shape != recorded.shape:
        return Finding("recorded map", "differs", f"made again, the map has shape {found.shape}, not {recorded.shape}")
    allowed = tolerance * max(abs(recorded.low), abs(recorded.high))
    pairs = ((found.low, recorded.low), (found.high, recorded.high), (found.mean, recorded.mean))
    off = max(abs(one - other) for one, other in pairs)
    off = max(off, abs(found.total - recorded.total) / max(1, int(np.prod(found.shape))))
    if off <= allowed:
        words = f"made again, its extremes and means differ by at most {off:.3g} (allowed {allowed:.3g})"
        return Finding("recorded map", "agrees", words, off)
    words = f"made again, its extremes or means differ by {off:.3g} (allowed {allowed:.3g})"
    return Finding("recorded map", "differs", words, off)


def compare_region(ours: OurObject, source: Source, explanation: Explanation, values: NDArray[np.float32]) -> Finding:
    """The stored region against what the map made now has above its null.

    Args:
        ours: a Segmentation.
        source: that it lies on.
        explanation: made now.
        values: its map on the image's grid.
    """
    wanted = decide(explanation, values).region(values)
    if wanted is None:
        return Finding("region", "not verified", "the model has no null for this map here, so no region follows")
    found = read_region(ours, source.geometry)
    if found is None or found.size != wanted.size:
        return Finding("region", "differs", "the region does not lie on the voxels of the source")
    off = int((found.reshape(wanted.shape) != wanted).sum())
    state: State = "differs" if off else "agrees"
    return Finding("region", state, f"{off} voxels are not as the map made again has them above its null", float(off))


def compare_labels(ours: OurObject, explanation: Explanation) -> list[Finding]:
    """What a reader is told of a map in plain words and codes, against what was made now; nothing where all is right.

    An archive may correct a name in an object, which gives it another UID; these are no names.

    Args:
        ours: an object of any kind.
        explanation: made now.
    """
    data, provenance, said = ours.dataset, explanation.provenance, ours.described
    apart = [] if str(data.get("SeriesDescription", "")).startswith(RESEARCH) else ["the research mark of the series"]
    if ours.kind in (Kind.MAP, Kind.REGION, Kind.PICTURE) and data.get("ContentQualification") != "RESEARCH":
        apart.append("the qualification as research")
    for name, value in (("explainer", provenance.method), ("target", provenance.target)):
        wanted = plain(value).replace("=", ":").replace(",", ";").partition(";")[0].strip()
        if said.get(name, wanted) != wanted:
            apart.append(f"the {name}")
    title = str(data.get("ContentDescription", ""))
    if 0 < len(title) <= _WHOLE and not title.rstrip().endswith(plain(f"of {provenance.target}").rstrip()):
        apart.append("the title")
    if ours.kind is Kind.MAP and _units(data) != {unit_code(explanation.attribution.unit).value}:
        apart.append("the unit")
    return [Finding("labels", "differs", f"edited in the object: {', '.join(apart)}")] if apart else []


def _units(data: Dataset) -> set[str]:
    """UCUM codes of a map's values."""
    with reading(*DAMAGED):
        groups = (*data.SharedFunctionalGroupsSequence, *data.PerFrameFunctionalGroupsSequence)
        maps = [one for group in groups for one in group.get("RealWorldValueMappingSequence", ())]
        return {str(one.MeasurementUnitsCodeSequence[0].CodeValue) for one in maps}


def compare_scores(ours: OurObject, scored: Sequence[Scored], no_region: bool) -> list[Finding]:
    """The report's numbers against its recipe's, and both against those measured now.

    Args:
        ours: a report.
        scored: measured now, in the order of the recipe.
        no_region: the case's regions are missing or others, so that what needs one cannot be measured.
    """
    report, recipe = read_report(ours), ours.recipe
    told, recorded = report.scores, recipe.scores
    found = []
    known = {OUTPUT: recipe.value, LARGEST: recipe.made.high, SMALLEST: recipe.made.low}
    edited = [name for name, value in known.items() if name in report.numbers and report.numbers[name] != value]
    if edited:
        found.append(Finding("numbers", "differs", f"edited in the report: {', '.join(edited)}"))
    for spelled, one in zip(recorded, scored, strict=True):
        name = f"score {spelled.partition(':')[0]}"
        if spelled not in told or not _near(told[spelled], recorded[spelled], 0.0):
            found.append(Finding(name, "differs", "the number in the report is not the one that was recorded: edited"))
        elif no_region and one.metric.card.needs_region:
            found.append(Finding(name, "not verified", "it needs the region that the case had: give it with --region"))
        elif isinstance(one.metric, Metric) and not one.metric.card.repeatable:
            found.append(Finding(name, "agrees", "as recorded; it is a time, and no second run takes the same"))
        else:
            now = None if one.reason else one.value
            words = f"measured again {_number(now)}, recorded {_number(recorded[spelled])}"
            found.append(Finding(name, "agrees" if _near(now, recorded[spelled], SCORES) else "differs", words))
    extra = sorted(set(told) - set(recorded))
    if extra:
        found.append(Finding("scores", "differs", f"{len(extra)} numbers of the report were never recorded"))
    return found


def _near(one: float | None, other: float | None, share: float) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= share * max(1.0, abs(other))


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6g}"
