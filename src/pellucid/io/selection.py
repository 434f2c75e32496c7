"""Which series of a study a model is meant for: by its card or by a number, said with what was rejected and why."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydicom.dataset import Dataset
from pydicom.uid import UID

from pellucid.core.case import SeriesChoice
from pellucid.core.errors import BadOption, NotApplicable, PellucidError
from pellucid.core.grid import Grid
from pellucid.core.image import Modality
from pellucid.io.cardschema import ModelCard
from pellucid.io.dicom import Member, Survey
from pellucid.io.dicomfacts import modality_of, spacing, traits_of, unit_of, values_of
from pellucid.io.dicomfile import DAMAGED
from pellucid.io.guard import reading
from pellucid.io.modelcard import check_applicability
from pellucid.io.suv import suv_traits
from pellucid.io.volume import planes_of

RULE = "of those that fit the model card the one with the most slices, then the thinnest, then the first"
_ORDER = ("applies", "unknown", "excluded")
_CAPTURES = ("SCREEN SAVE", "DOSE INFO", "DOSE_INFO")
_SCOUTS = ("LOCALIZER", "SCOUT", "SURVEY")


@dataclass(frozen=True)
class Choosing:
    """How one series of several is found.

    Args:
        card: of the model that will see it; None: no rule.
        number: the place in the list, from 1; it goes before the card.
        resample: take slices that form no regular volume, brought onto one where ``resampled`` can.
    """

    card: ModelCard | None = None
    number: int | None = None
    resample: bool = False

    def __post_init__(self) -> None:
        if self.number is not None and self.number < 1:
            raise BadOption(f"expected --series from 1, got {self.number}", "'pellucid dicom series' lists them")

    @property
    def chooses(self) -> bool:
        """Whether there is a rule or a number."""
        return self.card is not None or self.number is not None


@dataclass(frozen=True)
class Candidate:
    """A series by its headers alone.

    Args:
        number: place in the list, from 1.
        members: its files.
        modality: of the image.
        grid: sizes; lengths where slices are regular, without a position.
        traits: technical facts, of the middle slice.
        unit: of the values.
        nature: why nobody would explain it (a localizer, a screen capture); empty: nothing speaks against it.
        problem: why its slices form no regular volume; empty: they do.
    """

    number: int
    members: tuple[Member, ...]
    modality: Modality
    grid: Grid
    traits: Mapping[str, str | float]
    unit: str
    nature: str
    problem: str

    @property
    def slices(self) -> int:
        """Of a volume; 1 for a single image."""
        return self.grid.shape[0] if self.grid.rank == 3 else 1

    @property
    def title(self) -> str:
        """What it is, in words without anything a person typed."""
        sizes = " x ".join(str(n) for n in self.grid.shape)
        said = [str(self.traits.get("dicom_modality", self.modality)), sizes]
        step = self.traits.get("slice_mm")
        said += [f"{step:g} mm"] if isinstance(step, float) and self.grid.rank == 3 else []
        said += [f"kernel {self.traits['kernel']}"] if "kernel" in self.traits else []
        said += ["contrast"] if "contrast_agent" in self.traits else []
        return ", ".join(said)


@dataclass(frozen=True)
class Judged:
    """A candidate with what a rule says of it.

    Args:
        candidate: a series.
        verdict: ``applies``, ``unknown`` or ``excluded``.
        words: why.
    """

    candidate: Candidate
    verdict: str
    words: str


def candidates(found: Survey) -> tuple[Candidate, ...]:
    """The series of a study in the order of their scanner's numbers, then of their files.

    Raises:
        UnreadableImage: a header that cannot be used.
    """
    with reading(*DAMAGED):
        groups = sorted(found.series.values(), key=_place)
        return tuple(_candidate(number, group) for number, group in enumerate(groups, 1))


def judge(candidate: Candidate, choosing: Choosing) -> Judged:
    """Whether a series may be chosen by rule, and why not."""
    if candidate.nature:
        return Judged(candidate, "excluded", candidate.nature)
    said = check_applicability(choosing.card, candidate) if choosing.card is not None else None
    if said is not None and said.verdict == "excluded":
        return Judged(candidate, "excluded", said.words.partition(": ")[2])
    if candidate.problem and not choosing.resample:
        return Judged(candidate, "excluded", candidate.problem)
    if said is None:
        return Judged(candidate, "unknown", "an image series")
    return Judged(candidate, said.verdict, said.words)


def choose(found: Survey, choosing: Choosing) -> tuple[Survey, SeriesChoice | None]:
    """The one series of a study to read, and why; no choice where there is only one.

    Raises:
        BadOption: there is no series of that number, or it could be one of several studies.
        NotApplicable: the card fits none.
    """
    if choosing.number is not None and len(found.studies) > 1:
        raise BadOption(f"expected one study for --series, got {len(found.studies)}", "give the folder of one of them")
    listed = candidates(found)
    if choosing.number is not None:
        taken, why, others = _numbered(listed, choosing.number), "chosen by its number", tuple[str, ...]()
    elif len(listed) > 1:
        taken, why, others = _ruled(listed, choosing)
    else:
        taken, why, others = listed[0], "", tuple[str, ...]()
    folders = {member.path.parent for member in taken.members}
    beside = tuple(f for f in found.failures if f[0].parent in folders)  # elsewhere they belong to another series
    if not why:
        return Survey(taken.members, beside), None
    by: Literal["card", "number"] = "card" if choosing.number is None else "number"
    rejected = others + tuple(f"{count} x {kind}" for kind, count in sorted(Counter(found.others).items()))
    return Survey(taken.members, beside), SeriesChoice(taken.number, len(listed), why, rejected, by)


def _numbered(listed: Sequence[Candidate], number: int) -> Candidate:
    if number > len(listed):
        raise BadOption(
            f"expected --series from 1 to {len(listed)}, got {number}", "'pellucid dicom series' lists them"
        )
    return listed[number - 1]


def _ruled(listed: Sequence[Candidate], choosing: Choosing) -> tuple[Candidate, str, tuple[str, ...]]:
    judged = [judge(candidate, choosing) for candidate in listed]
    fitting = sorted((j for j in judged if j.verdict != "excluded"), key=_rank)
    if not fitting:
        words = "; ".join(f"{j.candidate.number}: {j.words}" for j in judged)
        raise NotApplicable(
            f"none of the {len(listed)} series of the study is one that the model was made for: {words}",
            "take one all the same with --series NUMBER",
        )
    first, taken = fitting[0], fitting[0].candidate
    why = "the only one that fits the model card"
    if len(fitting) > 1:
        equal = [j.candidate.number for j in fitting if _rank(j)[:3] == _rank(first)[:3]]
        why = f"{RULE} ({len(fitting)} fit)"
        why += f"; {', '.join(map(str, equal))} are alike by this rule: choose with --series" if len(equal) > 1 else ""
    why += f"; {first.words}" if first.verdict == "unknown" else ""
    passed = [f"{j.candidate.number}: {j.words if j.verdict == 'excluded' else _less(j, first)}" for j in judged]
    return taken, why, tuple(words for j, words in zip(judged, passed, strict=True) if j is not first)


def _rank(judged: Judged) -> tuple[int, int, float, int]:
    step = judged.candidate.traits.get("slice_mm")
    thick = step if isinstance(step, float) else float("inf")
    return _ORDER.index(judged.verdict), -judged.candidate.slices, thick, judged.candidate.number


def _less(judged: Judged, first: Judged) -> str:
    """Why one that fits comes after the first."""
    mine, best = _rank(judged), _rank(first)
    if mine[0] != best[0]:
        return judged.words
    if mine[1] != best[1]:
        return f"fits, with {judged.candidate.slices} slices of {first.candidate.slices}"
    return "fits, with thicker slices" if mine[2] != best[2] else "fits as well, and comes later"


def _place(group: Sequence[Member]) -> tuple[float, int, str]:
    stated = group[0].header.get("SeriesNumber")
    number = float(stated) if stated not in (None, "") else float("inf")
    return number, len(str(group[0].path)), str(group[0].path)


def _candidate(number: int, group: Sequence[Member]) -> Candidate:
    members = tuple(group)
    header = members[len(members) // 2].header
    traits = dict(traits_of(header))
    natures = Counter(_nature(member.header) for member in members)
    count, problem = sum(m.frames for m in members), ""
    shape: tuple[int, ...] = (int(header.Rows), int(header.Columns))
    steps = spacing(header, "PixelSpacing")
    if len(members) > 1 and not all(m.placed and m.frames == 1 for m in members):
        problem = f"{len(members)} images without a common geometry"
    elif members[0].placed and count > 1:
        try:
            planes = planes_of([m.header for m in members])
            problem = planes.problem() or ""
            traits["slice_mm"] = planes.step()
        except PellucidError as error:
            problem = error.problem
    elif count > 1:
        problem = f"a loop of {count} frames"
    if count > 1:
        shape = (count, *shape)
    length = traits.get("slice_mm")
    apart = length if isinstance(length, float) and length > 0 else None
    lengths = ((apart, *steps) if count > 1 else steps) if steps and (apart or count == 1) else None
    grid = Grid.regular(shape, [float(v) for v in lengths if v] if lengths else None)
    traits |= suv_traits([member.header for member in members])
    return Candidate(
        number, members, modality_of(header), grid, traits, unit_of(header), natures.most_common(1)[0][0], problem
    )


def _nature(header: Dataset) -> str:
    """What speaks against an image whatever the model: PS3.3 C.7.6.1.1.2, and what scanners write beside it."""
    kinds = [str(kind).upper() for kind in values_of(header.get("ImageType"))]
    if "Secondary Capture" in UID(str(header.get("SOPClassUID", ""))).name or any(k in kinds for k in _CAPTURES):
        return "a screen capture or a page of doses"
    if any(scout in kind for kind in kinds[2:] for scout in _SCOUTS):
        return "a localizer"
    if kinds[:1] == ["DERIVED"]:
        return "derived from other images"
    if kinds[1:2] == ["SECONDARY"]:
        return "a secondary image"
    corrected = [str(kind).upper() for kind in values_of(header.get("CorrectedImage"))]
    if header.get("Modality") == "PT" and corrected and "ATTN" not in corrected:
        return "not corrected for attenuation"
    return ""
