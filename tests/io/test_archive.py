"""What is saved comes back bit for bit, or not at all."""

import json
import math
import os
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from pellucid.core.errors import BadRegion, InputError, NonFinite, UnknownName, UnreadableImage, UnwritableOutput
from pellucid.core.explanation import Answer, Attribution, Explanation, Prediction, Provenance, Reference
from pellucid.core.grid import Calibration, Grid, as_affine
from pellucid.core.image import Image, Modality
from pellucid.core.prepare import InputSpec, prepare
from pellucid.io.archive import load_explanation, save_explanation
from pellucid.io.masks import check_same_world

PROVENANCE = Provenance(
    case="case-1a2b3c4d",
    input_digest="ab" * 32,
    model="vessels 1.0",
    model_digest="cd" * 32,
    card_digest="",
    target="vessel where predicted",
    method="Occlusion",
    settings={"window": (8, 8), "stride": 4, "fill": 0.1, "layer": None, "names": ["a", ("b", 2)], "on": True},
    layer=None,
    infill="mean of the ring",
    seed=3,
    precision="float32",
    device="cpu",
    shared=(1, 1),
    own=(64, 0),
    ms=12.3456789012345,
    versions={"pellucid": "0.1.0", "torch": "2.13.0"},
    created="2026-11-22T10:11:12+00:00",
    applicability="not checked: the model has no card",
    warnings=("a doubt — in words",),
)


def explained(rank=3, channels=1, letters=None):
    generator = torch.Generator().manual_seed(5)
    shape = (9, 14, 11)[:rank]
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * [2.5, 0.7, 0.6], [1 / 3, -70.1, 1e-7]
    grid = Grid(shape, as_affine(affine), Calibration.PATIENT, "frame-0a90ed7e2360acfa8078e611e09e49f4")
    if rank == 2:
        grid = Grid.regular(shape, (0.1, 0.2), Calibration.DETECTOR, letters)
    data = torch.randn(channels, *shape, generator=generator) * 100
    traits = {"view": "PA", "age": 58.5}
    image = Image(data, grid, Modality.XRAY, "a.u.", (-160.0, 239.0), traits)
    order = "rgb" if channels == 3 else "gray"
    spec = InputSpec(rank=rank, channels=channels, order=order, size=(8,) * rank, scale="zscore")
    prepared = prepare(image, spec)
    maps = {"image": torch.randn(1, channels, *(8,) * rank, generator=generator)}
    answer = Attribution(maps, "logit", True, "sum", (2.0, 1 / 3, 1.0)[:rank], warnings=("flat",))
    if rank == 3:  # some methods draw samples or promise a sum, some do not
        answer = replace(answer, error={"image": maps["image"].abs() / 7}, difference=maps["image"].sum()[None])
    prediction = Prediction("vessel", 0.1 + 0.2, "logit", 0.57, -1.0, "vessel", {"none": 0.43, "vessel": 0.57})
    reference = Reference(14.7, None, 0.05, 40, 0, "40 open radiographs")
    return Explanation(answer, PROVENANCE, prediction, image, prepared, reference)


def equal(a, b):
    """Every field, bit for bit; tensors by their bits, so that a NaN equals itself."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, Explanation | Attribution | Image | Grid | type(explained().prepared)):
        return type(a) is type(b) and all(equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("made", [explained(), explained(2), explained(2, 3, ("F", "L"))], ids=["3-D", "2-D", "RGB"])
def test_everything_comes_back_bit_for_bit(tmp_path, made):
    path = save_explanation(made, tmp_path / "new" / "folder")
    assert path.name == "case-1a2b3c4d-Occlusion-vessel-where-predicted.json"
    for given in (path, path.with_suffix(".safetensors")):
        back = load_explanation(given)
        assert equal(back, made)
        assert torch.equal(back.on_image(), made.on_image())
        assert back.image.digest == made.image.digest
        assert back.cell == made.cell
    assert not list((tmp_path / "new" / "folder").glob(".*"))


def test_other_programs_find_the_map_and_the_geometry(tmp_path):
    made = explained()
    path = save_explanation(made, tmp_path, "map")
    with safe_open(tmp_path / "map.safetensors", "pt") as file:
        assert sorted(file.keys()) == [
            *("affine.image", "affine.network", "difference", "error.image", "map.image", "on_image")
        ]
        assert torch.equal(file.get_tensor("on_image"), made.on_image())
        assert np.array_equal(file.get_tensor("affine.image").numpy(), made.prepared.source.matrix)
    content = json.loads(path.read_text("utf-8"))
    assert content["provenance"]["method"] == "Occlusion"
    assert content["prediction"]["scores"] == {"none": 0.43, "vessel": 0.57}
    assert content["image"]["grid"]["shape"] == [9, 14, 11]


def test_maps_of_every_type_and_of_several_inputs(tmp_path):
    tensors = {
        "pet": torch.randn(1, 1, 4, 5),
        "ct": torch.randn(1, 2, 5, 4).movedim(2, 3),  # not contiguous
        "half": torch.randn(1, 1, 4, 5).bfloat16().float(),
        "double": torch.randn(1, 1, 4, 5, dtype=torch.float64),
        "vector": torch.randn(1, 3),
        "odd": torch.tensor([[[[0.0, -0.0, math.inf, math.nan]]]]),
    }
    bare = Explanation(Attribution(tensors, "logit", False, "max"), PROVENANCE)
    back = load_explanation(save_explanation(bare, tmp_path, "x"))
    assert equal(dict(back.attribution.maps), {k: v.contiguous() for k, v in tensors.items()})
    assert (back.image, back.prepared, back.prediction, back.reference) == (None, None, None, None)
    assert not list(tmp_path.glob("input-*"))


def test_the_explanations_of_a_case_share_its_image(tmp_path):
    made = explained()
    for name in ("a", "b"):
        save_explanation(made, tmp_path, name)
    assert len(list(tmp_path.glob("input-*.safetensors"))) == 1
    assert equal(load_explanation(tmp_path / "b.json"), made)


def test_without_the_image_the_map_still_finds_its_way_back(tmp_path):
    made = explained()
    path = save_explanation(made, tmp_path, "x", keep_input=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.json", "x.safetensors"]
    back = load_explanation(path)
    assert back.image is None
    assert torch.equal(back.on_image(), made.on_image())
    assert equal(back.prepared.grid, made.prepared.grid)


def test_a_changed_bit_is_refused_in_each_file(tmp_path):
    save_explanation(explained(), tmp_path, "x")
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for place in np.linspace(0, len(whole) - 2, 25, dtype=int):
            changed = bytearray(whole)
            changed[place] ^= 1
            path.write_bytes(bytes(changed))
            with pytest.raises(InputError):
                load_explanation(tmp_path / "x.json")
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError):
            load_explanation(tmp_path / "x.json")
        path.write_bytes(whole)
    assert equal(load_explanation(tmp_path / "x.json"), explained())


def test_a_number_changed_in_the_text_is_refused_by_name(tmp_path):
    path = save_explanation(explained(), tmp_path, "x")
    path.write_text(path.read_text("utf-8").replace('"seed": 3', '"seed": 4'), "utf-8")
    with pytest.raises(InputError, match="its JSON was changed"):
        load_explanation(path)
    save_explanation(explained(2), tmp_path, "y")
    save_explanation(explained(), tmp_path, "x")
    shutil.copy(tmp_path / "y.safetensors", tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="the SHA-256 differs"):
        load_explanation(path)


def test_what_is_missing_or_newer_is_named(tmp_path):
    with pytest.raises(UnreadableImage, match="a complete saved explanation"):
        load_explanation(tmp_path / "absent.json")
    path = save_explanation(explained(), tmp_path, "x")
    content = json.loads(path.read_text("utf-8")) | {"version": 99}
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(InputError, match=r"version 1, got version 99. read it with"):
        load_explanation(path)
    content |= {"version": 1, "tensors": {"file": "../x.safetensors", "sha256": ""}}
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(InputError, match="JSON was changed"):
        load_explanation(path)


def test_names_become_file_names_and_stay_in_the_folder(tmp_path):
    made = replace(explained(), provenance=replace(PROVENANCE, case="../../etc", target="a/b c: ü"))
    path = save_explanation(made, tmp_path / "in")
    assert path.parent == tmp_path / "in"
    assert path.name == "etc-Occlusion-a-b-c.json"


class Sentence(Answer):
    """An answer in words."""

    kind = "sentence"


def test_what_cannot_be_saved_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(UnknownName, match="a Sentence has no map"):
        save_explanation(Explanation(Sentence(), PROVENANCE), tmp_path / "a")
    bad = replace(explained(), prediction=replace(explained().prediction, value=math.nan))
    with pytest.raises(NonFinite, match="finite numbers"):
        save_explanation(bad, tmp_path / "b", keep_input=False)
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableOutput, match="file"):
        save_explanation(explained(), tmp_path / "file")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UnwritableOutput, match=r"c cannot \(No space left on device\)"):
        save_explanation(explained(), tmp_path / "c")
    for name in ("a", "b", "c"):
        assert not list((tmp_path / name).glob("*")) if (tmp_path / name).exists() else True


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_saved_files_have_ordinary_permissions(tmp_path):
    path = save_explanation(explained(), tmp_path, "x")
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_earlier_explanation_survives_a_failed_save(tmp_path, monkeypatch):
    save_explanation(explained(), tmp_path, "x")
    real = Path.replace

    def fails_on_tensors(self, target):
        if str(target).endswith("x.safetensors"):
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", fails_on_tensors)
    with pytest.raises(UnwritableOutput):
        save_explanation(explained(2), tmp_path, "x")
    assert equal(load_explanation(tmp_path / "x.json"), explained())


def test_a_frame_of_reference_is_kept_as_a_pseudonym(tmp_path):
    made = explained()
    image = replace(made.image, grid=replace(made.image.grid, frame_of_reference="1.2.840.99"))
    again = load_explanation(save_explanation(replace(made, image=image), tmp_path, "x"))
    assert again.image.grid.frame_of_reference == image.grid.frame
    assert b"1.2.840.99" not in (tmp_path / "x.json").read_bytes()
    check_same_world(again.image.grid, image.grid)
    with pytest.raises(BadRegion, match="frame of reference"):
        check_same_world(again.image.grid, replace(image.grid, frame_of_reference="1.2.840.98"))
