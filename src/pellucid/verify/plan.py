"""Which method is compared with which call of which peer, on what, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pellucid.verify.formulas import TRAPEZOID_STEPS
from pellucid.verify.subjects import Subject

# float32 and absolute constants in what grad-cam does after the map is computed; the others stay in float64
TOLERANCES = MappingProxyType({"captum": 1e-6, "torchcam": 1e-6, "monai": 1e-6, "grad-cam": 1e-4, "zennit": 1e-6})
PEERS = tuple(TOLERANCES)
APART = ("grad-cam", "zennit")  # in an environment of their own

_SMALL, _FILM, _BRAIN = (48, 56), (40, 48), (24, 28, 20)
PAIR = Subject("pooled-2d", "retina x 2", _SMALL)
ONE = Subject("pooled-2d", "retina", _SMALL)
SIGNED = Subject("pooled-2d", "retina", _SMALL, layer="norm2")
FINE = Subject("pooled-2d", "retina", _SMALL, layer="act1")  # cells as fine as the image: nothing is enlarged
DENSE = Subject("dense-2d", "film", _FILM)
DENSENET = Subject("densenet121", "film", (96, 128), layer="features", head="class_layers.out")
POOLED_3D = Subject("pooled-3d", "brain", _BRAIN)
DENSE_3D = Subject("dense-3d", "brain", _BRAIN)
UNET = Subject("unet-2d", "retina", _SMALL, layer="model.1.submodule.1.submodule", region=True)
UNET_3D = Subject("unet-3d", "brain", _BRAIN, layer="model.1.submodule.1.submodule", region=True)
FUNCTIONAL = Subject("functional-2d", "film", _FILM, layer="conv2")
LINEAR = Subject("linear-2d", "film", _FILM, layer="")
FAINT = Subject("faint-2d", "film", _FILM, layer="net.act2")

EVERY = (PAIR, DENSE, DENSENET, POOLED_3D, DENSE_3D, UNET, UNET_3D)
SINGLE = (ONE, DENSE, DENSENET, POOLED_3D, DENSE_3D, UNET, UNET_3D)
FLAT = (PAIR, DENSE, DENSENET, UNET)
VOLUMES = (POOLED_3D, DENSE_3D, UNET_3D)
MODULES = (PAIR, DENSE, DENSENET, POOLED_3D, DENSE_3D)  # every ReLU is a module of its own
POOLED = (PAIR, SIGNED, DENSENET, POOLED_3D)


@dataclass(frozen=True)
class Comparison:
    """One method against one call of a peer.

    Args:
        method: of ours, as the command takes it, without the layer.
        peer: by name.
        call: by name in the peer's file.
        on: subjects.
        bridge: by name, see ``bridges``.
        formula: by name, see ``formulas``; empty: no deviation is explained.
        options: of the call.
        take: which of the peer's results.
        noise: how the draws of ours are laid out for the peer; empty: none are handed over.
    """

    method: str
    peer: str
    call: str
    on: tuple[Subject, ...]
    bridge: str = "plain"
    formula: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    take: str = "map"
    noise: str = ""

    @property
    def name(self) -> str:
        """The method without its settings."""
        return self.method.partition(":")[0]


_STEPS = 16
_IG = f"IntegratedGradients:steps={_STEPS},baseline=0"
_WINDOW = {"window": [8, 8], "stride": [8, 8]}
_OCCLUSION = "Occlusion:window=8,stride=8,infill=0"

CAPTUM = (
    Comparison("Saliency", "captum", "Saliency", EVERY),
    Comparison("InputXGradient", "captum", "InputXGradient", EVERY),
    Comparison(_IG, "captum", "IntegratedGradients", EVERY, options={"rule": "riemann_middle", "steps": _STEPS}),
    Comparison(
        f"IntegratedGradients:steps={TRAPEZOID_STEPS},baseline=0",
        "captum",
        "IntegratedGradients",
        (LINEAR,),
        formula="captum trapezoid",
        options={"rule": "riemann_trapezoid", "steps": TRAPEZOID_STEPS},
    ),
    Comparison("GradCAM", "captum", "LayerGradCam", (*EVERY, SIGNED, FUNCTIONAL), "cells"),
    Comparison("HiResCAM", "captum", "LayerGradientXActivation", (*EVERY, SIGNED), "cells"),
    Comparison(_OCCLUSION, "captum", "Occlusion", (PAIR, DENSE), options=_WINDOW),
    Comparison(
        "Occlusion:window=8,stride=4,infill=0",
        "captum",
        "Occlusion",
        (PAIR,),
        options={"window": [8, 8], "stride": [4, 4]},
    ),
)
TORCHCAM = (Comparison("GradCAM", "torchcam", "GradCAM", (*EVERY, SIGNED), "cells"),)
MONAI = (
    Comparison("GradCAM", "monai", "GradCAM", (*SINGLE, SIGNED), "cells"),
    Comparison("GradCAM", "monai", "GradCAM", (PAIR,), "cells", "monai batch"),
    Comparison("Saliency", "monai", "VanillaGrad", SINGLE, "magnitude", options={"times": 1}),
    Comparison("InputXGradient", "monai", "VanillaGrad", (DENSE,), "times input", "", {"times": 1}),
    Comparison(
        _OCCLUSION, "monai", "OcclusionSensitivity", (DENSE,), "fall", options={"window": [8, 8], "activate": False}
    ),
)
GRADCAM = (
    Comparison("GradCAM", "grad-cam", "GradCAM", FLAT, "range"),
    Comparison("GradCAM", "grad-cam", "GradCAM", (*VOLUMES, SIGNED), "positive cells", take="cells"),
    Comparison("GradCAM", "grad-cam", "GradCAM", (POOLED_3D, DENSE_3D), "range", "grad-cam zoom"),
    Comparison("HiResCAM", "grad-cam", "HiResCAM", (*EVERY, SIGNED), "cells", take="cells"),
)
ZENNIT = (
    Comparison("Saliency", "zennit", "Gradient", EVERY, "magnitude"),
    Comparison("InputXGradient", "zennit", "Gradient", (PAIR, DENSE_3D), "times input"),
    Comparison(
        _IG, "zennit", "IntegratedGradients", (PAIR, DENSE, POOLED_3D), options={"steps": _STEPS, "shifted": True}
    ),
    Comparison(_IG, "zennit", "IntegratedGradients", (LINEAR,), options={"steps": _STEPS, "shifted": False}),
)

PLAN: tuple[Comparison, ...] = (*CAPTUM, *TORCHCAM, *MONAI, *GRADCAM, *ZENNIT)
