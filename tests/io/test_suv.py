"""Standardized uptake from a PET series: the closed form, or the reason why there is none."""

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence

from pellucid.core.case import Case
from pellucid.core.image import Modality
from pellucid.io.modelcard import check_applicability, parse_card
from pellucid.io.reader import read_cases, read_image
from pellucid.io.selection import Choosing
from pellucid.io.suv import in_units, suv_traits
from pellucid.workbench.job import Request
from pellucid.workbench.job import _admit as admit

DOSE, HALF, WEIGHT, HEIGHT = 370e6, 6586.2, 80.0, 1.75

CARD = """
[model]
name = "uptake"
version = "1"
task = "segmentation"
modality = ["pet"]
weights = "w.safetensors"
sha256 = "{digest}"
license = "MIT"
factory = "package.module:function"

[[inputs]]
name = "image"
rank = 3
unit = "{unit}"

[output]
labels = ["background", "lesion"]
activation = "softmax"
"""


def card(unit="SUVbw"):
    return parse_card(CARD.format(digest="0" * 64, unit=unit))


def pet(made, change=lambda data, k: None):
    """A PET series of an injection at 11:00, an hour before the scan, each slice 2 s after the one before."""
    datasets = made.datasets(modality="PT")
    for k, data in enumerate(datasets):
        data.Units, data.DecayCorrection, data.CorrectedImage = "BQML", "START", ["DECY", "ATTN", "SCAT"]
        data.SeriesDate = data.AcquisitionDate = "20200101"
        data.SeriesTime, data.AcquisitionTime = "120000", f"1200{2 * k:02}.00"
        data.PatientWeight, data.PatientSize, data.PatientSex = WEIGHT, HEIGHT, "M"
        data.RescaleIntercept = 0
        data.ActualFrameDuration = 120000
        injection = Dataset()
        injection.RadionuclideTotalDose, injection.RadionuclideHalfLife = DOSE, HALF
        injection.RadiopharmaceuticalStartTime = "110000"
        data.RadiopharmaceuticalInformationSequence = Sequence([injection])
        change(data, k)
    return datasets


def each(**tags):
    def change(data, _):
        for name, value in tags.items():
            (data.RadiopharmaceuticalInformationSequence[0] if name.startswith("Radio") else data)[name] = _element(
                name, value
            )

    return change


def _element(name, value):
    holder = Dataset()
    setattr(holder, name, value)
    return holder[name]


@pytest.fixture
def traits(phantom):
    return lambda change=lambda data, k: None: suv_traits(pet(phantom(), change))


def test_the_closed_form(tmp_path, phantom, write):
    made = phantom()
    folder = write(tmp_path / "s", pet(made))
    image = read_image(folder)
    assert (image.unit, image.modality) == ("Bq/ml", Modality.PET)
    left = DOSE * 2 ** (-3600 / HALF)
    assert image.traits["suv_bw"] == pytest.approx(WEIGHT * 1000 / left)
    index = WEIGHT / HEIGHT**2
    lean = 9270 * WEIGHT / (6680 + 216 * index)
    assert image.traits["suv_lbm"] == pytest.approx(lean * 1000 / left)
    assert lean == pytest.approx(60.2, abs=0.1)  # of 80 kg at 1.75 m
    james = 1.10 * WEIGHT - 128 * (WEIGHT / 175) ** 2
    assert image.traits["suv_lbm_james"] == pytest.approx(james * 1000 / left)
    assert image.traits["suv_how"] == "dose decayed over the 60 minutes to the start of the series"
    (case,) = read_cases(folder, choosing=Choosing(card())).cases
    converted, said = in_units(case, card())
    there = converted.images["image"]
    assert said == ("PET in SUVbw (g/ml): dose decayed over the 60 minutes to the start of the series",)
    assert there.unit == "SUVbw"
    assert np.allclose(there.data, image.data * image.traits["suv_bw"], rtol=1e-6)
    assert there.window[1] == pytest.approx(image.window[1] * image.traits["suv_bw"])
    assert "suv_bw" not in there.traits
    again, nothing = in_units(converted, card())
    assert again is converted
    assert nothing == ()


def test_a_run_converts_says_so_and_refuses_what_cannot_be(tmp_path, phantom, write):
    class Loaded:
        card = card()

    case = read_cases(write(tmp_path / "s", pet(phantom()))).cases[0]
    converted, verdict, warnings = admit(case, Loaded(), Request())
    assert verdict.verdict == "applies"
    assert converted.images["image"].unit == "SUVbw"
    assert warnings == ("PET in SUVbw (g/ml): dose decayed over the 60 minutes to the start of the series",)
    without = read_cases(write(tmp_path / "t", pet(phantom(), each(PatientWeight=None)))).cases[0]
    said = check_applicability(card(), without.images["image"])
    assert said.verdict == "excluded"
    assert "Bq/ml, and SUV cannot be worked out (the weight in kg is missing or not plausible)" in said.words
    plain = Case("x", {"image": case.images["image"]})
    assert check_applicability(card("Bq/ml"), plain.images["image"]).verdict == "applies"
    assert check_applicability(card("HU"), plain.images["image"]).verdict == "excluded"


def test_women_children_and_who_has_no_height(traits):
    her = traits(each(PatientSex="F", PatientWeight=62.0, PatientSize=1.68))
    lean = 9270 * 62 / (8780 + 244 * 62 / 1.68**2)
    assert her["suv_lbm"] / her["suv_bw"] == pytest.approx(lean / 62)
    assert her["suv_lbm_james"] / her["suv_bw"] == pytest.approx((1.07 * 62 - 148 * (62 / 168) ** 2) / 62)
    for change in (each(PatientAge="012Y"), each(PatientSex="O"), each(PatientSize=175.0), each(PatientSize=None)):
        found = traits(change)
        assert "suv_bw" in found
        assert "suv_lbm" not in found
    heavy = traits(each(PatientSex="F", PatientWeight=160.0, PatientSize=1.55))
    assert "suv_lbm" in heavy
    assert "suv_lbm_james" not in heavy  # James turns down with weight


def test_decay_to_the_injection_needs_no_times(traits):
    found = traits(each(DecayCorrection="ADMIN", SeriesTime="235959"))
    assert found["suv_bw"] == pytest.approx(WEIGHT * 1000 / DOSE)


def test_an_injection_before_midnight_is_of_the_day_before(traits):
    def late(data, k):
        data.SeriesTime, data.AcquisitionTime = "002000", f"0020{2 * k:02}.00"
        data.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartTime = "232000"

    assert traits(late)["suv_bw"] == pytest.approx(WEIGHT * 1000 / (DOSE * 2 ** (-3600 / HALF)))

    def dated(data, k):
        late(data, k)
        data.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime = "20191231232000.00"

    assert traits(dated) == traits(late)


def test_an_injection_of_another_time_zone_is_brought_into_that_of_the_series(traits):
    plain = traits()
    for moment, clock in (("20200101100000+0000", ""), ("20200101120000+0200", ""), ("20200101100000+0000", "110000")):
        tags = {"RadiopharmaceuticalStartDateTime": moment, "RadiopharmaceuticalStartTime": clock}
        assert traits(each(TimezoneOffsetFromUTC="+0100", **tags)) == plain
    assert traits(each(RadiopharmaceuticalStartDateTime="20200101110000+0100")) == plain, "both clocks say the same"


def test_decay_factors_that_agree_pass(traits):
    def factors(data, k):
        along = np.log(2) * 120 / HALF
        data.DecayFactor = f"{2 ** (2 * k / HALF) * along / (1 - np.exp(-along)):.6f}"

    assert "suv_bw" in traits(factors)


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"SeriesTime": "124500"}, "written anew after the scan"),
        ({"SeriesTime": "103000"}, "more than an hour before"),
        ({"SeriesTime": ""}, "the time of the series is not stated"),
        ({"AcquisitionTime": ""}, "the time of the acquisition is not stated"),
        ({"DecayCorrection": "NONE"}, "not said to be decay-corrected"),
        ({"DecayCorrection": ""}, "not said to be decay-corrected"),
        ({"CorrectedImage": ["DECY"]}, "not said to be corrected for attenuation"),
        ({"CorrectedImage": ""}, "not said to be corrected for attenuation"),
        ({"PatientWeight": 0}, "the weight in kg is missing or not plausible"),
        ({"PatientWeight": 8000}, "the weight in kg is missing or not plausible"),
        ({"RadionuclideTotalDose": 370}, "the injected dose in Bq is missing or not plausible"),
        ({"RadionuclideTotalDose": None}, "the injected dose in Bq is missing or not plausible"),
        ({"RadionuclideHalfLife": 109.8}, "half-life is that of no PET nuclide"),
        ({"RadionuclideHalfLife": 282240.0}, "the day of the injection is not stated"),
        ({"RadiopharmaceuticalStartTime": "010000"}, "does not lie plausibly before the scan"),
        ({"RadiopharmaceuticalStartTime": "123000"}, "does not lie plausibly before the scan"),
        ({"RadiopharmaceuticalStartTime": ""}, "the time of the injection is not stated"),
        ({"RadiopharmaceuticalStartDateTime": "20190101110000"}, "does not lie plausibly before the scan"),
        ({"RadiopharmaceuticalStartDateTime": "20200101103000"}, "time of the injection contradict each other"),
        ({"RadiopharmaceuticalStartDateTime": "20200101100000+0000"}, "time of the injection contradict each other"),
        (
            {"RadiopharmaceuticalStartDateTime": "20200101110000+0000", "RadiopharmaceuticalStartTime": ""},
            "that of the series is not said",
        ),
        ({"DecayFactor": "1.9"}, "decay factors of the slices contradict"),
        ({"RadiopharmaceuticalInformationSequence": Sequence([])}, "expected one injection"),
        ({"Units": "CPS"}, "the values are not Bq/ml"),
        ({"Units": "CNTS"}, "counts, without one factor of the maker"),
    ],
)
def test_what_is_missing_or_contradicts_itself_is_refused_by_name(traits, tags, why):
    def change(data, k):
        if "RadiopharmaceuticalInformationSequence" in tags:
            data.RadiopharmaceuticalInformationSequence = Sequence([])
        else:
            each(**tags)(data, k)

    found = traits(change)
    assert set(found) == {"suv_refused"}
    assert why in found["suv_refused"]
    assert not [str(v) for v in tags.values() if str(v) and str(v) in found["suv_refused"] and str(v).isdigit()]


def test_slices_that_differ_are_refused(traits):
    def mixed(data, k):
        data.Units = "BQML" if k else "CNTS"

    assert traits(mixed)["suv_refused"] == "slices differ in their units"

    def times(data, k):
        data.SeriesTime = f"12000{k}"

    assert traits(times)["suv_refused"] == "slices differ in the time of their series"


def test_counts_with_the_makers_factor(traits):
    def philips(data, k):
        data.Units = "CNTS"
        block = data.private_block(0x7053, "Philips PET Private Group", create=True)
        block.add_new(0x00, "DS", "0.000551")

    assert traits(philips)["suv_bw"] == pytest.approx(0.000551)


def test_values_that_are_suv_already_say_which(tmp_path, phantom, write):
    made = phantom(shape=(2, 16, 20), bright=(0, 0, 0))
    for kind, unit in ((None, "SUVbw"), ("BW", "SUVbw"), ("LBMJANMA", "SUVlbm"), ("LBM", "g/ml"), ("BSA", "g/ml")):
        datasets = pet(made, each(Units="GML", **({"SUVType": kind} if kind else {})))
        image = read_image(write(tmp_path / str(kind), datasets))
        assert (image.unit, "suv_refused" in image.traits) == (unit, False)
    assert suv_traits(made.datasets()) == {}
