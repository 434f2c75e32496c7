"""The structured report: what a reader must see, in codes, in its place, and read back."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset, dcmread

from pellucid.core.errors import InputError
from pellucid.core.explanation import Attribution, Explanation, Prediction, Provenance
from pellucid.core.image import Image
from pellucid.core.prepare import Prepared
from pellucid.explain.cam import GradCAM
from pellucid.io.objects.identity import write_object
from pellucid.io.objects.maps import Encoding, parametric_map, quantum
from pellucid.io.objects.marks import Made
from pellucid.io.objects.reading import Kind, read_map, read_ours, read_region, read_report
from pellucid.io.objects.recipe import MapFacts, Recipe
from pellucid.io.objects.record import FIRST_LINE, Measured, Ruling, Told, private, structured_report
from pellucid.io.objects.segment import segmentation
from pellucid.io.objects.source import open_source
from pellucid.io.reader import read_cases, read_image

TOLD = Told(
    measured=(
        Measured("Model output for the target", -2.5, "logit"),
        Measured("Operating point", None, "logit", "the model card names no operating point"),
        Measured("DeletionAUC", 0.1 + 0.2, "logit", "", "DeletionAUC:steps=20", ("random order 0.4",)),
        Measured("IoU", float("nan"), "1", "no expert region", "IoU:threshold=area"),
    ),
    rulings=(
        Ruling("golden vectors", "pass", "off by at most 3e-7"),
        Ruling("sham test", "fail", "1 \u00d7 \u22122", -2.0),
    ),
    said={"Doubts": ("one", "two"), "Model": ("Name: finder",)},
)


def _made(image: Image, files: tuple[Path, ...], values: np.ndarray | None = None) -> Made:
    data = np.linspace(-1, 2, int(np.prod(image.grid.shape)), dtype=np.float32).reshape(image.grid.shape)
    given = image.data.new_tensor(data if values is None else values)[None, None]
    answer = Attribution({"image": given}, "logit", signed=True, cell=(1.0,) * image.grid.rank)
    provenance = Provenance(
        "case-1", image.digest, "finder 1", "b" * 64, "c" * 64, "nodule", "GradCAM", {"layer": "features"}, "features",
        None, 7, "float32", "cpu", (1, 1), (0, 0), 1.0, {"pellucid": "0"}, "2026-01-01T00:00:00+00:00", "applies",
    )  # fmt: skip
    prepared = Prepared(image.data, image.grid, image.grid, (0.0,), (1.0,))
    said = Prediction("nodule", -2.5, "logit", 0.08, None, "nodule", {"nodule": 0.08})
    explanation = Explanation(answer, provenance, said, image, prepared)
    return Made(explanation, GradCAM.card, open_source(files, image), "GradCAM")


def _recipe(made: Made) -> Recipe:
    facts = MapFacts.of(made.explanation.numpy()[0], "logit")
    return Recipe("nodule", "GradCAM:layer=features", seed=7, made=facts, key=made.key)


@pytest.fixture
def scan(phantom: type, write: Callable[..., Path], tmp_path: Path) -> Made:
    """A map on an oblique, anisotropic series."""
    one, two = np.deg2rad(17), np.deg2rad(-24)
    about_x = np.array([[1, 0, 0], [0, np.cos(one), -np.sin(one)], [0, np.sin(one), np.cos(one)]])
    about_z = np.array([[np.cos(two), -np.sin(two), 0], [np.sin(two), np.cos(two), 0], [0, 0, 1]])
    case = read_cases(write(tmp_path / "series", phantom(turn=about_z @ about_x).datasets())).cases[0]
    return _made(case.images["image"], case.files["image"])


@pytest.fixture
def film(packaged: Callable[[str], Path]) -> Made:
    path = packaged("RG3_UNCR.dcm")
    return _made(read_image(path), (path,))


def _walk(dataset: Dataset, depth: int = 0) -> Iterator[tuple[int, Dataset]]:
    for item in dataset.get("ContentSequence", ()):
        yield depth, item
        yield from _walk(item, depth + 1)


def _named(dataset: Dataset, meaning: str) -> list[Dataset]:
    return [i for _, i in _walk(dataset) if i.ConceptNameCodeSequence[0].CodeMeaning == meaning]


def _kept(dataset: Dataset, folder: Path) -> Path:
    return write_object(dataset, folder / f"{dataset.Modality}.dcm")


def test_it_is_preliminary_unverified_research_and_says_first_what_it_cannot_say(scan: Made) -> None:
    report = structured_report(scan, _recipe(scan), TOLD)
    assert report.SOPClassUID.name == "Comprehensive 3D SR Storage"
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert "RESEARCH - NOT FOR DIAGNOSIS" in report.ConceptNameCodeSequence[0].CodeMeaning
    assert "RESEARCH - NOT FOR DIAGNOSIS" in report.SeriesDescription
    group = _named(report, "Measurement Group")[0]
    assert group.ContentSequence[0].TextValue == FIRST_LINE
    assert "says nothing about whether the model is right" in FIRST_LINE
    assert report.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99PELLUCID"


def test_the_algorithm_is_identified_and_its_first_parameter_holds_them_all(scan: Made) -> None:
    report = structured_report(scan, _recipe(scan), TOLD)
    group = _named(report, "Measurement Group")[0]
    own = {i.ConceptNameCodeSequence[0].CodeMeaning: i for i in reversed(group.ContentSequence)}
    assert own["Algorithm Name"].TextValue == "GradCAM"
    assert own["Algorithm Family"].ConceptCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    first = own["Algorithm Parameters"].TextValue
    for said in (f"weights_sha256={'b' * 64}", "layer=features", "seed=7", "target=nodule", "unit=logit"):
        assert said in first
    assert own["Finding"].ConceptCodeSequence[0].CodeValue == "130403"  # gradient-weighted class activation


def test_numbers_are_coded_and_what_is_undefined_is_no_number(scan: Made, tmp_path: Path) -> None:
    report = dcmread(_kept(structured_report(scan, _recipe(scan), TOLD), tmp_path))
    (area,) = _named(report, "DeletionAUC")
    assert area.ValueType == "NUM"
    assert area.MeasuredValueSequence[0].FloatingPointValue == 0.1 + 0.2
    assert area.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "{logit}"
    said = [i.TextValue for i in area.ContentSequence if i.ValueType == "TEXT"]
    assert {"DeletionAUC:steps=20", "random order 0.4"} <= set(said)
    (overlap,) = _named(report, "IoU")
    assert overlap.ValueType == "CODE"
    assert overlap.ConceptCodeSequence[0].CodeMeaning == "Measurement failure"
    assert overlap.ContentSequence[0].TextValue == "undefined: no expert region"
    (sham,) = _named(report, "sham test")
    assert sham.ConceptCodeSequence[0].CodeMeaning == "fail"
    assert sham.ContentSequence[0].TextValue == "1 x -2"  # a lost minus would turn the number over
    found = read_report(read_ours(tmp_path / "SR.dcm"))
    assert found.scores == {"DeletionAUC:steps=20": 0.1 + 0.2, "IoU:threshold=area": None}
    assert found.rulings == {"golden vectors": "pass", "sham test": "fail"}
    assert found.numbers["Model output for the target"] == -2.5


def test_it_names_its_sources_its_map_and_what_it_replaces(scan: Made) -> None:
    map_ = parametric_map(scan, scan.source.volume(scan.explanation.numpy()[0]))
    first = structured_report(scan, _recipe(scan), TOLD)
    told = replace(TOLD, objects=(map_,), predecessors=(first,), measured=TOLD.measured[:2])
    report = structured_report(scan, _recipe(scan), told)
    (shown,) = _named(report, "Visual explanation")
    assert shown.ConceptNameCodeSequence[0].CodeValue == "130401"
    assert shown.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == map_.SOPInstanceUID
    assert len(_named(report, "Source of Measurement")) == len(scan.source.headers)
    earlier = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert earlier.ReferencedSOPInstanceUID == first.SOPInstanceUID != report.SOPInstanceUID


def test_a_region_lies_in_the_frame_of_reference(scan: Made) -> None:
    grid = scan.source.image.grid
    region = np.zeros(grid.shape, bool)
    region[2:4, 3:6, 4:9] = True
    report = structured_report(scan, _recipe(scan), replace(TOLD, region=region))
    lines = _named(report, "Volume Surface")
    assert {i.ReferencedFrameOfReferenceUID for i in lines} == {grid.frame_of_reference}
    corners = np.concatenate([np.reshape(i.GraphicData, (-1, 3))[:-1] for i in lines])
    index = grid.index(corners)
    assert np.allclose(index.min(0), [2, 2.5, 3.5], atol=1e-3)
    assert np.allclose(index.max(0), [3, 5.5, 8.5], atol=1e-3)
    region[3] = False
    report = structured_report(scan, _recipe(scan), replace(TOLD, region=region))
    assert [i.GraphicType for i in _named(report, "Image Region")] == ["POLYGON"]
    nothing = structured_report(scan, _recipe(scan), replace(TOLD, region=np.zeros(grid.shape, bool)))
    assert len(_named(nothing, "Measurement Group")) == 1


def test_the_region_of_a_film_lies_on_its_pixels(film: Made) -> None:
    region = np.zeros(film.source.image.grid.shape, bool)
    region[10:20, 30:50] = region[5, 5] = True
    report = structured_report(film, _recipe(film), replace(TOLD, region=region))
    assert report.SOPClassUID.name == "Comprehensive SR Storage"
    lines = _named(report, "Image Region")
    assert [i.GraphicType for i in lines] == ["POLYLINE", "POLYLINE"]
    corners = np.reshape(lines[0].GraphicData, (-1, 2))
    assert corners.min(0).tolist() == [30, 10]  # columns first
    assert corners.max(0).tolist() == [50, 20]
    source = lines[0].ContentSequence[0].ReferencedSOPSequence[0]
    assert source.ReferencedSOPInstanceUID == film.source.first.SOPInstanceUID


def test_too_many_outlines_are_left_out_aloud(scan: Made) -> None:
    shape = scan.source.image.grid.shape
    region = np.indices(shape).sum(0) % 2 == 0
    report = structured_report(scan, _recipe(scan), replace(TOLD, region=region))
    count = int(region.sum())
    assert len(_named(report, "Volume Surface")) == 400 < count
    assert _named(report, "Region")[0].TextValue == f"{count - 400} of {count} outlines, the shortest, are left out"


def test_a_map_comes_back_in_the_order_of_its_source_and_a_changed_object_is_noticed(
    scan: Made, tmp_path: Path
) -> None:
    values, geometry = scan.explanation.numpy()[0], scan.source.geometry
    assert geometry is not None
    for encoding, step in ((Encoding.FLOAT32, 0.0), (Encoding.UINT16, quantum(scan.source.volume(values)))):
        path = _kept(parametric_map(scan, scan.source.volume(values), _recipe(scan), encoding), tmp_path)
        ours = read_ours(path)
        assert (ours.kind, ours.recipe.seed) == (Kind.MAP, 7)
        assert ours.referred == {h.SOPInstanceUID for h in scan.source.headers}
        found = read_map(ours, geometry)
        assert found is not None
        assert found.step == pytest.approx(step)
        assert np.abs(found.volume.array - values).max() <= step / 2 * 1.01
        assert ours.unchanged()
        moved = geometry.affine.copy()
        moved[:3, 3] += 1
        frame = geometry.frame_of_reference_uid
        for affine, uid in ((moved, frame), (geometry.affine, "1.2.3")):
            elsewhere = hd.VolumeGeometry(affine, geometry.spatial_shape, "PATIENT", frame_of_reference_uid=uid)
            assert read_map(ours, elsewhere) is None
        content = path.read_bytes()
        path.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
        assert not read_ours(path).unchanged()


def test_a_region_comes_back(scan: Made, tmp_path: Path) -> None:
    region = scan.explanation.numpy()[0] > 1.5
    path = _kept(segmentation(scan, scan.source.volume(region), _recipe(scan)), tmp_path)
    ours = read_ours(path)
    assert ours.kind is Kind.REGION
    found = read_region(ours, scan.source.geometry)
    assert found is not None
    assert np.array_equal(found, region)
    assert ours.unchanged()


def test_what_is_not_ours_is_refused_without_its_name(
    scan: Made, packaged: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="an object that Pellucid writes") as refused:
        read_ours(packaged("CT_small.dcm"))
    assert "CompressedSamples" not in str(refused.value)
    foreign = parametric_map(scan, scan.source.volume(scan.explanation.numpy()[0]))
    with pytest.raises(InputError, match="holds no recipe"):
        read_ours(_kept(foreign, tmp_path))


def test_codes_of_our_own_fit_into_their_field() -> None:
    codes = [
        private(name) for name in ("Dice", "ModelParameterRandomization", "gradient to layer a", "HitRate:radius_mm=5")
    ]
    assert all(len(c.value) <= 16 and c.scheme_designator == "99PELLUCID" for c in codes)
    assert len({c.value for c in codes}) == len(codes)


def test_the_region_of_a_volume_without_frame_of_reference_lies_on_its_own_slice(
    phantom: type, write: Callable[..., Path], tmp_path: Path
) -> None:
    datasets = phantom().datasets()
    for data in datasets:
        del data.FrameOfReferenceUID
    case = read_cases(write(tmp_path / "series", datasets)).cases[0]
    made = _made(case.images["image"], case.files["image"])
    region = np.zeros(made.source.image.grid.shape, bool)
    region[3, 1:4, 2:5] = region[1, 2, 2] = True
    report = structured_report(made, _recipe(made), replace(TOLD, region=region))
    sources = [i.ContentSequence[0].ReferencedSOPSequence[0] for i in _named(report, "Image Region")]
    wanted = [made.source.headers[place].SOPInstanceUID for place in (3, 1)]
    assert [s.ReferencedSOPInstanceUID for s in sources] == wanted
