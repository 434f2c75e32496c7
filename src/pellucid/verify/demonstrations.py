"""Defects that are no matter of a map's values: what the peer does, and what we do in the same place."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pellucid.core.errors import DeclarationError, UnknownLabel
from pellucid.core.explanation import Attribution
from pellucid.core.model import Model
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore
from pellucid.testing import unchanged
from pellucid.verify.apart import Answer
from pellucid.verify.ours import explained
from pellucid.verify.plan import DENSE, ONE, PAIR, POOLED_3D, UNET
from pellucid.verify.subjects import Prepared, Subject
from pellucid.verify.verdict import Shown, Verdict
from pellucid.workbench.registry import make_explainer

Found = Mapping[str, Tensor]
BLOCKS = 4  # along each axis
Said = tuple[bool, str]  # whether it is as claimed, and what was measured


@dataclass(frozen=True)
class Demonstration:
    """A defect to show.

    Args:
        defect: by number.
        peer: by name.
        call: by name in the peer's file.
        subject: on which it shows.
        theirs: of what the peer's call found, whether it has the defect.
        ours: of the same subject, whether we have it not.
        options: of the call.
    """

    defect: str
    peer: str
    call: str
    subject: Subject
    theirs: Callable[[Found], Said]
    ours: Callable[[Prepared], Said]
    options: Mapping[str, Any] = field(default_factory=dict)


def shown(demonstration: Demonstration, prepared: Prepared, answer: Answer) -> Shown:
    """The verdict on one defect."""
    d = demonstration
    row = Shown(d.defect, d.peer, "", "", Verdict.NOT_RUN, answer.reason)
    if answer.reason:
        return row
    has, theirs = d.theirs(answer.found)
    try:
        clean, ours = d.ours(prepared)
    except DeclarationError as error:  # of ``unchanged``: something was left on the network
        clean, ours = False, error.problem
    return replace(row, theirs=theirs, ours=ours, verdict=Verdict.SHOWN if has and clean else Verdict.DIFFERS)


def _map(name: str, prepared: Prepared) -> Tensor:
    layer = f":layer={prepared.subject.layer}" if name != "FullGrad" else ""
    return explained(make_explainer(name + layer), prepared).map


def _finite(names: tuple[str, ...]) -> Callable[[Prepared], Said]:
    def check(prepared: Prepared) -> Said:
        good = [n for n in names if bool(torch.isfinite(values := _map(n, prepared)).all()) and bool(values.any())]
        return len(good) == len(names), f"{', '.join(good)}: a finite map of {len(prepared.x)} item(s)"

    return check


def _untouched_by_failure(prepared: Prepared) -> Said:
    """An error planted behind the layer, in the middle of Ablation-CAM."""
    net, head = prepared.net, prepared.net.get_submodule(prepared.subject.head)
    before = net(prepared.x)
    calls = 0

    def fail(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise RuntimeError("planted")

    raised = False
    with unchanged(net):
        handle = head.register_forward_hook(fail)
        try:
            _map("AblationCAM", prepared)
        except RuntimeError as error:
            raised = "planted" in str(error)
        finally:
            handle.remove()
    same = torch.equal(before, net(prepared.x))
    return (
        raised and same,
        f"after an error in the middle the scores are {'the same to the last bit' if same else 'others'}",
    )


def _refuses_label(prepared: Prepared) -> Said:
    method = make_explainer(f"GradCAM:layer={prepared.subject.layer}")
    inputs = {prepared.model.primary: prepared.x}
    try:
        method(Probe(prepared.model, inputs, ClassScore(99), method.needs(prepared.model, inputs)))
    except UnknownLabel as error:
        return True, f"UnknownLabel: {error.problem}"
    return False, "no error"


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        parts = out if isinstance(out, tuple | list) else (out,)
        self.values = max(self.values, *(p.numel() for p in parts if isinstance(p, Tensor)), 0)
        return out


def _small_matrix(prepared: Prepared) -> Said:
    with _Largest() as largest:
        _map("EigenCAM", prepared)
    cells = prod(n // 2 for n in prepared.x.shape[2:])
    return largest.values < cells**2, f"largest tensor {largest.values:,} values for {cells:,} cells"


def _unchanged(prepared: Prepared) -> Said:
    """In training mode; ``unchanged`` raises where anything is left."""
    prepared.net.train()
    try:
        with unchanged(prepared.net):
            _map("GradCAM", prepared)
            explained(make_explainer("GuidedBackprop"), prepared)
    finally:
        prepared.net.eval()
    return True, "mode, flags, gradients, hooks and random state are as they were"


def _sums_to_one(prepared: Prepared) -> Said:
    with torch.no_grad():
        sums = prepared.model.output.scores(prepared.net(prepared.x)).sum(1)
    return bool(
        (sums - 1).abs().max() < 1e-6
    ), f"scores of all labels sum to {float(sums[0]):.2f}: the card's activation"


def _half(prepared: Prepared) -> Said:
    net = prepared.peer_net().bfloat16()
    model = Model(net, prepared.model.inputs, prepared.model.output)
    method = make_explainer(f"GradCAM:layer={prepared.subject.layer}")
    inputs = {model.primary: prepared.x.bfloat16()}
    values = method(Probe(model, inputs, ClassScore(), method.needs(model, inputs))).maps[model.primary]
    return bool(torch.isfinite(values).all()), f"a finite map in {str(values.dtype).removeprefix('torch.')}"


def _large_logit(prepared: Prepared) -> Said:
    bias = prepared.net.get_submodule(prepared.subject.head).get_parameter("bias")
    before = bias.detach().clone()
    with torch.no_grad():
        bias += 1000
    try:
        said = _finite(("GradCAMPlusPlus",))(prepared)
    finally:
        with torch.no_grad():
            bias.copy_(before)
    return said[0], f"{said[1]}, also where the logit is 1000"


def _flags(wanted: Mapping[str, bool], words: str) -> Callable[[Found], Said]:
    """Whether the call's flags are as the defect has them."""

    def check(found: Found) -> Said:
        wrong = [f"{k} is {bool(found[k])}" for k, v in wanted.items() if bool(found[k]) is not v]
        return not wrong, f"not seen: {', '.join(wrong)}" if wrong else words

    return check


def _quadratic(found: Found) -> Said:
    cells, peak = int(found["cells"]), int(found["bytes"])
    return peak > 4 * cells**2, f"{peak / 2**20:.0f} MiB for {cells:,} cells: a square matrix of them"


def _left(found: Found) -> Said:
    changed = not bool(found["training"]) and int(found["gradients"]) > 0 and int(found["relus_after"]) == 1
    return changed, (
        f"training mode is lost, {int(found['gradients'])} parameters have gradients, "
        f"{int(found['relus'])} ReLU modules became {int(found['relus_after'])}"
    )


def _hooked(found: Found) -> Said:
    return int(found["after"]) > int(
        found["before"]
    ), f"hooks grow from {int(found['before'])} to {int(found['after'])}"


def _not_one(found: Found) -> Said:
    low, high = float(found["sums"].min()), float(found["sums"].max())
    return max(abs(low - 1), abs(high - 1)) > 0.05, f"labels of a softmax network sum to {low:.2f} to {high:.2f}"


_BLOCKS = f"players=grid:{BLOCKS},infill=0"


def _blank(found: Found) -> Said:
    left = int(found["nonzero"])
    return not left, f"on the model score its Lime has a value for {left} of {BLOCKS**2} parts"


def _lime_on_scores(prepared: Prepared) -> Said:
    inputs, label = {prepared.model.primary: prepared.x}, prepared.labels[0]

    def asked(preset: str) -> Attribution:
        probe = Probe(prepared.model, inputs, ClassScore(label, "score"), scene=prepared.scene)
        return make_explainer(f"LIME:preset={preset},samples=200,{_BLOCKS}")(probe)

    parts = asked("lime").maps[prepared.model.primary].unique()
    told = [w for w in asked("captum").warnings if "penalty removed all" in w]
    words = f"{int((parts != 0).sum())} of {BLOCKS**2} parts with the authors' penalty; with the peer's, the map "
    return len(parts) == BLOCKS**2 and bool(told), words + ("says that it is blank" if told else "does not say why")


def _one_player(prepared: Prepared) -> Said:
    total = explained(make_explainer("KernelSHAP:players=grid:1,infill=0"), prepared).map.sum()
    with torch.no_grad():
        rise = prepared.net(prepared.x) - prepared.net(torch.zeros_like(prepared.x))
    right = bool((total - rise[0, prepared.labels[0]]).abs() < 1e-9)
    return right, f"one part gets {'all' if right else 'not all'} of the score's difference"


_IN_3D = ("FullGrad", "ScoreCAM", "AblationCAM")
DEMONSTRATIONS: tuple[Demonstration, ...] = (
    Demonstration(
        "B5",
        "monai",
        "overflown",
        PAIR,
        _flags({"raised": True, "finite": False}, "two items: RuntimeError; a logit of 1000: a map that is not finite"),
        _large_logit,
    ),
    Demonstration(
        "B6", "monai", "OcclusionSensitivity", DENSE, _not_one, _sums_to_one, {"window": [8, 8], "activate": True}
    ),
    Demonstration("B18", "captum", "blank Lime", ONE, _blank, _lime_on_scores, {"blocks": BLOCKS, "samples": 200}),
    Demonstration(
        "B20", "captum", "alone", ONE, _flags({"raised": True}, "KernelShap of a single part raises"), _one_player
    ),
    Demonstration("B9", "monai", "left hooks", PAIR, _hooked, _unchanged),
    Demonstration(
        "B10",
        "grad-cam",
        "left broken",
        POOLED_3D,
        _flags({"failed": True, "broken": True}, "AblationCAM of a volume raises, and the network raises ever after"),
        _untouched_by_failure,
    ),
    Demonstration(
        "B11",
        "grad-cam",
        "swallowed",
        PAIR,
        _flags({"raised": False}, "label 99 of 3: no error, no map"),
        _refuses_label,
    ),
    Demonstration("B13", "grad-cam", "whole matrix", POOLED_3D, _quadratic, _small_matrix),
    Demonstration("B25", "grad-cam", "changed", PAIR, _left, _unchanged),
    Demonstration(
        "B26", "grad-cam", "half", PAIR, _flags({"raised": True}, "GradCAM of a network in bfloat16 raises"), _half
    ),
    Demonstration(
        "B26",
        "grad-cam",
        "untargeted",
        UNET,
        _flags({"raised": True}, "GradCAM of a segmentation without a target raises"),
        _finite(("GradCAM",)),
    ),
    Demonstration(
        "B26",
        "grad-cam",
        "refused",
        POOLED_3D,
        lambda f: (int(f["raised"]) == len(_IN_3D), f"of {', '.join(_IN_3D)}, {int(f['raised'])} raise for a volume"),
        _finite(_IN_3D),
        {"names": list(_IN_3D)},
    ),
)
