"""Frames of videos: the number that is burned into a frame is the one that was asked for."""

import cv2
import numpy as np
import pytest
from PIL import Image as Picture

from pellucid.core.errors import BadOption, UnreadableImage
from pellucid.core.image import Modality
from pellucid.io import guard
from pellucid.io.reader import read_image
from pellucid.io.several import read_chosen

FORMS = {"mp4": "mp4v", "avi": "MJPG", "mkv": "FFV1", "webm": "VP80"}
COUNT = 40


@pytest.fixture(scope="module")
def base(shared_data):
    source = min((shared_data / "endoscopy_polyp" / "kvasir" / "images").iterdir())
    return np.asarray(Picture.open(source).convert("RGB").resize((160, 128)))


def frame(base, number):
    """Endoscopy that moves, with its number in eight black or white blocks."""
    moved = np.roll(base, 3 * number, axis=1).copy()
    for bit in range(8):
        moved[:16, 16 * bit : 16 * bit + 16] = 255 * ((number >> bit) & 1)
    return moved


def number_in(image):
    return sum(1 << bit for bit in range(8) if float(image.data[:, 8, 16 * bit + 8].mean()) > 0.5)


def made(folder, base, ending):
    path = folder / f"made.{ending}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*FORMS[ending]), 25, (160, 128))
    assert writer.isOpened()
    for number in range(COUNT):
        writer.write(np.ascontiguousarray(frame(base, number)[..., ::-1]))
    writer.release()
    return path.rename(folder / f"loop-{ending}")  # the content says what it is


@pytest.mark.parametrize("ending", FORMS)
def test_the_frame_is_the_one_asked_for(tmp_path, base, ending):
    path = made(tmp_path, base, ending)
    image = read_image(path, Modality.ENDOSCOPY, 29)
    assert number_in(image) == 29
    assert image.modality is Modality.ENDOSCOPY
    assert (image.unit, image.grid.unit, image.grid.shape) == ("[0,1]", "px", (128, 160))
    assert image.traits["frame"] == 29
    assert image.traits["time_s"] == pytest.approx(29 / 25)
    assert image.traits["lossy"] == ("no" if ending == "mkv" else "yes")
    truth = np.moveaxis(frame(base, 29), -1, 0) / 255
    assert np.abs(image.data.numpy() - truth).mean() < (0.01 if ending == "mkv" else 0.06)


def test_each_frame_of_a_range_is_a_case_of_one_patient(tmp_path, base):
    path = made(tmp_path, base, "mp4")
    cases = read_chosen(path, range(3, 40, 12)).cases
    assert [number_in(c.images["image"]) for c in cases] == [3, 15, 27, 39]
    assert [c.name for c in cases] == ["loop-mp4-3", "loop-mp4-15", "loop-mp4-27", "loop-mp4-39"]
    assert {c.patient for c in cases} == {"loop-mp4"}


def test_without_a_number_the_frames_are_told_and_one_beyond_is_refused(tmp_path, base):
    path = made(tmp_path, base, "avi")
    with pytest.raises(BadOption, match="got a video \\(40 frames, 25 a second"):
        read_image(path)
    with pytest.raises(BadOption, match="from 0 to 39, got 40"):
        read_image(path, index=40)
    with pytest.raises(BadOption, match="from 0 to 499999"):
        read_image(path, index=10**8)


def test_a_video_that_was_cut_short_says_where_it_ends(tmp_path, base):
    whole = made(tmp_path, base, "avi").read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    assert number_in(read_image(tmp_path / "half", index=3)) == 3
    with pytest.raises(UnreadableImage, match=r"ends after \d+ frames and declares 40|damaged at frame"):
        read_image(tmp_path / "half", index=39)
    packed = made(tmp_path, base, "mp4").read_bytes()
    (tmp_path / "headless").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UnreadableImage, match="damaged or incomplete"):
        read_image(tmp_path / "headless", index=0)


@pytest.mark.parametrize("ending", ["mkv", "mp4", "avi"])
def test_a_damaged_frame_is_refused_and_not_patched_up(tmp_path, base, ending):
    content = bytearray(made(tmp_path, base, ending).read_bytes())
    for place in np.random.default_rng(0).integers(len(content) // 3, 2 * len(content) // 3, 40):
        content[place] ^= 0xFF
    (tmp_path / "hurt").write_bytes(content)
    assert number_in(read_image(tmp_path / "hurt", index=1)) == 1
    with pytest.raises(UnreadableImage, match="damaged at frame"):
        read_image(tmp_path / "hurt", index=39)


def test_sizes_are_bounded_before_decoding(tmp_path, base, monkeypatch):
    path = made(tmp_path, base, "avi")
    monkeypatch.setattr(guard, "MAX_VALUES", 160 * 128 * 3 * 4)
    with pytest.raises(UnreadableImage, match="frames of a video of at most"):
        read_chosen(path, range(5))
    assert len(read_chosen(path, range(4)).cases) == 4


def test_a_turn_that_the_file_states_is_applied(tmp_path, base):
    content = made(tmp_path, base, "mp4").read_bytes()
    box = content.index(b"tkhd")  # ISO 14496-12: the matrix is the 36 bytes before width and height
    size = int.from_bytes(content[box - 4 : box], "big")
    matrix = box - 4 + size - 8 - 36
    quarter = b"".join(n.to_bytes(4, "big", signed=True) for n in (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))
    (tmp_path / "turned").write_bytes(content[:matrix] + quarter + content[matrix + 36 :])
    plain, turned = read_image(tmp_path / "loop-mp4", index=5), read_image(tmp_path / "turned", index=5)
    assert turned.grid.shape == (160, 128)
    assert turned.traits["turned_deg"] == 90
    np.testing.assert_array_equal(turned.data.numpy(), np.rot90(plain.data.numpy(), -1, (1, 2)))  # clockwise
