"""Pages of a TIFF with named axes: OME and ImageJ, planes and stacks, and headers that point elsewhere."""

import nibabel as nib
import numpy as np
import pytest
import tifffile

from pellucid.core.errors import BadOption, UnreadableImage
from pellucid.core.grid import Calibration
from pellucid.io import guard
from pellucid.io.index import parse_index
from pellucid.io.reader import read_image
from pellucid.io.several import read_chosen

VALUES = np.random.default_rng(2).integers(0, 60000, (3, 2, 5, 16, 20)).astype(np.uint16)
SIZES = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 250, "PhysicalSizeYUnit": "nm", "PhysicalSizeZ": 2}


def ome(path, values=VALUES, axes="TCZYX", sizes=SIZES, **options):
    tifffile.imwrite(path, values, ome=True, metadata={"axes": axes, **sizes}, **options)
    return path


def one(path, text):
    (case,) = read_chosen(path, parse_index(text)).cases
    return case.images["image"]


def test_a_plane_is_found_by_its_place_and_by_its_page(tmp_path):
    path = ome(tmp_path / "cells.ome.tif", compression="zlib")
    plane = one(path, "T=2,C=1,Z=3")
    np.testing.assert_allclose(plane.data[0].numpy(), VALUES[2, 1, 3] / 65535, atol=1e-6)
    assert plane.grid.calibration is Calibration.CALIBRATED
    assert plane.grid.spacing == pytest.approx((0.00025, 0.0005))
    page = read_image(path, index=(2 * 2 + 1) * 5 + 3)
    assert page.digest == plane.digest


def test_a_stack_becomes_a_volume_with_its_lengths_when_asked(tmp_path):
    path = ome(tmp_path / "x")
    volume = one(path, "T=1,C=0,Z=:")
    np.testing.assert_allclose(volume.data[0].numpy(), VALUES[1, 0] / 65535, atol=1e-6)
    assert volume.grid.spacing == pytest.approx((0.002, 0.00025, 0.0005))
    assert volume.grid.letters is None
    bare = ome(tmp_path / "y", sizes={"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5})
    with pytest.raises(UnreadableImage, match="the distance of its slices"):
        one(bare, "T=1,C=0,Z=:")


def test_a_real_volume_as_a_stack_of_imagej(tmp_path, shared_data):
    source = nib.load(min((shared_data / "mri_hippocampus" / "images").glob("*.nii*")))
    truth = np.clip(source.get_fdata(), 0, 65535).astype(np.uint16).transpose(2, 1, 0)
    options = {"resolution": (2.0, 4.0), "metadata": {"axes": "ZYX", "spacing": 1.5, "unit": "mm"}}
    tifffile.imwrite(tmp_path / "x", truth, imagej=True, **options)
    volume = one(tmp_path / "x", "Z=:")
    np.testing.assert_allclose(volume.data[0].numpy(), truth / 65535, atol=1e-6)
    assert volume.grid.spacing == pytest.approx((1.5, 0.25, 0.5))


def test_without_an_index_the_axes_are_told(tmp_path):
    path = ome(tmp_path / "x")
    told = r"30 pages \(3 along T \(time\), 2 along C \(channel\), 5 along Z \(slice\)\)"
    with pytest.raises(BadOption, match=told):
        read_image(path)
    for text, wrong in (
        ("T=1,Z=0", "nothing for C"),
        ("T=1,C=0", "nothing for Z"),
        ("T=3,C=0,Z=0", "T from 0 to 2"),
        ("T=0,C=0,Z=0,S=1", "S from 0 to 0"),
    ):
        with pytest.raises(BadOption, match=wrong):
            one(path, text)
    tifffile.imwrite(tmp_path / "plain", VALUES[0, 0])
    with pytest.raises(BadOption, match="names its axes"):
        one(tmp_path / "plain", "Z=0")


def test_series_and_pyramids(tmp_path):
    with tifffile.TiffWriter(tmp_path / "x", ome=True) as writer:
        big = np.random.default_rng(0).integers(0, 255, (64, 80, 3)).astype(np.uint8)
        writer.write(big, subifds=1, photometric="rgb", tile=(32, 32), metadata={"axes": "YXS"})
        writer.write(big[::2, ::2], subfiletype=1, photometric="rgb", tile=(32, 32))
        writer.write(VALUES[0], metadata={"axes": "CZYX"})
    np.testing.assert_allclose(one(tmp_path / "x", "S=0").data.numpy(), np.moveaxis(big, -1, 0) / 255, atol=1e-6)
    second = one(tmp_path / "x", "S=1,C=1,Z=2")
    np.testing.assert_allclose(second.data[0].numpy(), VALUES[0, 1, 2] / 65535, atol=1e-6)
    with pytest.raises(BadOption, match="a TIFF of 2"):
        one(tmp_path / "x", "C=1,Z=2")


def test_other_files_that_a_header_names_are_not_opened(tmp_path):
    secret = tmp_path / "secret.tif"
    tifffile.imwrite(secret, VALUES[0, 0, 0])
    inner = tmp_path / "inner"
    inner.mkdir()
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="20" SizeY="16" SizeZ="2" SizeC="1" '
        'SizeT="1"><TiffData FirstZ="0" IFD="0" PlaneCount="1"/><TiffData FirstZ="1" IFD="0" PlaneCount="1">'
        '<UUID FileName="../secret.tif">urn:uuid:1</UUID></TiffData></Pixels></Image></OME>'
    )
    tifffile.imwrite(inner / "x.ome.tif", VALUES[0, 0, 1], description=text, metadata=None)
    with pytest.raises((UnreadableImage, BadOption)):
        one(inner / "x.ome.tif", "Z=1")
    entity = text.replace("<OME ", '<!DOCTYPE OME [<!ENTITY e SYSTEM "file:///etc/passwd">]><OME ')
    tifffile.imwrite(inner / "y.ome.tif", VALUES[0, 0, 1], description=entity, metadata=None)
    for read in (lambda: read_image(inner / "y.ome.tif"), lambda: one(inner / "y.ome.tif", "Z=0")):
        with pytest.raises(UnreadableImage, match=r"document type|names its axes"):
            read()


def test_the_bound_on_values_counts_the_stack(tmp_path, monkeypatch):
    path = ome(tmp_path / "x")
    monkeypatch.setattr(guard, "MAX_VALUES", 16 * 20 * 4)
    with pytest.raises(UnreadableImage, match="declares 5 x 16 x 20 x 1"):
        one(path, "T=0,C=0,Z=:")


def test_planes_of_several_sizes_are_no_stack(tmp_path):
    path = ome(tmp_path / "x", VALUES[0, 0], "ZYX")
    with tifffile.TiffFile(path) as file:
        place = file.pages[2].aspage().tags["ImageLength"].valueoffset
    content = bytearray(path.read_bytes())
    content[place : place + 2] = (8).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match="damaged or incomplete"):
        one(path, "Z=:")
