"""A DICOM series to a tensor with its affine, and a map to a Parametric Map: against SimpleITK, MONAI and highdicom.

Speed is compared where all readers are right. Where a series is not a plain stack it is told who is right, who
refuses, and who gives a wrong place or value without a word.
"""

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import torch
from films import DATA
from measuring import CannotMeasure, Setting, alternate, at_most, exactly, ratio, run, table, within
from readers import by_pellucid, readers, spoiled, verdict

from pellucid.core.explanation import Attribution, Explanation, Provenance
from pellucid.explain.gradient import Saliency
from pellucid.io.objects.maps import parametric_map
from pellucid.io.objects.marks import Made
from pellucid.io.objects.source import open_source
from pellucid.io.reader import read_cases

ROUNDS = 15
SERIES = "ct_lung_boxes"
CODE = hd.sr.CodedConcept("130404", "DCM", "Saliency map")


def measure(setting: Setting) -> dict[str, Any]:
    """Both real series, then the spoiled ones, then the objects."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it quotes names
    warnings.simplefilter("ignore")
    folders = sorted(p for p in (DATA / SERIES).glob("*") if p.is_dir())
    if not folders:
        raise CannotMeasure("the CT series are not in shared/data beside the clone")
    known = readers()
    told: dict[str, Any] = {"readers": list(known), "slices": [len(list(f.iterdir())) for f in folders]}
    bars = []
    for folder in folders:
        shape = tuple(by_pellucid(folder).values.shape)
        sides: dict[str, Callable[[], object]] = {name: partial(read, folder) for name, read in known.items()}
        timed = alternate(sides, setting.take(ROUNDS), setting)
        size = " x ".join(str(n) for n in shape)
        told[f"series {size}"] = {
            "times": table(timed, "pellucid", setting.clock),
            "correct": {name: verdict(read, folder) for name, read in known.items()},
        }
        faster = ratio(timed["pellucid"], timed["MONAI PydicomReader"], setting.clock)
        bars.append(at_most(2, f"series {size}: pellucid / MONAI PydicomReader", faster))
        bars.append(exactly(f"series {size}: right", {"right": 1}, {"right": int(_right(by_pellucid, folder))}))
    with tempfile.TemporaryDirectory() as kept:
        found = spoiled(folders[0], Path(kept))
        told["spoiled"] = {
            what: {name: verdict(read, folder) for name, read in known.items()} for what, folder in found.items()
        }
    for name in known:
        silent = [what for what, each in told["spoiled"].items() if not each[name].get("right", True)]
        told.setdefault("wrong_without_a_word", {})[name] = silent
    wrong = len(told["wrong_without_a_word"]["pellucid"])
    bars.append(exactly("spoiled series that pellucid gets wrong without a word", {"series": 0}, {"series": wrong}))
    objects, more = _objects(folders[0], setting)
    return told | {"parametric_map": objects, "bars": bars + more}


def _right(read: Callable[[Path], Any], folder: Path) -> bool:
    return bool(verdict(read, folder).get("right", False))


def _objects(folder: Path, setting: Setting) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same map as a float Parametric Map by both, and read back."""
    made, values = _made(folder)
    placed = made.source.volume(values)
    plain = partial(_plain, made.source.headers, placed)
    sides: dict[str, Callable[[], object]] = {
        "pellucid": lambda: parametric_map(made, made.source.volume(values)),
        "highdicom": plain,
    }
    timed = alternate(sides, setting.take(ROUNDS), setting)
    slower = ratio(timed["pellucid"], timed["highdicom"], setting.clock)
    back = hd.Image.from_dataset(parametric_map(made, placed)).get_volume()
    back = back.match_geometry(placed) if not back.geometry_equal(placed) else back
    error = float(np.abs(np.asarray(back.array) - values).max())
    bars = [
        at_most(2, "map to Parametric Map: pellucid / plain highdicom", slower),
        within(0, "map to Parametric Map and back: largest error", error),
    ]
    return {"size": list(values.shape), "times": table(timed, "highdicom", setting.clock)}, bars


def _made(folder: Path) -> tuple[Made, np.ndarray]:
    case = read_cases(folder).cases[0]
    image = case.images["image"]
    values = np.random.default_rng(0).normal(size=image.grid.shape).astype(np.float32)
    provenance = Provenance(
        case="case", input_digest=image.digest, model="model", model_digest="0" * 64, card_digest="0" * 64,
        target="finding", method="Saliency", settings={}, layer=None, infill=None, seed=0, precision="float32",
        device="cpu", shared=(1, 1), own=(0, 0), ms=1.0, versions={"pellucid": "0"},
        created="2026-01-01T00:00:00+00:00", applicability="applies",
    )  # fmt: skip
    answer = Attribution({"image": torch.from_numpy(values)[None, None]}, "logit", True)
    explanation = Explanation(answer, provenance, None, image)
    return Made(explanation, Saliency.card, open_source(case.files["image"], image), "Saliency"), values


def _plain(headers: list[Any], placed: hd.Volume) -> hd.pm.ParametricMap:
    """As highdicom's own guide writes one: no marks, no recipe, random UIDs."""
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="MAP",
        lut_explanation="map",
        unit=hd.sr.CodedConcept("1", "UCUM", "no units"),
        value_range=(float(placed.array.min()), float(placed.array.max())),
        slope=1.0,
        intercept=0.0,
        quantity_definition=CODE,
    )
    return hd.pm.ParametricMap(
        source_images=headers,
        pixel_array=placed,
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="0",
        device_serial_number="0",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(0.0, 4.0)],
    )


if __name__ == "__main__":
    sys.exit(run("io", measure))
