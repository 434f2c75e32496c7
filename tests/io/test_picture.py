"""Pictures keep every bit they have, and say what they are not."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage
import tifffile
import torch
from PIL import Image as Picture

from pellucid.core.errors import BadOption, NonFinite, UnreadableImage
from pellucid.core.grid import Calibration
from pellucid.core.image import Modality
from pellucid.io.guard import MAX_VALUES
from pellucid.io.reader import read_image


def png_chunks(width, height, depth, color, rows):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_png(values, color):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png_chunks(values.shape[1], values.shape[0], 16, color, rows)


def test_the_fundus_photograph_of_skimage():
    path = Path(skimage.__file__).parent / "data" / "retina.jpg"
    image = read_image(path, Modality.FUNDUS)
    truth = np.asarray(Picture.open(path), np.float64)
    assert image.data.shape == (3, 1411, 1411)
    assert np.abs(image.data.numpy() - truth.transpose(2, 0, 1) / 255).max() < 1e-7
    assert (image.unit, image.modality, image.traits["lossy"]) == ("[0,1]", Modality.FUNDUS, "yes")
    # a picture has no millimeters and no left of a patient
    assert (image.grid.calibration, image.grid.letters, image.grid.unit) == (Calibration.NONE, None, "px")


def test_the_radiographs_and_masks_beside_the_project(shared_data):
    film = sorted((shared_data / "xray_nih" / "images").iterdir())[0]
    image = read_image(film, Modality.XRAY)
    assert image.data.shape == (1, 512, 512)
    mask = sorted((shared_data / "dermoscopy_ph2" / "masks").iterdir())[0]
    assert set(read_image(mask).data.unique().tolist()) == {0.0, 1.0}  # a 1-bit PNG
    labels = next(p for p in sorted((shared_data / "histology_nuclei").rglob("*.png")))
    raw = np.asarray(Picture.open(labels))
    assert raw.dtype == np.uint16
    assert torch.equal(read_image(labels).data[0], torch.from_numpy(raw.astype(np.float32)) / 65535)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_gray_keeps_its_depth_and_one_channel(tmp_path, kind, dtype, top):
    values = np.random.default_rng(0).integers(0, top + 1, (7, 9)).astype(dtype)
    Picture.fromarray(values).save(tmp_path / "x", format=kind)
    image = read_image(tmp_path / "x")
    assert image.data.shape == (1, 7, 9)
    assert torch.equal(image.data[0], torch.from_numpy(values.astype(np.float32)) / top)


def test_color_of_16_bits_keeps_the_low_byte(tmp_path):
    values = np.random.default_rng(1).integers(0, 65536, (7, 9, 3)).astype(np.uint16)
    expected = torch.from_numpy(values.astype(np.float32).transpose(2, 0, 1)) / 65535
    (tmp_path / "x.png").write_bytes(deep_png(values, 2))
    assert torch.equal(read_image(tmp_path / "x.png").data, expected)
    opaque = np.concatenate([values, np.full((7, 9, 1), 65535, np.uint16)], 2)
    (tmp_path / "y.png").write_bytes(deep_png(opaque, 6))
    assert torch.equal(read_image(tmp_path / "y.png").data, expected)
    for compression in (None, "zlib"):
        tifffile.imwrite(tmp_path / "z.tif", values, photometric="rgb", compression=compression)
        assert torch.equal(read_image(tmp_path / "z.tif").data, expected)


def test_floating_point_stays_as_it_is(tmp_path):
    values = np.random.default_rng(2).normal(size=(7, 9)).astype(np.float32) * 100
    tifffile.imwrite(tmp_path / "x.tif", values)
    image = read_image(tmp_path / "x.tif")
    assert torch.equal(image.data[0], torch.from_numpy(values))
    assert image.unit == "a.u."
    values[3, 3] = np.nan
    tifffile.imwrite(tmp_path / "y.tif", values)
    with pytest.raises(NonFinite, match="1 of 63"):
        read_image(tmp_path / "y.tif")


def test_alpha_is_dropped_only_where_it_says_nothing(tmp_path):
    values = np.random.default_rng(3).integers(0, 256, (6, 8, 4)).astype(np.uint8)
    values[..., 3] = 255
    Picture.fromarray(values).save(tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png").data * 255, torch.from_numpy(values[..., :3]).movedim(2, 0))
    values[0, 0, 3] = 254
    Picture.fromarray(values).save(tmp_path / "b.png")
    with pytest.raises(UnreadableImage, match=r"opaque picture, got one with 2\.1% of its pixels transparent"):
        read_image(tmp_path / "b.png")
    Picture.fromarray(values[..., 0]).save(tmp_path / "c.png", transparency=int(values[0, 0, 0]))
    with pytest.raises(UnreadableImage, match="transparent"):
        read_image(tmp_path / "c.png")


def test_a_palette_is_expanded(tmp_path):
    indexed = Picture.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) % 3, mode="P")
    indexed.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for kind in ("PNG", "TIFF"):
        indexed.save(tmp_path / "x", format=kind)
        image = read_image(tmp_path / "x")
        assert (image.data[:, 0, 1] * 255).round().tolist() == [40, 50, 60]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_tag_is_applied(tmp_path, orientation):
    values = np.arange(24 * 16, dtype=np.uint8).reshape(24, 16) // 2
    upright = np.asarray(_turned(values, orientation))
    exif = Picture.Exif()
    exif[274] = orientation
    Picture.fromarray(values).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "x.png").data[0].numpy() * 255, upright)
    tifffile.imwrite(tmp_path / "x.tif", values, extratags=[(274, "H", 1, orientation, True)])
    assert np.array_equal(read_image(tmp_path / "x.tif").data[0].numpy() * 255, upright)


def _turned(values, orientation):
    """EXIF 2.32: where row 0 and column 0 of the stored picture belong."""
    return {
        1: values,
        2: values[:, ::-1],
        3: values[::-1, ::-1],
        4: values[::-1],
        5: values.T,
        6: np.rot90(values, -1),
        7: values[::-1, ::-1].T,
        8: np.rot90(values, 1),
    }[orientation]


def test_a_tiff_of_several_pages_asks_which(tmp_path):
    values = np.random.default_rng(4).integers(0, 256, (3, 6, 8)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="minisblack")
    with pytest.raises(BadOption, match=r"one page, got 3 pages. choose one: index 0 to 2"):
        read_image(tmp_path / "x.tif")
    assert np.array_equal(read_image(tmp_path / "x.tif", index=2).data[0].numpy() * 255, values[2])
    with pytest.raises(BadOption, match="index from 0 to 2, got 3"):
        read_image(tmp_path / "x.tif", index=3)
    tifffile.imwrite(tmp_path / "y.tif", values, imagej=True, truncate=True)
    with pytest.raises(UnreadableImage, match="an ImageJ stack of 3 in one page"):
        read_image(tmp_path / "y.tif")
    Picture.fromarray(values[0]).save(tmp_path / "z.png")
    with pytest.raises(BadOption, match="a PNG holds a single picture"):
        read_image(tmp_path / "z.png", index=1)


def test_black_is_zero_also_where_the_tiff_stores_white_as_zero(tmp_path):
    values = np.arange(48, dtype=np.uint8).reshape(6, 8)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="miniswhite")
    assert np.array_equal(read_image(tmp_path / "x.tif").data[0].numpy() * 255, 255 - values.astype(float))


def test_compressions_of_pillow_lose_nothing_or_are_refused(tmp_path):
    color = np.random.default_rng(5).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    Picture.fromarray(color).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    assert np.array_equal(read_image(tmp_path / "lzw.tif").data.numpy() * 255, color.transpose(2, 0, 1))
    Picture.fromarray(color).save(tmp_path / "jpeg.tif", compression="jpeg")
    assert read_image(tmp_path / "jpeg.tif").traits["lossy"] == "yes"
    gray = (color[..., 0].astype(np.uint16) << 8) + color[..., 1]
    Picture.fromarray(gray).save(tmp_path / "deep.tif", compression="tiff_lzw")
    assert torch.equal(read_image(tmp_path / "deep.tif").data[0], torch.from_numpy(gray.astype(np.float32)) / 65535)


def test_deep_color_in_a_compression_that_would_lose_it_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((6, 8, 3), np.uint16), photometric="rgb")
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        place = file.pages[0].tags["Compression"].valueoffset
    content = bytearray((tmp_path / "x.tif").read_bytes())
    struct.pack_into("<H", content, place, 5)  # LZW
    (tmp_path / "x.tif").write_bytes(bytes(content))
    with pytest.raises(UnreadableImage, match=r"expected color of 8 bits, .* got 16 bits with LZW"):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_what_is_cut_short_is_refused(tmp_path, kind):
    noise = np.random.default_rng(6).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    path = tmp_path / "x"
    Picture.fromarray(noise).save(path, format=kind)
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UnreadableImage, match=rf"a complete {kind}, got damaged or incomplete data"):
            read_image(path)


def test_a_small_png_may_lack_nothing_but_its_trailer(tmp_path):
    Picture.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / "x.png")
    whole = (tmp_path / "x.png").read_bytes()
    for length in range(30, whole.index(b"IEND") + 4):
        (tmp_path / "x.png").write_bytes(whole[:length])
        with pytest.raises(UnreadableImage, match="a complete PNG"):
            read_image(tmp_path / "x.png")


def test_a_flipped_bit_in_a_png_is_noticed(tmp_path):
    noise = np.random.default_rng(7).integers(0, 256, (64, 64)).astype(np.uint8)
    Picture.fromarray(noise).save(tmp_path / "x.png", compress_level=0)  # so that the flipped bit still decodes
    content = bytearray((tmp_path / "x.png").read_bytes())
    content[2000] ^= 1
    (tmp_path / "x.png").write_bytes(bytes(content))
    with pytest.raises(UnreadableImage, match="a complete PNG"):
        read_image(tmp_path / "x.png")


def test_declared_sizes_are_refused_before_anything_is_decoded(tmp_path):
    side = int(MAX_VALUES**0.5) + 1
    for width, height in ((side, side), (60000, 60000)):
        (tmp_path / "x.png").write_bytes(png_chunks(width, height, 8, 0, b"\0" * 100))
        with pytest.raises(UnreadableImage, match="expected a picture of at most"):
            read_image(tmp_path / "x.png")


def test_a_tiff_strip_that_inflates_beyond_its_size_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((8, 8), np.uint8), compression="zlib")
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        page = file.pages[0]
        length, offset = page.tags["StripByteCounts"], page.tags["StripOffsets"]
        places = [tag.valueoffset for tag in (length, offset)]
    content = bytearray((tmp_path / "x.tif").read_bytes())
    bomb = zlib.compress(b"\0" * 10_000_000, 9)
    for place, value in zip(places, (len(bomb), len(content)), strict=True):
        struct.pack_into("<H" if value < 65536 else "<I", content, place, value)
    (tmp_path / "x.tif").write_bytes(bytes(content) + bomb)
    with pytest.raises(UnreadableImage, match="inflates beyond it"):
        read_image(tmp_path / "x.tif")


def test_other_colors_are_named(tmp_path):
    Picture.new("CMYK", (8, 6)).save(tmp_path / "x.jpg")
    with pytest.raises(UnreadableImage, match="got color mode CMYK"):
        read_image(tmp_path / "x.jpg")
    frames = [Picture.new("L", (8, 6), value) for value in (10, 200)]
    frames[0].save(tmp_path / "x.png", save_all=True, append_images=frames[1:])
    with pytest.raises(UnreadableImage, match="an animated PNG of 2"):
        read_image(tmp_path / "x.png")
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(UnreadableImage, match="an animated GIF of 2"):
        read_image(tmp_path / "x.gif")


@pytest.mark.parametrize("kind", ["BMP", "GIF"])
def test_masks_of_old_data_sets_are_read(tmp_path: Path, kind: str) -> None:
    values = np.zeros((6, 9), np.uint8)
    values[1:3, 2:7] = 255
    Picture.fromarray(values).save(tmp_path / "named.png", format=kind)
    image = read_image(tmp_path / "named.png")
    assert image.traits["format"] == kind
    assert np.array_equal(image.data.amax(0).numpy(), values / 255)
    whole = (tmp_path / "named.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) - 12])
    with pytest.raises(UnreadableImage, match=kind):
        read_image(tmp_path / "cut.png")
