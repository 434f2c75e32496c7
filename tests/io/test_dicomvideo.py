"""An MPEG stream inside DICOM: the frame that was asked for, with the place and lengths of the header."""

import cv2
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, UltrasoundMultiFrameImageStorage

from pellucid.core.errors import BadOption, UnreadableImage
from pellucid.core.image import Modality
from pellucid.io.reader import read_image

COUNT = 20


@pytest.fixture
def dataset(tmp_path, phantom):
    """An ultrasound loop that becomes brighter by ten a frame."""
    writer = cv2.VideoWriter(str(tmp_path / "loop.mpg"), cv2.VideoWriter_fourcc(*"PIM1"), 25, (160, 128))
    assert writer.isOpened()
    for number in range(COUNT):
        writer.write(np.full((128, 160, 3), 10 * number, np.uint8))
    writer.release()
    data = phantom(shape=(1, 16, 20), bright=(0, 3, 15)).datasets(modality="US")[0]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"):
        delattr(data, keyword)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    data.file_meta.TransferSyntaxUID = MPEG2MPML
    data.Rows, data.Columns, data.NumberOfFrames = 128, 160, COUNT
    data.SamplesPerPixel, data.PlanarConfiguration, data.PhotometricInterpretation = 3, 0, "YBR_PARTIAL_420"
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = encapsulate([(tmp_path / "loop.mpg").read_bytes()])
    data["PixelData"].is_undefined_length = True
    return data


def test_the_frame_is_the_one_asked_for(tmp_path, dataset, canary):
    dataset.save_as(tmp_path / "x", enforce_file_format=True)
    image = read_image(tmp_path / "x", index=12)
    assert (image.modality, image.unit, image.grid.shape) == (Modality.ULTRASOUND, "[0,1]", (128, 160))
    assert float(image.data.mean()) * 255 == pytest.approx(120, abs=5)
    assert image.traits["frame"] == 12
    assert image.traits["format"] == "DICOM"
    for index, told in ((None, "a video of 20 frames"), (COUNT, "from 0 to 19|ends after 20")):
        with pytest.raises(BadOption, match=told) as caught:
            read_image(tmp_path / "x", index=index)
        assert not any(word in str(caught.value) for word in canary)


def test_a_stream_that_is_none_or_of_another_size_is_refused(tmp_path, dataset):
    good = dataset.PixelData
    dataset.PixelData = encapsulate([b"#EXTM3U\nfile:///etc/passwd\n" * 50])
    dataset.save_as(tmp_path / "x", enforce_file_format=True)
    with pytest.raises(UnreadableImage, match="damaged or incomplete"):
        read_image(tmp_path / "x", index=0)
    dataset.PixelData, dataset.Rows = good, 64
    dataset.save_as(tmp_path / "y", enforce_file_format=True)
    with pytest.raises(UnreadableImage, match="expected frames of 64 x 160, got 128 x 160"):
        read_image(tmp_path / "y", index=0)
