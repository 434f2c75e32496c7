"""PET values as standardized uptake: only where dose, weight, times and corrections are stated and agree."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import expm1, log
from typing import Any

from pydicom.dataset import Dataset
from pydicom.valuerep import DA, DT, TM

from pellucid.core.case import Case
from pellucid.core.errors import PellucidError
from pellucid.core.image import Image
from pellucid.io.cardschema import ModelCard
from pellucid.io.dicomfacts import age_of, numbers, values_of
from pellucid.io.guard import reading
from pellucid.io.modelcard import FACTORS

_NUCLIDES = (
    76.4,
    122.2,
    597.9,
    1221.8,
    4057.7,
    6586.2,
    45724.0,
    282240.0,
    360806.0,
)  # s: 82Rb to 124I
_SAME_HALF_LIFE = 0.03
_DOSE, _WEIGHT, _HEIGHT = (1e6, 1e10), (0.5, 400.0), (0.4, 2.4)  # Bq, kg, m
_SHORT = 6 * 3600.0  # a half-life up to which a time without a date can only be of the same day or the night before
_LONGEST_UPTAKE = timedelta(hours=8)
_LATE, _EARLY = timedelta(seconds=2), timedelta(hours=1)  # of the series against its first slice
_SAME_MINUTE = timedelta(seconds=60)
_FACTOR_OFF = 0.1  # that DecayFactor may differ from what the times say
_PHILIPS = (0x7053, "Philips PET Private Group")


class _Refused(PellucidError):
    """Why there is no SUV; never shown as an error."""

    def __init__(self, why: str) -> None:
        super().__init__(why, "the values stay as they are stored")


def suv_traits(headers: Sequence[Dataset]) -> dict[str, str | float]:
    """What turns the values of a PET series into SUV, or why nothing does; empty for every other image.

    The dose is decayed to the time that the values were corrected to: the start of the series (DecayCorrection
    START; PS3.3 C.8.9.1.1.2) or the injection (ADMIN). Lean body mass by Janmahasatian (2005), and by James (1976)
    with 128 for men and 148 for women; for adults. Bad at: what the scanner's clocks and whoever typed dose and weight
    got wrong.

    Args:
        headers: of all slices.

    Returns:
        ``suv_bw``, ``suv_lbm``, ``suv_lbm_james``: g/ml for each unit of the stored values; ``suv_how``: in words, or
        ``suv_refused``: why not.
    """
    units = {str(h.get("Units", "")) for h in headers}
    if {str(h.get("Modality", "")) for h in headers} != {"PT"} or "GML" in units:
        return {}
    try:
        with reading("a PET header", "export it again"):
            if "PerFrameFunctionalGroupsSequence" in headers[0]:
                raise _Refused("enhanced objects are not converted")
            if len(units) > 1:
                raise _Refused("slices differ in their units")
            if units == {"CNTS"}:
                return _philips(headers)
            if units != {"BQML"}:
                raise _Refused("the values are not Bq/ml")
            return _activity(headers)
    except PellucidError as refused:
        known = isinstance(refused, _Refused)
        return {"suv_refused": refused.problem if known else "an attribute that it needs is damaged"}


def in_units(case: Case, card: ModelCard) -> tuple[Case, tuple[str, ...]]:
    """The case with PET images in the unit that the model card names for an input, and words that say so.

    An image that cannot be brought there stays as it is: the card then does not apply to it.
    """
    specs = [spec for spec in card.inputs if spec.rank]
    images, said = dict(case.images), []
    for spec in specs:
        alone = next(iter(images)) if len(specs) == 1 and len(images) == 1 else None
        name = spec.name if spec.name in images else alone
        if name is None or spec.unit is None:
            continue
        changed = converted(images[name], spec.unit)
        if changed is not images[name]:
            images[name] = changed
            said.append(f"PET in {spec.unit} (g/ml): {changed.traits['suv_how']}")
    return (replace(case, images=images), tuple(said)) if said else (case, ())


def converted(image: Image, unit: str) -> Image:
    """A PET image in another unit, where its traits say how to get there; else the same image."""
    factor = image.traits.get(FACTORS.get(unit, ""))
    if image.unit == unit or not isinstance(factor, float):
        return image
    window = (image.window[0] * factor, image.window[1] * factor) if image.window is not None else None
    rest = {k: v for k, v in image.traits.items() if k not in FACTORS.values()}  # once is enough
    return replace(image, data=image.data * factor, unit=unit, window=window, traits=rest)


def _philips(headers: Sequence[Dataset]) -> dict[str, str | float]:
    """Counts with the maker's own factor, the same for all slices."""
    found = set()
    for header in headers:
        block = header.private_block(*_PHILIPS) if _has_philips(header) else None
        value = numbers(block[0].value, 1) if block is not None and 0 in block else None
        found.add(value[0] if value is not None else 0.0)
    factor = next(iter(found))
    if len(found) > 1 or not 0 < factor < 1e3:
        raise _Refused("the values are counts, without one factor of the maker")
    return {"suv_bw": factor, "suv_how": "counts times the factor that the scanner's maker wrote"}


def _has_philips(header: Dataset) -> bool:
    return _PHILIPS[1] in header.private_creators(_PHILIPS[0])


def _activity(headers: Sequence[Dataset]) -> dict[str, str | float]:
    first = headers[0]
    kind = _one({str(h.get("DecayCorrection", "")) for h in headers}, "slices differ in their decay correction")
    _check_corrected(headers, kind)
    infusions = first.get("RadiopharmaceuticalInformationSequence") or ()
    if len(infusions) != 1:
        raise _Refused("expected one injection in the header, got none or several")
    dose = _plausible(infusions[0].get("RadionuclideTotalDose"), _DOSE, "the injected dose in Bq")
    half = _plausible(infusions[0].get("RadionuclideHalfLife"), (1.0, 1e6), "the half-life")
    if min(abs(half / known - 1) for known in _NUCLIDES) > _SAME_HALF_LIFE:
        raise _Refused("the half-life is that of no PET nuclide")
    weight = _plausible(first.get("PatientWeight"), _WEIGHT, "the weight in kg")
    how, left = "dose as injected, to which the values are decay-corrected", dose
    if kind == "START":
        start = _start(headers)
        zone = str(first.get("TimezoneOffsetFromUTC", ""))
        uptake = (start - _injected(infusions[0], start, half, zone)).total_seconds()
        left = dose * 2 ** (-uptake / half)
        how = f"dose decayed over the {uptake / 60:.0f} minutes to the start of the series"
        _check_factors(headers, start, half)
    per_kg = 1000.0 / left
    return {"suv_bw": weight * per_kg, "suv_how": how, **{k: m * per_kg for k, m in _lean(first, weight).items()}}


def _check_corrected(headers: Sequence[Dataset], kind: str) -> None:
    if kind not in ("START", "ADMIN"):
        raise _Refused("the values are not said to be decay-corrected to the start or the injection")
    for header in headers:
        done = {str(v).upper() for v in values_of(header.get("CorrectedImage"))}
        if not {"DECY", "ATTN"} <= done:
            raise _Refused("the values are not said to be corrected for attenuation and decay")


def _start(headers: Sequence[Dataset]) -> datetime:
    """The time that values were corrected to: of the series, unless somebody wrote it anew after the scan."""
    stated = _one({_moment(h, "Series") for h in headers}, "slices differ in the time of their series")
    taken = min(_moment(h, "Acquisition") for h in headers)
    if stated > taken + _LATE:
        raise _Refused("the time of the series lies after its first slice: it was written anew after the scan")
    if taken - stated > _EARLY:
        raise _Refused("the time of the series lies more than an hour before its first slice")
    return stated


def _injected(infusion: Dataset, start: datetime, half: float, zone: str) -> datetime:
    moment, clock = infusion.get("RadiopharmaceuticalStartDateTime"), infusion.get("RadiopharmaceuticalStartTime")
    if moment not in (None, ""):
        when = _dated(str(moment), clock, zone)
        limit = timedelta(seconds=10 * half)
    else:
        told = _time(clock, "the time of the injection")
        if half > _SHORT:
            raise _Refused("the day of the injection is not stated, and the nuclide lives longer than a day")
        when = datetime.combine(start.date(), told)
        when -= timedelta(days=1) if when > start else timedelta(0)  # injected before midnight
        limit = _LONGEST_UPTAKE
    if not timedelta(0) <= start - when <= limit:
        raise _Refused("the injection does not lie plausibly before the scan")
    return when


def _dated(moment: str, clock: Any, zone: str) -> datetime:
    """The injection by the clock of the series: it may be written in another time zone (PS3.5 6.2, DT)."""
    found = DT(moment)
    if found is None:
        raise _Refused("the time of the injection cannot be read")
    local = DT(f"20000101000000{zone}") if zone else None
    if found.utcoffset() is not None and local is not None and local.tzinfo is not None:
        found = found.astimezone(local.tzinfo)
    elif found.utcoffset() is not None and clock in (None, ""):
        raise _Refused("the time of the injection is of a time zone, and that of the series is not said")
    when = found.replace(tzinfo=None)
    if clock not in (None, ""):
        off = abs(when - datetime.combine(when.date(), _time(clock, "the time of the injection")))
        if min(off, timedelta(days=1) - off) > _SAME_MINUTE:
            raise _Refused("the two statements of the time of the injection contradict each other")
    return when


def _check_factors(headers: Sequence[Dataset], start: datetime, half: float) -> None:
    """DecayFactor says the same as the times, if it is there: dates that were shifted apart do not pass."""
    for header in headers:
        stated = numbers(header.get("DecayFactor"), 1)
        if stated is None or stated[0] == 1.0:  # 1: some scanners write it where they mean nothing
            continue
        frame = (numbers(header.get("ActualFrameDuration"), 1) or (0.0,))[0] / 1000
        along = log(2) * frame / half
        during = along / -expm1(-along) if along > 0 else 1.0
        expected = 2 ** ((_moment(header, "Acquisition") - start).total_seconds() / half) * during
        if abs(stated[0] / expected - 1) > _FACTOR_OFF:
            raise _Refused("the decay factors of the slices contradict their times")


def _lean(header: Dataset, weight: float) -> Mapping[str, float]:
    """Lean body mass in kg of an adult, by formula; empty where height, sex or age do not allow it."""
    height = numbers(header.get("PatientSize"), 1)
    sex, age = str(header.get("PatientSex", "")), age_of(header)
    if height is None or not _HEIGHT[0] <= height[0] <= _HEIGHT[1] or sex not in ("M", "F") or age is None or age < 18:
        return {}
    index = weight / height[0] ** 2
    fat_free = 9270 * weight / ((6680 if sex == "M" else 8780) + (216 if sex == "M" else 244) * index)
    ratio = (weight / (100 * height[0])) ** 2
    james = 1.10 * weight - 128 * ratio if sex == "M" else 1.07 * weight - 148 * ratio
    found = {"suv_lbm": fat_free, "suv_lbm_james": james}
    return {name: mass for name, mass in found.items() if 0.3 * weight < mass <= weight}


def _moment(header: Dataset, what: str) -> datetime:
    day = header.get(f"{what}Date") or header.get("SeriesDate")
    found = DA(str(day)) if day else None
    if found is None:
        raise _Refused(f"the date of the {what.lower()} is not stated")
    return datetime.combine(found, _time(header.get(f"{what}Time"), f"the time of the {what.lower()}"))


def _time(value: Any, what: str) -> Any:
    found = TM(str(value)) if value not in (None, "") else None
    if found is None:
        raise _Refused(f"{what} is not stated")
    return found


def _plausible(value: Any, limits: tuple[float, float], what: str) -> float:
    found = numbers(value, 1)
    if found is None or not limits[0] <= found[0] <= limits[1]:
        raise _Refused(f"{what} is missing or not plausible")
    return found[0]


def _one(found: set[Any], why: str) -> Any:
    if len(found) != 1:
        raise _Refused(why)
    return next(iter(found))
