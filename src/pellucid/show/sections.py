"""What a report holds, as plain data: whoever explained and measured fills it in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pellucid.core.case import Case
from pellucid.core.explanation import Explanation, Prediction
from pellucid.core.image import Image
from pellucid.show.answers import Agreement, Answers
from pellucid.show.difference import Difference

State = Literal["pass", "fail", "inconclusive", "not measured"]
NOT_CHECKED = "not measured"


@dataclass(frozen=True)
class Check:
    """Something that was checked, or was not.

    Args:
        name: of the check.
        state: how it went.
        words: one sentence that says why.
        value: the number it was decided by, where there is one.
    """

    name: str
    state: State
    words: str
    value: float | None = None


@dataclass(frozen=True)
class MetricNote:
    """What a metric's number means.

    Args:
        name: of the metric.
        measures: the property, such as ``localization``.
        says: one sentence: what the number says.
        caution: one sentence: what it does not say.
        direction: which way is better.
        unit: of the value; ``1`` for a plain number.
        source: where it is from, as text.
    """

    name: str
    measures: str
    says: str
    caution: str = ""
    direction: Literal["higher", "lower", "none"] = "none"
    unit: str = "1"
    source: str = ""


@dataclass(frozen=True)
class Curve:
    """The score of the model while more and more of the image is hidden (or shown).

    Args:
        share: of the image, from 0 to 1.
        score: there.
        random: score there in random order; empty: not measured.
        unit: of the score.
    """

    share: tuple[float, ...]
    score: tuple[float, ...]
    random: tuple[float, ...]
    unit: str


@dataclass(frozen=True)
class ScoreRow:
    """One metric of one map, or of a baseline that stands beside the maps.

    Args:
        about: the metric.
        of: title of the map, or name of a baseline (``blob in the middle``).
        value: None or NaN where undefined.
        reason: why it is undefined.
        region: name of the reference region it was measured against, where one was.
        beside: what the number is read against, a few words each: chance, random order, another fill.
        given: what was chosen to measure it, the same for every map: the fill, the noise, the threshold.
        curve: the number is the area under; None: it is no area.
    """

    about: MetricNote
    of: str
    value: float | None
    reason: str = ""
    region: str = ""
    beside: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    curve: Curve | None = None


@dataclass(frozen=True)
class PerformanceRow:
    """One measured figure of the model.

    Args:
        what: such as ``area under the ROC curve``.
        value: as text.
        interval: 95% interval as text; empty: not measured.
        cases: on which, and how many.
    """

    what: str
    value: str
    interval: str
    cases: str


@dataclass(frozen=True, eq=False)
class MapPanel:
    """One map with what its method's card says.

    Args:
        explanation: with the map.
        title: name of the method; unique in the report.
        shows: one sentence: what a reader sees.
        caution: one sentence: what the method is bad at.
        source: the paper, as text.
        answers: what a reader takes from it; None: it was not read.
        sham: what hiding does elsewhere; None: the method hides nothing, or it was not tried.
    """

    explanation: Explanation
    title: str
    shows: str
    caution: str
    source: str = ""
    answers: Answers | None = None
    sham: Check | None = None


@dataclass(frozen=True, eq=False)
class CaseReport:
    """Everything on one page about one case.

    Args:
        case: pseudonym, regions, notes.
        image: the primary image.
        applicability: of the model card to this image; the first line of the report.
        golden: whether the model still gives the scores its card promises; in the first line, too.
        prediction: None where the model was not run.
        maps: in the order to show; empty where nothing may be explained.
        scores: of all maps and baselines.
        region: name of the reference region; None: there is none.
        facts: of the model, from its card, in order.
        performance: of the model, from its card.
        checks: calculation checks.
        warnings: of the case as a whole.
        skipped: (method, reason) of those that could not explain this model.
        agreement: of the methods, by target.
        differences: of two targets, by method.
        patient: who it is, for a local reading room; empty: the page does not say.
    """

    case: Case
    image: Image
    applicability: Check
    golden: Check
    prediction: Prediction | None = None
    maps: tuple[MapPanel, ...] = ()
    scores: tuple[ScoreRow, ...] = ()
    region: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    performance: tuple[PerformanceRow, ...] = ()
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    agreement: tuple[Agreement, ...] = ()
    differences: tuple[Difference, ...] = ()
    patient: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class IndexEntry:
    """One card of the overview.

    Args:
        href: of the report, relative to the overview.
        title: of the case.
        about: modality and size, in words.
        line: what the model said, in one line.
        state: the worse of applicability and golden check.
        verdict: in words.
        thumbnail: the bare image as a data URI.
        marks: burned-in words (``PLANTED``).
    """

    href: str
    title: str
    about: str
    line: str
    state: State
    verdict: str
    thumbnail: str
    marks: tuple[str, ...] = ()
