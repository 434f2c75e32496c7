"""Maps and regions as objects: in their place, with their values, under their own name, whatever the order."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset, dcmread

from pellucid.core.errors import BadOption, BadRegion, NonFinite, UnwritableOutput
from pellucid.io.objects.codes import explanation_code
from pellucid.io.objects.identity import content_key, encode, stamp, write_object
from pellucid.io.objects.maps import Encoding, parametric_map, quantum
from pellucid.io.objects.marks import RESEARCH, Made, canonical_parameters, parameters
from pellucid.io.objects.proof import round_trip
from pellucid.io.objects.segment import LABEL, segmentation
from pellucid.workbench.registry import explainers

TILT = np.deg2rad(31)
TURN = np.array([[np.cos(TILT), -np.sin(TILT), 0], [np.sin(TILT), np.cos(TILT), 0], [0, 0, 1]])


@pytest.fixture
def series(phantom: type, write: Callable[..., Path], tmp_path: Path) -> tuple[object, Path]:
    """Oblique, anisotropic, and shuffled under names that say nothing."""
    truth = phantom(turn=TURN)
    return truth, write(tmp_path / "series", truth.datasets())


def _values(made: Made) -> np.ndarray:
    return made.explanation.numpy()[0]


@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_bright_voxel_lies_where_the_patient_has_it(
    series: tuple, made_of: Callable[..., Made], tmp_path: Path, encoding: Encoding
) -> None:
    """Read back by a reader that knows nothing of the source: position in mm against the formula."""
    truth, folder = series
    made = made_of(folder)
    image = made.explanation.image
    values = np.zeros(image.grid.shape, np.float32)
    values[tuple(np.round(image.grid.index(truth.place(truth.bright))[0]).astype(int))] = 3.5
    placed = made.source.volume(values)
    path = write_object(parametric_map(made, placed, None, encoding), tmp_path / "map.dcm")
    volume = hd.imread(path).get_volume()
    index = np.unravel_index(int(volume.array.argmax()), volume.spatial_shape)
    found = volume.map_indices_to_reference(np.array([index], float))[0]
    assert np.abs(found - truth.place(truth.bright)).max() < 1e-3
    assert volume.array.max() == pytest.approx(3.5)
    assert np.count_nonzero(volume.array) == 1
    assert volume.frame_of_reference_uid == image.grid.frame_of_reference


def test_floats_come_back_exactly_and_16_bits_within_half_a_step(
    series: tuple, made_of: Callable[..., Made], tmp_path: Path
) -> None:
    made = made_of(series[1])
    placed = made.source.volume(_values(made))
    trip = round_trip(write_object(parametric_map(made, placed), tmp_path / "f.dcm"), placed)
    assert (trip.error, trip.allowed, trip.same_place, trip.passed) == (0.0, 0.0, True, True)
    path = write_object(parametric_map(made, placed, None, Encoding.UINT16), tmp_path / "u.dcm")
    trip = round_trip(path, placed, quantum(placed))
    assert 0 < trip.error <= quantum(placed) / 2 * 1.01
    assert trip.passed
    assert not round_trip(path, placed).passed
    shifted = placed.affine.copy()
    shifted[0, 3] += 0.05
    moved = hd.Volume(placed.array, shifted, "PATIENT", frame_of_reference_uid=placed.frame_of_reference_uid)
    assert not round_trip(tmp_path / "f.dcm", moved).passed


def test_zero_is_zero_in_16_bits(series: tuple, made_of: Callable[..., Made], tmp_path: Path) -> None:
    made = made_of(series[1])
    for values in (np.abs(_values(made)), _values(made).copy(), np.zeros_like(_values(made))):
        values[0] = 0
        dataset = parametric_map(made, made.source.volume(values), None, Encoding.UINT16)
        volume = hd.imread(write_object(dataset, tmp_path / "u.dcm")).get_volume()
        back = volume.match_geometry(made.source.volume(values)).array
        assert (back[0] == 0).all()
        assert np.abs(back - values).max() <= np.abs(values).max() / 2**15


def test_a_bare_array_is_refused(series: tuple, made_of: Callable[..., Made]) -> None:
    made = made_of(series[1])
    with pytest.raises(BadOption, match="bare ndarray"):
        parametric_map(made, _values(made))
    with pytest.raises(BadOption, match="bare ndarray"):
        segmentation(made, _values(made) > 1)
    wrong = _values(made).copy()
    wrong[0, 0, 0] = np.nan
    with pytest.raises(NonFinite):
        parametric_map(made, made.source.volume(wrong))


def test_writing_twice_is_one_object_and_other_bytes_are_another(series: tuple, made_of: Callable[..., Made]) -> None:
    made = made_of(series[1])
    placed = made.source.volume(_values(made))
    first, second = (parametric_map(made, placed) for _ in range(2))
    assert encode(first) == encode(second)
    later = replace(made.provenance, created="2030-01-01T00:00:00+00:00", ms=99.0, device="cuda", case="other")
    again = replace(made, explanation=replace(made.explanation, provenance=later))
    assert encode(parametric_map(again, placed)) == encode(first)
    uids = {
        first.SOPInstanceUID,
        first.SeriesInstanceUID,
        first.DimensionOrganizationSequence[0].DimensionOrganizationUID,
    }
    assert len(uids) == 3
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)
    changed = _values(made).copy()
    changed[2, 3, 4] += np.float32(1e-6)
    other = replace(made, explanation=replace(made.explanation, provenance=replace(made.provenance, seed=8)))
    for dataset in (
        parametric_map(made, made.source.volume(changed)),
        parametric_map(made, placed, None, Encoding.UINT16),
        parametric_map(other, placed),
        stamp(parametric_map(made, placed), made.key, "another kind"),
    ):
        assert dataset.SOPInstanceUID != first.SOPInstanceUID
        assert dataset.SeriesInstanceUID != first.SeriesInstanceUID


def test_an_open_sequence_of_the_source_is_closed_before_it_counts(
    series: tuple, made_of: Callable[..., Made], tmp_path: Path
) -> None:
    """An archive that stores it with its length must not make another object of it."""
    made = made_of(series[1])
    placed = made.source.volume(_values(made))
    plain = parametric_map(made, placed)
    uids = set()
    for is_open in (True, False):
        method = Dataset()
        method.CodeValue, method.CodingSchemeDesignator, method.CodeMeaning = "113100", "DCM", "Basic Profile"
        method.is_undefined_length_sequence_item = is_open
        plain.DeidentificationMethodCodeSequence = [method]
        plain["DeidentificationMethodCodeSequence"].is_undefined_length = is_open
        path = write_object(stamp(plain, made.key, "pm"), tmp_path / "map.dcm")
        assert not dcmread(path)["DeidentificationMethodCodeSequence"].is_undefined_length
        uids.add(str(plain.SOPInstanceUID))
    assert len(uids) == 1


def test_the_key_is_of_what_made_the_map(series: tuple, made_of: Callable[..., Made]) -> None:
    made = made_of(series[1]).provenance
    same = replace(made, created="", ms=1.0, device="cuda", case="x", warnings=("w",), own=(3, 3), applicability="")
    assert content_key(same) == content_key(made)
    for change in ({"seed": 1}, {"target": "x"}, {"settings": {"relu": False}}, {"model_digest": "0"}, {"layer": "y"}):
        assert content_key(replace(made, **change)) != content_key(made)


def test_what_every_object_says_of_itself(series: tuple, made_of: Callable[..., Made], canary: tuple[str, ...]) -> None:
    made = made_of(series[1])
    dataset = parametric_map(made, made.source.volume(_values(made)))
    assert dataset.ContentQualification == "RESEARCH"
    assert dataset.SeriesDescription.startswith(RESEARCH)
    assert dataset.PatientID == made.source.first.PatientID
    assert (dataset.ContentDate, dataset.ContentTime) == ("20200101", "120000")
    assert "InstanceCreationDate" not in dataset
    assert not any("DateTime" in e.keyword for item in dataset.ContributingEquipmentSequence for e in item)
    mapping = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "{logit}"
    codes = [c.CodeValue for q in mapping.QuantityDefinitionSequence for c in q.ConceptCodeSequence]
    assert codes == ["130403"]
    assert dataset.DerivationDescription == canonical_parameters(made)
    assert "RedPaletteColorLookupTableDescriptor" not in dataset
    referred = {i.ReferencedSOPInstanceUID for i in dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referred == {h.SOPInstanceUID for h in made.source.headers}
    assert encode(dataset)[:128] == bytes(128)
    told = " ".join(parameters(made).values()) + dataset.SeriesDescription
    assert not any(part in told for part in canary)


def test_each_family_has_the_standards_code() -> None:
    found = {name: explanation_code(method.card).value for name, method in explainers().items()}
    assert (found["GradCAM"], found["EigenCAM"], found["Saliency"]) == ("130403", "130402", "130404")
    assert set(found.values()) == {"130402", "130403", "130404"}


def test_a_region_is_of_the_model_and_comes_back_with_its_empty_slices(
    series: tuple, made_of: Callable[..., Made], tmp_path: Path
) -> None:
    made = made_of(series[1])
    region = np.zeros(_values(made).shape, bool)
    region[1, 3:6, 4:9] = region[4, 2, 2] = True  # empty slices between and around
    placed = made.source.volume(region)
    dataset = segmentation(made, placed)
    assert round_trip(write_object(dataset, tmp_path / "seg.dcm"), placed).passed
    segment = dataset.SegmentSequence[0]
    assert segment.SegmentLabel == LABEL
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    named = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert (named.AlgorithmName, named.AlgorithmVersion) == ("GradCAM", "0.1")
    assert f"weights_sha256={'b' * 64}" in named.AlgorithmParameters
    with pytest.raises(BadRegion, match="empty"):
        segmentation(made, made.source.volume(np.zeros_like(region)))


def test_a_projection_gets_a_region_on_its_pixels_and_no_map(
    packaged: Callable[[str], Path], made_of: Callable[..., Made], tmp_path: Path
) -> None:
    made = made_of(packaged("RG3_UNCR.dcm"))
    region = _values(made) > 4
    placed = made.source.flat_map(region)
    path = write_object(segmentation(made, placed), tmp_path / "seg.dcm")
    assert round_trip(path, placed).passed
    written = dcmread(path)
    assert "FrameOfReferenceUID" not in written
    assert (written.Rows, written.Columns) == made.source.size
    with pytest.raises(BadOption, match="bare Flat"):
        parametric_map(made, made.source.flat_map(_values(made)))


def test_a_single_slice_keeps_its_thickness(series: tuple, made_of: Callable[..., Made], tmp_path: Path) -> None:
    truth, folder = series
    made = made_of(next(folder.iterdir()))
    placed = made.source.volume(_values(made))
    assert placed.spacing == pytest.approx(truth.steps)
    assert round_trip(write_object(parametric_map(made, placed), tmp_path / "pm.dcm"), placed).passed
    region = made.source.volume(_values(made) > 1)
    assert round_trip(write_object(segmentation(made, region), tmp_path / "seg.dcm"), region).passed


@pytest.mark.parametrize("name", ["US1_UNCR.dcm", "JPEG2000.dcm"])
def test_pictures_that_say_little_of_their_place(
    packaged: Callable[[str], Path], made_of: Callable[..., Made], tmp_path: Path, name: str
) -> None:
    """Without an orientation, and with a frame of reference but no position in it."""
    made = made_of(packaged(name))
    region = made.source.flat_map(_values(made) > 1)
    path = write_object(segmentation(made, region), tmp_path / "seg.dcm")
    assert round_trip(path, region).passed
    assert "PatientOrientation" in dcmread(path)
    assert "FrameOfReferenceUID" not in dcmread(path)


def test_an_encoder_that_fails_says_nothing_of_the_patient(
    series: tuple, made_of: Callable[..., Made], canary: tuple[str, ...]
) -> None:
    made = made_of(series[1])
    broken = Dataset()
    broken.update(made.source.headers[0])
    broken.SOPClassUID = "1.2.3"
    broken.PatientSex = "CANARYNAME"
    mended = replace(made, source=replace(made.source, headers=(broken, *made.source.headers[1:])))
    with pytest.raises(UnwritableOutput) as caught:
        parametric_map(mended, made.source.volume(_values(made)))
    assert not any(part in str(caught.value) for part in canary)
