"""Which method is compared with which call of which peer, on what, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pellucid.core.errors import UnknownName
from pellucid.verify.formulas import TRAPEZOID_STEPS
from pellucid.verify.subjects import Subject

# float32 and absolute constants in what grad-cam does after the map is computed; the others stay in float64
PEERS = ("captum", "torchcam", "monai", "grad-cam", "zennit", "shap", "lime", "SALib", "scikit-learn")
TOLERANCES = MappingProxyType(dict.fromkeys(PEERS, 1e-6) | {"grad-cam": 1e-4})
APART = ("grad-cam", "zennit", "shap", "lime", "SALib", "quantus")  # in an environment of their own

_SMALL, _FILM, _BRAIN = (48, 56), (40, 48), (24, 28, 20)
PAIR = Subject("pooled-2d", "retina x 2", _SMALL)
ONE = Subject("pooled-2d", "retina", _SMALL)
SIGNED = Subject("pooled-2d", "retina", _SMALL, layer="norm2")
SIGNED_CONV = Subject("pooled-2d", "retina", _SMALL, layer="conv2")
FINE = Subject("pooled-2d", "retina", _SMALL, layer="act1")  # cells as fine as the image: nothing is enlarged
DENSE = Subject("dense-2d", "film", _FILM)
DENSENET = Subject("densenet121", "film", (96, 128), layer="features", head="class_layers.out")
DENSENET_LAST = Subject("densenet121", "film", (96, 128), layer="class_layers.relu", head="class_layers.out")
POOLED_3D = Subject("pooled-3d", "brain", _BRAIN)
DENSE_3D = Subject("dense-3d", "brain", _BRAIN)
UNET = Subject("unet-2d", "retina", _SMALL, layer="model.1.submodule.1.submodule", region=True)
UNET_3D = Subject("unet-3d", "brain", _BRAIN, layer="model.1.submodule.1.submodule", region=True)
FUNCTIONAL = Subject("functional-2d", "film", _FILM, layer="conv2")
LINEAR = Subject("linear-2d", "film", _FILM, layer="")
FAINT = Subject("faint-2d", "film", _FILM, layer="net.act2")

EVERY = (PAIR, DENSE, DENSENET, POOLED_3D, DENSE_3D, UNET, UNET_3D)
SINGLE = (ONE, *EVERY[1:])
FLAT = (PAIR, DENSE, DENSENET, UNET)
VOLUMES = (POOLED_3D, DENSE_3D, UNET_3D)
SEGMENTED = (UNET, UNET_3D)
MODULES_2D, MODULES_3D = (PAIR, DENSE, DENSENET), (POOLED_3D, DENSE_3D)  # every ReLU is a module of its own
MODULES = (*MODULES_2D, *MODULES_3D)
POOLED = (PAIR, DENSENET_LAST, POOLED_3D)
BEHIND_RELU = (PAIR, DENSE, DENSENET_LAST, POOLED_3D, DENSE_3D)
NOISY = (PAIR, DENSE, DENSE_3D)

# how the noise that ours has drawn is laid out for a peer
SIDE_BY_SIDE, ONE_BY_ONE, OF_THE_RANGE = "side by side", "one by one", "in units of the range"
PLACES = "places on the path from zero"


def check_known(given: Sequence[str], known: Sequence[str], kind: str) -> None:
    """Names of what is planned, in any case of letters.

    Args:
        given: by the user.
        known: that there are.
        kind: of what, for the message.

    Raises:
        UnknownName: there is none of this name; the message lists those there are.
    """
    lower = {k.lower() for k in known}
    wrong = [g for g in given if g.lower() not in lower]
    if wrong:
        raise UnknownName(f"no {kind} named {wrong[0]!r}", f"there are: {', '.join(known)}")


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
        hand: what else of ours is handed over, see ``handing``; empty: nothing.
        tolerance: of this comparison; None: the peer's.
        estimate: whether ours is an estimate, to be judged by the standard error that it states.
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
    hand: str = ""
    tolerance: float | None = None
    estimate: bool = False

    @property
    def name(self) -> str:
        """The method without its settings."""
        return self.method.partition(":")[0]


_STEPS = 8
_IG = f"IntegratedGradients:steps={_STEPS},baseline=0"
_GAUSS = f"{_IG},rule=gauss"
_WINDOW = {"window": [8, 8], "stride": [8, 8]}
_BLOCK = {"window": [8, 8, 8], "stride": [8, 8, 8]}
_OCCLUSION = "Occlusion:window=8,stride=8,infill=0"
_WIDE = 64  # cells: wider than any layer here

CAPTUM = (
    Comparison("Saliency", "captum", "Saliency", EVERY),
    Comparison("InputXGradient", "captum", "InputXGradient", EVERY),
    Comparison(
        "SmoothGrad:samples=6", "captum", "NoiseTunnel", NOISY, options={"kind": "smoothgrad"}, noise=SIDE_BY_SIDE
    ),
    Comparison(
        "SquareGrad:samples=6", "captum", "NoiseTunnel", NOISY, options={"kind": "smoothgrad_sq"}, noise=SIDE_BY_SIDE
    ),
    Comparison(
        "VarGrad:samples=6", "captum", "NoiseTunnel", NOISY, "biased", options={"kind": "vargrad"}, noise=SIDE_BY_SIDE
    ),
    Comparison("GuidedBackprop", "captum", "GuidedBackprop", MODULES),
    Comparison("GuidedBackprop", "captum", "GuidedBackprop", (FUNCTIONAL,), formula="captum functional"),
    Comparison("Deconvolution", "captum", "Deconvolution", MODULES),
    Comparison(_IG, "captum", "IntegratedGradients", EVERY, options={"rule": "riemann_middle", "steps": _STEPS}),
    Comparison(_GAUSS, "captum", "IntegratedGradients", EVERY, options={"rule": "gausslegendre", "steps": _STEPS}),
    Comparison(
        f"IntegratedGradients:steps={TRAPEZOID_STEPS},baseline=0",
        "captum",
        "IntegratedGradients",
        (LINEAR,),
        formula="captum trapezoid",
        options={"rule": "riemann_trapezoid", "steps": TRAPEZOID_STEPS},
    ),
    Comparison("ExpectedGradients:samples=6,baseline=0", "captum", "GradientShap", NOISY, noise=PLACES),
    Comparison("GradCAM", "captum", "LayerGradCam", (*EVERY, SIGNED, FUNCTIONAL), "cells"),
    Comparison("HiResCAM", "captum", "LayerGradientXActivation", (*EVERY, SIGNED), "cells"),
    Comparison("SegXResCAM:window=1", "captum", "LayerGradientXActivation", SEGMENTED, "positive cells"),
    Comparison(f"SegXResCAM:window={_WIDE}", "captum", "LayerGradCam", SEGMENTED, "cells"),
    Comparison("GuidedGradCAM", "captum", "GuidedGradCam", MODULES_2D, options={"interpolation": "bilinear"}),
    Comparison("GuidedGradCAM", "captum", "GuidedGradCam", MODULES_3D, options={"interpolation": "trilinear"}),
    Comparison(
        "GuidedGradCAM", "captum", "GuidedGradCam", (PAIR,), "plain", "captum nearest", {"interpolation": "nearest"}
    ),
    Comparison(_OCCLUSION, "captum", "Occlusion", (PAIR, DENSE), options=_WINDOW),
    Comparison(_OCCLUSION, "captum", "Occlusion", (DENSE_3D, UNET_3D), options=_BLOCK),
    Comparison(
        "Occlusion:window=8,stride=4,infill=0", "captum", "Occlusion", (PAIR,), options=_WINDOW | {"stride": [4, 4]}
    ),
)
TORCHCAM = (
    Comparison("CAM", "torchcam", "CAM", POOLED, "cells"),
    Comparison("GradCAM", "torchcam", "GradCAM", (*EVERY, SIGNED), "cells"),
    Comparison("GradCAMPlusPlus", "torchcam", "GradCAMpp", BEHIND_RELU, "cells", "torchcam Grad-CAM++"),
    Comparison("XGradCAM", "torchcam", "XGradCAM", (*EVERY, SIGNED), "cells", "torchcam XGrad-CAM"),
    Comparison("LayerCAM", "torchcam", "LayerCAM", (*EVERY, SIGNED), "cells"),
    Comparison("ScoreCAM:infill=0", "torchcam", "ScoreCAM", (FINE,), "cells"),
    Comparison("ScoreCAM:infill=0", "torchcam", "ScoreCAM", (PAIR, DENSE, DENSE_3D), "cells", "torchcam Score-CAM"),
)
MONAI = (
    Comparison("CAM", "monai", "CAM", POOLED, "cells", "monai CAM"),
    Comparison("GradCAM", "monai", "GradCAM", (*SINGLE, SIGNED), "cells"),
    Comparison("GradCAM", "monai", "GradCAM", (PAIR,), "cells", "monai batch"),
    Comparison("GradCAMPlusPlus", "monai", "GradCAMpp", BEHIND_RELU[1:], "exp", "monai Grad-CAM++"),
    Comparison("Saliency", "monai", "VanillaGrad", SINGLE, "magnitude", options={"times": 1}),
    Comparison("Saliency", "monai", "VanillaGrad", (ONE,), "magnitude", "monai VanillaGrad", {"times": 2}),
    Comparison("InputXGradient", "monai", "VanillaGrad", (DENSE,), "times input", options={"times": 1}),
    Comparison(
        "SmoothGrad:samples=6", "monai", "SmoothGrad", (ONE, DENSE_3D), options={"magnitude": False}, noise=ONE_BY_ONE
    ),
    Comparison(
        "SquareGrad:samples=6",
        "monai",
        "SmoothGrad",
        (ONE, DENSE_3D),
        "root",
        "monai SmoothGrad",
        {"magnitude": True},
        noise=ONE_BY_ONE,
    ),
    Comparison("GuidedBackprop", "monai", "GuidedBackpropGrad", (ONE, DENSE_3D)),
    Comparison(
        _OCCLUSION, "monai", "OcclusionSensitivity", (DENSE,), "fall", options={"window": [8, 8], "activate": False}
    ),
)
GRADCAM = (
    Comparison("GradCAM", "grad-cam", "GradCAM", FLAT, "range"),
    Comparison("GradCAM", "grad-cam", "GradCAM", (*VOLUMES, SIGNED), "positive cells", take="cells"),
    Comparison("GradCAM", "grad-cam", "GradCAM", (POOLED_3D, DENSE_3D), "range", "grad-cam zoom"),
    Comparison(
        "GradCAMPlusPlus",
        "grad-cam",
        "GradCAMPlusPlus",
        (*BEHIND_RELU, FAINT),
        "positive cells",
        "grad-cam Grad-CAM++",
        take="cells",
    ),
    Comparison("XGradCAM", "grad-cam", "XGradCAM", FLAT, "range"),
    Comparison("XGradCAM", "grad-cam", "XGradCAM", (*EVERY, SIGNED), "positive cells", take="cells"),
    Comparison("HiResCAM", "grad-cam", "HiResCAM", (*EVERY, SIGNED), "cells", take="cells"),
    Comparison("LayerCAM", "grad-cam", "LayerCAM", FLAT, "range"),
    Comparison("LayerCAM", "grad-cam", "LayerCAM", (*EVERY, SIGNED), "positive cells", take="cells"),
    Comparison(
        "EigenCAM", "grad-cam", "EigenCAM", (*EVERY, SIGNED), "positive cells", "grad-cam EigenCAM", take="cells"
    ),
    Comparison(
        "EigenGradCAM",
        "grad-cam",
        "EigenGradCAM",
        (*EVERY, SIGNED),
        "positive cells",
        "grad-cam EigenGradCAM",
        take="cells",
    ),
    Comparison("ScoreCAM:infill=0", "grad-cam", "ScoreCAM", (FINE,), "range"),
    Comparison(
        "ScoreCAM:infill=0", "grad-cam", "ScoreCAM", (PAIR, DENSE), "positive cells", "grad-cam Score-CAM", take="cells"
    ),
    Comparison("AblationCAM", "grad-cam", "AblationCAM", (ONE, DENSE, FINE), "range"),
    Comparison("AblationCAM", "grad-cam", "AblationCAM", (SIGNED_CONV,), "range", "grad-cam Ablation-CAM"),
    Comparison("FullGrad", "grad-cam", "FullGrad", (PAIR, DENSE, DENSENET), "range", "grad-cam FullGrad"),
    Comparison("GuidedBackprop", "grad-cam", "GuidedBackpropReLUModel", (ONE, DENSE)),
)
ZENNIT = (
    Comparison("Saliency", "zennit", "Gradient", EVERY, "magnitude"),
    Comparison("InputXGradient", "zennit", "Gradient", (PAIR, DENSE_3D), "times input"),
    Comparison("SmoothGrad:samples=6", "zennit", "SmoothGrad", NOISY, "with clean", noise=OF_THE_RANGE),
    Comparison(
        _IG, "zennit", "IntegratedGradients", (PAIR, DENSE, POOLED_3D), options={"steps": _STEPS, "shifted": True}
    ),
    Comparison(_IG, "zennit", "IntegratedGradients", (LINEAR,), options={"steps": _STEPS, "shifted": False}),
    Comparison("LRP:rule=epsilon", "zennit", "LRP", (DENSE, DENSE_3D), options={"rule": "epsilon"}),
    Comparison("LRP", "zennit", "LRP", (DENSE, DENSE_3D), options={"rule": "plus"}),
    Comparison("LRP:rule=epsilon-gamma", "zennit", "LRP", (DENSE, DENSE_3D), options={"rule": "gamma", "gamma": 0.25}),
    Comparison("LRP:rule=epsilon-alpha2-beta1", "zennit", "LRP", (DENSE, DENSE_3D), options={"rule": "alpha2-beta1"}),
    Comparison(
        "LRP:rule=epsilon-plus-flat", "zennit", "LRP", (DENSE, DENSE_3D), options={"rule": "plus", "first": "flat"}
    ),
    Comparison("LRP:first=w2", "zennit", "LRP", (DENSE, DENSE_3D), options={"rule": "plus", "first": "w2"}),
)

MAPS: tuple[Comparison, ...] = (*CAPTUM, *TORCHCAM, *MONAI, *GRADCAM, *ZENNIT)
