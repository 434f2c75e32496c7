"""Presentation states and captures as another reader of DICOM would apply them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_windowing

from pellucid.core.case import Case
from pellucid.core.errors import BadOption, ShapeMismatch
from pellucid.core.explanation import Attribution, Explanation, Prediction, Provenance, Reference
from pellucid.core.prepare import Prepared
from pellucid.explain.gradient import Saliency
from pellucid.io.objects import capture as captures
from pellucid.io.objects.capture import Pictures, secondary_capture
from pellucid.io.objects.identity import encode
from pellucid.io.objects.maps import Encoding, parametric_map
from pellucid.io.objects.marks import Made
from pellucid.io.objects.source import open_source
from pellucid.io.objects.state import presentation_state
from pellucid.io.reader import read_cases
from pellucid.io.suv import converted
from pellucid.show.figure import sketch
from pellucid.workbench.displaying import displayed, drawing_of, pictures_of, table_of

Write = Callable[..., Path]


def explained(case: Case, signed: bool = False, null: float | None = 0.5) -> Explanation:
    """A map that is its image's brightest voxels; where it is signed, the darkest speak against."""
    image = case.images["image"]
    values = (image.data > 0).float() - (signed * (image.data < -990)).float()
    answer = Attribution({"image": values[None]}, "logit", signed, cell=(1.0,) * image.grid.rank)
    made = Provenance(
        "case-1", image.digest, "toy 1", "b" * 64, "", "block", "Saliency", {}, None, None, 0, "float32", "cpu",
        (1, 1), (0, 0), 1.0, {"pellucid": "0"}, "2026-01-01T00:00:00+00:00", "applies",
    )  # fmt: skip
    prepared = Prepared(image.data, image.grid, image.grid, (0.0,), (1.0,))
    reference = Reference(1.0, null, 0.05, 10, 10, "formula-made normals")
    said = Prediction("block", 2.0, "logit", 0.9, 0.0, "block", {"block": 0.9})
    return Explanation(answer, made, said, image, prepared, reference)


def made_of(case: Case, **options: object) -> Made:
    source = open_source(case.files["image"], case.images["image"])
    return Made(explained(case, **options), Saliency.card, source, "Saliency")


@pytest.fixture
def series(phantom: type, write: Write, tmp_path: Path) -> Callable[..., Case]:
    def read(**options: object) -> Case:
        truth = phantom((5, 24, 30))
        return read_cases(write(tmp_path / "series", truth.datasets(**options))).cases[0]

    return read


def test_slices_of_several_slopes_get_windows_of_their_own(series: Callable[..., Case]) -> None:
    case = series(slopes=[1.0, 2.0, 1.5, 1.0, 3.0])
    made = made_of(case)
    state = presentation_state(made, drawing_of(sketch(made.explanation)))
    assert "RescaleSlope" not in state
    low, high = case.images["image"].window or (0.0, 0.0)
    by_uid = {h.SOPInstanceUID: h for h in made.source.headers}
    assert len(state.SoftcopyVOILUTSequence) == 5
    for item in state.SoftcopyVOILUTSequence:
        header = by_uid[item.ReferencedImageSequence[0].ReferencedSOPInstanceUID]
        center, width = float(item.WindowCenter), float(item.WindowWidth)
        ends = np.asarray([center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2])
        assert np.allclose(ends * float(header.RescaleSlope) + float(header.RescaleIntercept), [low, high], atol=0.01)


def test_the_window_of_the_report_is_the_window_of_the_state(series: Callable[..., Case]) -> None:
    made = made_of(series())
    state = presentation_state(made, drawing_of(sketch(made.explanation)))
    item = Dataset()
    item.update(state.SoftcopyVOILUTSequence[0])
    assert (float(state.RescaleSlope), float(state.RescaleIntercept)) == (1.0, -1024.0)
    assert (float(item.WindowCenter), float(item.WindowWidth)) == (40.0, 400.0)
    item.PhotometricInterpretation, item.BitsStored, item.PixelRepresentation = "MONOCHROME2", 16, 0
    assert apply_windowing(np.asarray([-200.0, 300.0]), item).tolist() == [0, 65535]
    assert [int(v) for v in state.DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio] == [4, 3]


def test_a_pet_series_in_suv_is_still_its_source_and_keeps_its_window(
    phantom: type, write: Write, tmp_path: Path
) -> None:
    datasets = phantom((5, 24, 30)).datasets(modality="PT")
    for data in datasets:
        data.Units, data.DecayCorrection, data.CorrectedImage = "BQML", "START", ["DECY", "ATTN"]
        data.SeriesDate = data.AcquisitionDate = "20200101"
        data.SeriesTime, data.AcquisitionTime, data.RescaleIntercept = "120000", "120000", 0
        data.PatientWeight, data.PatientSex, data.ActualFrameDuration = 80.0, "M", 120000
        injection = Dataset()
        injection.RadionuclideTotalDose, injection.RadionuclideHalfLife = 3e8, 6586.2
        injection.RadiopharmaceuticalStartTime = "110000"
        data.RadiopharmaceuticalInformationSequence = [injection]
    case = read_cases(write(tmp_path / "series", datasets)).cases[0]
    image = case.images["image"]
    factor = float(image.traits["suv_bw"])
    case = replace(case, images={"image": converted(image, "SUVbw")})
    assert case.images["image"].unit == "SUVbw"
    made = made_of(case)
    assert made.source.factor == pytest.approx(factor)
    drawing = drawing_of(sketch(made.explanation))
    item = presentation_state(made, drawing).SoftcopyVOILUTSequence[0]
    low = float(item.WindowCenter) - 0.5 - (float(item.WindowWidth) - 1) / 2
    assert low * factor == pytest.approx(drawing.window[0], rel=1e-4)


def test_an_inverted_film_stays_as_it_is_read(phantom: type, tmp_path: Path) -> None:
    data = phantom((1, 24, 30), bright=(0, 0, 0)).datasets(photometric="MONOCHROME1", modality="DX")[0]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"):
        delattr(data, keyword)
    data.PatientOrientation = ["L", "F"]
    data.save_as(tmp_path / "film", enforce_file_format=True)
    made = made_of(read_cases(tmp_path / "film").cases[0])
    state = presentation_state(made, drawing_of(sketch(made.explanation)))
    assert state.PresentationLUTShape == "INVERSE"
    item = state.SoftcopyVOILUTSequence[0]
    assert (float(item.WindowCenter), float(item.WindowWidth)) == (40.0, 400.0)  # as the header has it


def test_layers_tell_for_from_against_and_words(series: Callable[..., Case]) -> None:
    made = made_of(series(), signed=True)
    state = presentation_state(made, drawing_of(sketch(made.explanation), ("PLANTED block, not a finding",)))
    assert [layer.GraphicLayer for layer in state.GraphicLayerSequence] == ["FOR", "AGAINST", "WORDS"]
    by_layer: dict[str, list[Dataset]] = {}
    for annotation in state.GraphicAnnotationSequence:
        by_layer.setdefault(annotation.GraphicLayer, []).append(annotation)
    lines = [g for a in by_layer["AGAINST"] for g in a.GraphicObjectSequence]
    assert lines
    assert all(g.LineStyleSequence[0].LineDashingStyle == "DASHED" for g in lines)
    assert not any("LineStyleSequence" in g for a in by_layer["FOR"] for g in a.GraphicObjectSequence)
    words = by_layer["WORDS"][0]
    assert len(words.ReferencedImageSequence) == 5
    text = words.TextObjectSequence[0].UnformattedTextValue
    assert text.startswith("RESEARCH - NOT FOR DIAGNOSIS - PLANTED")
    assert text.isascii()


def test_colors_of_the_map_are_black_up_to_the_null(series: Callable[..., Case]) -> None:
    made = made_of(series())
    values = made.explanation.numpy()[0]
    for encoding in Encoding:
        pm = parametric_map(made, made.source.volume(values), encoding=encoding)
        found = displayed(made, (), pm)
        assert found.skipped == ()
        state = found.objects["pcps"]
        item = state.SoftcopyVOILUTSequence[0]
        high = float(item.WindowCenter) + float(item.WindowWidth) / 2
        assert high == pytest.approx(1.0 if encoding is Encoding.FLOAT32 else 65535.0)
        red, green, blue = (
            np.frombuffer(state[f"{c}PaletteColorLookupTableData"].value, "<u2") for c in ("Red", "Green", "Blue")
        )
        total = red.astype(int) + green + blue
        assert not total[: len(total) // 2].any()
        assert total[len(total) // 2 + 1 :].all()
    assert (table_of(sketch(made.explanation))[-1].astype(int) * 257 == (red[-1], green[-1], blue[-1])).all()


def test_below_the_operating_point_only_the_picture_says_so(series: Callable[..., Case]) -> None:
    made = made_of(series())
    said = made.explanation.prediction
    assert said is not None
    made = replace(made, explanation=replace(made.explanation, prediction=replace(said, value=-1.0)))
    found = displayed(made)
    assert set(found.objects) == {"sc"}
    assert found.objects["sc"].NumberOfFrames == 1
    assert "no map is shown" in dict(found.skipped)["gsps"]
    assert "no map is shown" in found.objects["sc"].DerivationDescription


def test_an_object_is_the_same_made_twice_and_another_when_the_picture_differs(series: Callable[..., Case]) -> None:
    made = made_of(series())
    pictures = pictures_of(made.explanation)
    one, two = (secondary_capture(made, pictures) for _ in range(2))
    assert encode(one) == encode(two)
    frames = pictures.frames.copy()
    frames[0, 0, 0] ^= 1
    other = secondary_capture(made, replace(pictures, frames=frames))
    assert other.SOPInstanceUID != one.SOPInstanceUID
    assert one.BurnedInAnnotation == "YES"
    assert [i.ReferencedSOPInstanceUID for i in one.SourceImageSequence] == [
        h.SOPInstanceUID for h in made.source.headers
    ]


def test_pictures_of_a_frame_name_it_and_those_of_a_resampled_image_name_all_its_instances(
    series: Callable[..., Case], packaged: Callable[[str], Path]
) -> None:
    made = made_of(series())
    one = replace(pictures_of(made.explanation), slices=(0,))
    one = replace(one, frames=one.frames[:1])
    assert len(secondary_capture(made, one).SourceImageSequence) == 1
    resampled = replace(made, source=replace(made.source, aligned=False))
    assert len(secondary_capture(resampled, one).SourceImageSequence) == len(made.source.headers)
    film = made_of(read_cases(packaged("RG3_UNCR.dcm")).cases[0])
    pictures = pictures_of(film.explanation)
    assert "ReferencedFrameNumber" not in secondary_capture(film, pictures).SourceImageSequence[0]
    film.source.first.NumberOfFrames = 30
    loop = replace(film, source=replace(film.source, frames=(7,)))
    assert secondary_capture(loop, pictures).SourceImageSequence[0].ReferencedFrameNumber == 7


def test_pictures_come_back_to_the_bit_with_and_without_the_encoder(
    series: Callable[..., Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_of(series())
    pictures = pictures_of(made.explanation)
    for name in ("pylibjpeg", "absent"):
        monkeypatch.setattr(captures, "_ENCODER", name)
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(encode(secondary_capture(made, pictures)))
        again = dcmread(path)
        assert again.file_meta.TransferSyntaxUID.is_encapsulated == (name == "pylibjpeg")
        assert (again.pixel_array == pictures.frames).all()


def test_what_is_not_of_this_source_is_refused(series: Callable[..., Case]) -> None:
    made = made_of(series())
    with pytest.raises(ShapeMismatch):
        secondary_capture(made, Pictures(np.zeros((1, 4, 4, 3), np.uint8), (0,), 1, "x"))
    drawing = drawing_of(sketch(made.explanation))
    line = np.asarray([[0, 0], [31, 0], [0, 0]], np.float32)
    with pytest.raises(ShapeMismatch, match="inside"):
        presentation_state(made, replace(drawing, lines=[(0, True, line)]))
    with pytest.raises(BadOption, match="resampled"):
        presentation_state(replace(made, source=replace(made.source, aligned=False)), drawing)


def test_nothing_of_the_patient_is_in_words_or_pixels(series: Callable[..., Case], canary: tuple[str, ...]) -> None:
    found = displayed(made_of(series()))
    for dataset in found.objects.values():
        told = [dataset.get(k, "") for k in ("SeriesDescription", "DerivationDescription", "ContentDescription")]
        told += [str(t.UnformattedTextValue) for a in dataset.get("GraphicAnnotationSequence", ())
                 for t in a.get("TextObjectSequence", ())]  # fmt: skip
        assert not any(word in text for word in canary for text in told)
    assert not any(word in repr(found) for word in canary)
