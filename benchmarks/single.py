"""One Grad-CAM and one Grad-CAM++ against grad-cam and MONAI."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import rivals
from measuring import Setting, alternate, at_least, counted, deviation, ratio, run, table
from panel import explained
from subjects import Subject, densenet

from pellucid.core.explainer import Explainer
from pellucid.core.space import resize
from pellucid.explain.cam import GradCAM, GradCAMPlusPlus

PAIRS: tuple[tuple[type[Explainer], str], ...] = ((GradCAM, "GradCAM"), (GradCAMPlusPlus, "GradCAMpp"))
ROUNDS = 15


def compare(ours: type[Explainer], monai: str, subject: Subject, setting: Setting) -> dict[str, Any]:
    """One method in turn with both peers."""
    name, label, clock = ours.__name__, subject.label, setting.clock
    theirs, monais = subject.copy(), subject.copy()
    explainer = ours(layer=subject.layer)
    side = partial(explained, subject.model, subject.image, [explainer], label)
    sides: dict[str, Callable[[], object]] = {
        "pellucid": side,
        "grad-cam": partial(rivals.grad_cam_map, name, theirs, subject, label),
        "monai": partial(rivals.monai_map, monai, monais, subject, label),
    }
    timed = alternate(sides, setting.take(ROUNDS), setting)
    cells = rivals.grad_cam_cells(name, theirs, subject, label)
    right = rivals.plus_plus(cells, 0.0) if name == "GradCAMPlusPlus" else cells.map
    (found,) = next(iter(side()[1].values())).maps.values()
    enlarged = resize(right.to(found).relu(), found.shape[2:])
    return {
        "method": name,
        "times": table(timed, "pellucid", clock),
        "passes": {
            "pellucid": counted(subject.network, side),
            "grad-cam": counted(theirs, sides["grad-cam"]),
            "monai": counted(monais, sides["monai"]),
        },
        "deviation from grad-cam (its Grad-CAM++ without B3)": deviation(found, enlarged),
        "bars": [
            at_least(2.5, f"{subject.name}: {peer} / {name}", ratio(timed[peer], timed["pellucid"], clock))
            for peer in ("grad-cam", "monai")
        ],
    }


def measure(setting: Setting) -> dict[str, Any]:
    """Both methods."""
    subject = densenet((224, 224), setting.device)
    cases = [compare(ours, monai, subject, setting) for ours, monai in PAIRS]
    return {**subject.words, "cases": cases, "bars": [bar for case in cases for bar in case.pop("bars")]}


if __name__ == "__main__":
    sys.exit(run("single", measure))
