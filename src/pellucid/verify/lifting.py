"""What is compared of DeepLIFT and DeepSHAP, whose peers put their rules on modules by hooks."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from pellucid.core.explanation import Attribution
from pellucid.core.probe import Probe
from pellucid.verify.demonstrations import Demonstration, Found, Said
from pellucid.verify.evidence import Evidence
from pellucid.verify.formulas import Defects, Formula
from pellucid.verify.plan import DENSENET, FUNCTIONAL, MODULES, UNET, UNET_3D, Comparison
from pellucid.verify.subjects import Prepared, Subject
from pellucid.workbench.registry import make_explainer

_LIFT, _SHAP = "DeepLIFT:baseline=0", "DeepSHAP"
_NO_BEND = 1e-12  # a smaller step across a bend has the plain slope
_MUCH, _HARDLY = 0.01, 1e-4  # of the score's difference
_SMALL_MODULES = tuple(s for s in MODULES if s is not DENSENET)  # DenseNet121 has a largest value behind a ReLU


def _rescaled(evidence: Evidence, defects: Defects) -> Tensor:
    """The network ``functional-2d`` written out, from zero. B15: a ReLU that is no module keeps its plain gradient."""
    net, x = evidence.net, evidence.x.clone().requires_grad_()
    a, start = x, torch.zeros_like(x)
    for name in ("conv1", "conv2"):
        weight, bias = (net.get_submodule(name).get_parameter(kind) for kind in ("weight", "bias"))
        z, z0 = (functional.conv2d(v, weight, bias, stride=2, padding=1) for v in (a, start))
        start, step = z0.detach().relu(), (z - z0).detach()
        rise = torch.where(step.abs() < _NO_BEND, (z > 0).to(z), (z.detach().relu() - start) / step)
        straight = z.detach().relu() + rise * (z - z.detach())  # the value of the ReLU with the slope of its rise
        a = z.relu() if "B15" in defects else straight
    output = net.get_submodule("head")(a.flatten(2).mean(2))
    total = output[torch.arange(len(x)), list(evidence.prepared.labels)].sum()
    return evidence.x * torch.autograd.grad(total, x)[0]


LIFT_FORMULAS: dict[str, Formula] = {"captum DeepLift": Formula(frozenset({"B15"}), _rescaled)}

LIFTS: tuple[Comparison, ...] = (
    Comparison(_LIFT, "captum", "DeepLift", _SMALL_MODULES),
    Comparison(_LIFT, "captum", "DeepLift", (FUNCTIONAL,), formula="captum DeepLift"),
    Comparison(_SHAP, "shap", "DeepExplainer", _SMALL_MODULES, hand="references", tolerance=1e-5),
)


def _adds_up(method: str, mirrored: bool = False) -> Callable[[Prepared], Said]:
    def check(prepared: Prepared) -> Said:
        name, scene = prepared.model.primary, prepared.scene
        if mirrored:
            scene = replace(scene, background={name: prepared.x.flip(-1)})
        answer = make_explainer(method)(Probe(prepared.model, {name: prepared.x}, prepared.target, scene=scene))
        if not isinstance(answer, Attribution) or answer.gap is None or answer.difference is None:
            return False, "no sum is promised"
        missed = float((answer.gap / answer.difference.abs()).max())
        return missed < _HARDLY, f"{method.partition(':')[0]} misses it by {missed:.0e} of it"

    return check


def _lost(found: Found) -> Said:
    missed = float(((found["sum"] - found["difference"]) / found["difference"]).abs().max())
    return missed > _MUCH, f"DeepLift misses the score's difference by {missed:.0%}, without a word"


def _refused(found: Found) -> Said:
    return bool(found["refused"]), "DeepExplainer raises: its values do not add up to the score's difference"


def _captum(defect: str, on: Subject, method: str = _LIFT, mirrored: bool = False) -> Demonstration:
    options = {"mirrored": mirrored}
    return Demonstration(defect, "captum", "DeepLift", on, _lost, _adds_up(method, mirrored), options)


SHORTFALLS: tuple[Demonstration, ...] = (
    _captum("B15", UNET),  # instance normalization and PReLU
    _captum("B15", UNET_3D),
    _captum("C9", DENSENET, _SHAP, mirrored=True),  # the largest value behind a ReLU
    *(
        Demonstration("B15", "shap", "DeepExplainer", on, _refused, _adds_up("DeepSHAP:baseline=0"))
        for on in (FUNCTIONAL, UNET, UNET_3D)
    ),
)
