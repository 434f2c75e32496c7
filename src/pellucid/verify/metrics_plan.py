"""Which metric is compared with which call of which peer, on what, and how."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor

from pellucid.verify.metrics_ours import Scored
from pellucid.verify.plan import DENSE, DENSE_3D, PAIR, SEGMENTED, UNET, UNET_3D
from pellucid.verify.subjects import Prepared, Subject

PEERS = ("quantus", "captum")
TINY = Subject("dense-2d", "film", (12, 14), layer="act1")
TINY_3D = Subject("dense-3d", "brain", (6, 7, 5), layer="act1")
RESIDUAL = Subject("residual-2d", "film", (40, 48), layer="conv2")  # it scores more than its mean
SINGLE = Subject("dense-2d", "film", (40, 48), layer="norm2")  # a layer without zeros
SINGLE_PAIR = Subject("pooled-2d", "retina x 2", (48, 56), layer="norm2")

_FLOAT32 = 1e-5  # where the peer rounds what it shows the network
_CONSTANT = 1e-5  # where the peer adds an absolute constant


def _once(_scored: Scored, _prepared: Prepared) -> float:
    """The peer's numbers as they are."""
    return 1.0


@dataclass(frozen=True)
class Reading:
    """How two scores are brought to one form, each "item number".

    Args:
        words: what is done to which side.
        ours: from our score.
        theirs: factor for the peer's numbers.
    """

    words: str
    ours: Callable[[Scored, Prepared], Tensor]
    theirs: Callable[[Scored, Prepared], float] = _once


def _value(scored: Scored, _prepared: Prepared) -> Tensor:
    return scored.score.values.double()[:, None]


def _curve(scored: Scored, _prepared: Prepared) -> Tensor:
    return torch.tensor(scored.score.detail["curve"], dtype=torch.float64)


def _falls(scored: Scored, prepared: Prepared) -> Tensor:
    curve = _curve(scored, prepared)
    return (curve[:, :1] - curve)[:, 1:]


def _rooted(scored: Scored, numbers: int) -> float:
    """From a ratio of two roots of sums to one of roots of means."""
    return sqrt(numbers / scored.map[0].numel())


def _cells(scored: Scored, prepared: Prepared) -> float:
    found: list[int] = []
    layer = prepared.net.get_submodule(prepared.subject.layer)
    handle = layer.register_forward_hook(lambda _module, _args, output: found.append(output[0].numel()))
    try:
        prepared.net(prepared.x)
    finally:
        handle.remove()
    return _rooted(scored, found[0])


READINGS = {
    "value": Reading("as they are", _value),
    "curve": Reading("the scores along the curve, without the first", lambda s, p: _curve(s, p)[:, 1:]),
    "back": Reading(
        "our curve from its end, beside the peer's for the map with its sign changed",
        lambda s, p: _curve(s, p).flip(1)[:, 1:],
    ),
    "falls": Reading("the falls of the score along the curve, without the first", _falls),
    "stages": Reading("the correlation after each layer", lambda s, p: _curve(s, p).T),
    "images": Reading("the images that the network was shown", lambda s, _: s.seen.transpose(0, 1).flatten(1)),
    "input": Reading(
        "the peer's roots of sums as roots of means", _value, lambda s, p: _rooted(s, prod(p.x.shape[1:]))
    ),
    "output": Reading(
        "the peer's roots of sums as roots of means", _value, lambda s, p: _rooted(s, p.net(p.x).shape[1])
    ),
    "layer": Reading("the peer's roots of sums as roots of means", _value, _cells),
}


@dataclass(frozen=True)
class MetricComparison:
    """One metric against one call of a peer.

    Args:
        metric: of ours, as the command takes it.
        peer: by name.
        call: by name in the peer's file.
        on: subjects.
        explainer: whose map is scored on both sides.
        reading: by name, see ``READINGS``.
        formula: by name, see ``metrics_formulas``; empty: no deviation is explained.
        options: of the call.
        hand: what is handed over besides the map; ``rest`` is all but the region, in its place.
        tolerance: of this comparison.
    """

    metric: str
    peer: str
    call: str
    on: tuple[Subject, ...]
    explainer: str = "InputXGradient"
    reading: str = "value"
    formula: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    hand: tuple[str, ...] = ()
    tolerance: float = 1e-9

    @property
    def name(self) -> str:
        """The metric without its settings."""
        return self.metric.partition(":")[0]


def _of(peer: str, metric: str, call: str, *on: Subject, **more: Any) -> MetricComparison:
    return MetricComparison(metric, peer, call, on, **more)


def _quantus(metric: str, call: str, *on: Subject, **more: Any) -> MetricComparison:
    return _of("quantus", metric, call, *on, **more)


def _steps(subject: Subject, steps: int) -> dict[str, Any]:
    return {"settings": {"features_in_step": prod(subject.shape) // steps}}


_SEEN, _REGION = ("seen",), ("region",)
_ALL = (DENSE, DENSE_3D, PAIR)
_SHARP = "Saliency"  # a map that is nowhere negative

HIDING = (
    *(
        _quantus("PixelFlipping:steps=20,infill=0", "PixelFlipping", one, reading="curve", options=_steps(one, 20))
        for one in (DENSE, DENSE_3D, UNET_3D)
    ),
    *(
        _quantus(
            "DeletionAUC:steps=20,random_orders=0,infill=0",
            "PixelFlipping",
            one,
            reading="curve",
            options=_steps(one, 20),
        )
        for one in (DENSE, DENSE_3D)
    ),
    *(
        _quantus(
            "InsertionAUC:steps=20,random_orders=0,infill=0",
            "PixelFlipping",
            one,
            reading="back",
            options={**_steps(one, 20), "negated": True},
        )
        for one in (DENSE, DENSE_3D)
    ),
    _quantus(
        "PixelFlipping:steps=21,infill=0",
        "PixelFlipping",
        PAIR,
        reading="curve",
        options={"settings": {"features_in_step": 3 * prod(PAIR.shape) // 21}},
    ),
    _quantus(
        "PixelFlipping:steps=21,infill=0",
        "PixelFlipping",
        PAIR,
        reading="curve",
        formula="entries",
        options=_steps(PAIR, 21),
    ),
    *(
        _quantus(f"RegionPerturbation:block=8,steps={n},infill=0", "RegionPerturbation", one, reading="falls")
        for one, n in ((DENSE, 30), (PAIR, 42), (UNET, 42))
    ),
    *(
        _quantus(f"Selectivity:block=8,steps={n},infill=0", "Selectivity", one, reading="curve")
        for one, n in ((DENSE, 30), (PAIR, 42))
    ),
    _quantus("FaithfulnessCorrelation:infill=0", "FaithfulnessCorrelation", *_ALL, *SEGMENTED, hand=_SEEN),
    *(
        _quantus(f"FaithfulnessEstimate:along={n},infill=0", "FaithfulnessEstimate", one)
        for one, n in ((TINY, 14), (TINY_3D, 7))
    ),
    _quantus("ROAD:noise=0", "noisy_linear_imputation", DENSE, PAIR, reading="images", hand=_SEEN),
    _quantus(
        "SensitivityN:infill=0",
        "SensitivityN",
        PAIR,
        formula="sensitivity",
        options={"settings": {"features_in_step": prod(PAIR.shape) // 8}},
        hand=_SEEN,
    ),
    _quantus(
        "IROF:pieces=30,steps=28,infill=mean", "IROF", RESIDUAL, formula="drift", hand=("pieces",), tolerance=_FLOAT32
    ),
    _quantus(
        "Infidelity:infill=0",
        "Infidelity",
        DENSE,
        PAIR,
        formula="cumulative",
        options={"settings": {"perturb_patch_sizes": [8]}},
        hand=_SEEN,
    ),
    *(
        _of(
            "captum",
            f"Infidelity:change={change},scaled={scaled}{',infill=0' if change == 'box' else ''}",
            "infidelity",
            *_ALL,
            *(SEGMENTED if scaled == "true" else ()),
            explainer="InputXGradient" if change == "box" else "SmoothGrad:samples=2",
            options={"scaled": scaled == "true", "contributions": change == "box"},
            hand=_SEEN,
        )
        for change in ("box", "noise")
        for scaled in ("true", "false")
    ),
)
PLACES = (
    _quantus("RelevanceMass", "RelevanceMassAccuracy", *_ALL, explainer=_SHARP, hand=_REGION),
    _quantus("RelevanceMass", "RelevanceMassAccuracy", *_ALL, formula="signed sums", hand=_REGION),
    _quantus("RelevanceMass", "AttributionLocalisation", *_ALL, hand=_REGION, tolerance=_CONSTANT),
    _quantus("RelevanceRank", "RelevanceRankAccuracy", *_ALL, hand=_REGION),
    _quantus("HitRate", "PointingGame", *_ALL, explainer=_SHARP, hand=_REGION),
    _quantus("HitRate", "PointingGame", *_ALL, explainer=_SHARP, hand=("rest",)),
    _quantus(
        "Sparseness",
        "Sparseness",
        *_ALL,
        explainer=_SHARP,
        options={"settings": {"normalise": True}},
        tolerance=_CONSTANT,
    ),
    _quantus("Sparseness", "Sparseness", *_ALL, explainer=_SHARP, formula="added"),
    _quantus("Entropy", "Complexity", *_ALL, explainer=_SHARP, tolerance=_CONSTANT),
)
MOVING = (
    _quantus("MaxSensitivity", "MaxSensitivity", *_ALL, *SEGMENTED, hand=_SEEN),
    _of("captum", "MaxSensitivity", "sensitivity_max", *_ALL, *SEGMENTED, hand=_SEEN),
    _quantus("AverageSensitivity", "AvgSensitivity", *_ALL, hand=_SEEN),
    _quantus("SensitivityNorm", "AvgSensitivity", *_ALL, hand=_SEEN),
    _quantus("LocalLipschitz", "LocalLipschitzEstimate", *_ALL, hand=_SEEN),
    _quantus(
        "LocalLipschitz",
        "LocalLipschitzEstimate",
        PAIR,
        formula="whole batch",
        options={"settings": {"normalise": True}},
        hand=_SEEN,
    ),
    _quantus("RelativeInputStability:least=0", "RelativeInputStability", DENSE, PAIR, reading="input", hand=_SEEN),
    _quantus(
        "RelativeOutputStability:least=0",
        "RelativeOutputStability",
        DENSE,
        PAIR,
        reading="output",
        hand=_SEEN,
        tolerance=_FLOAT32,
    ),
    _quantus(
        "RelativeRepresentationStability:least=0,layer=norm2",
        "RelativeRepresentationStability",
        SINGLE,
        SINGLE_PAIR,
        reading="layer",
        options={"settings": {"layer_names": ["net.norm2"]}},
        hand=_SEEN,
        tolerance=_FLOAT32,
    ),
)
FRESH = (
    _quantus(
        "ModelParameterRandomization:levels=5",
        "MPRT",
        DENSE,
        DENSE_3D,
        PAIR,
        reading="stages",
        options={"seeds": list(range(5))},
    ),
    _quantus(
        "EfficientMPRT:bins=12",
        "EfficientMPRT",
        *_ALL,
        options={"seeds": [0, None, None, None, None], "bins": 12},
    ),
    _quantus("RandomLogit", "RandomLogit", *_ALL, options={"ssim": False}, hand=("other",)),
    _quantus(
        "RandomLogit:similarity=ssim",
        "RandomLogit",
        DENSE,
        PAIR,
        formula="flattened",
        options={"ssim": True},
        hand=("other",),
    ),
)
METRICS: tuple[MetricComparison, ...] = (*HIDING, *PLACES, *MOVING, *FRESH)
