"""The one evaluation of a model: forward, targets, one backward; what a Probe's shared and own passes are made of."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pellucid.core.attention import Capture, Heeded
from pellucid.core.card import ATTENTIONS, GRADIENTS, Ask, Cost
from pellucid.core.differentiate import Key, gradients, leaf
from pellucid.core.errors import NonFinite
from pellucid.core.layers import Edit, Watch, joined
from pellucid.core.model import Inputs, Model
from pellucid.core.replay import Recording, Replay
from pellucid.core.rules import Rules, called
from pellucid.core.target import BoundTarget
from pellucid.core.tokens import attention_of, heeded


@dataclass(frozen=True, eq=False)
class Pass:
    """What one evaluation gave.

    Args:
        output: of the head, detached unless ``graph`` was asked.
        score: per target, "batch".
        input_gradient: per target, by input.
        activation: by layer.
        layer_gradient: per target, by layer.
        again: items that had to be run a second time to get there.
        attention: per target, where it was asked.
        windows: passes through the module, where an item is predicted by sliding windows.
    """

    output: Tensor
    score: tuple[Tensor, ...]
    input_gradient: tuple[Mapping[str, Tensor], ...]
    activation: Mapping[str, Tensor]
    layer_gradient: tuple[Mapping[str, Tensor], ...]
    again: int = 0
    attention: tuple[Heeded, ...] = ()
    windows: Cost = field(default_factory=Cost)


class Spent:
    """Counts of items: the shared pass, the methods' own passes, the calculation checks; how many by an engine.

    An item predicted by sliding windows counts once; ``windows`` tells what it took.
    """

    def __init__(self) -> None:
        self.shared, self.own, self.checks, self.engine = Cost(), Cost(), Cost(), 0
        self.windows = Cost()


@dataclass(frozen=True, eq=False)
class Work:
    """What one evaluation is to do.

    Args:
        want: gradients, if any.
        layers: names of layers that are read.
        edits: function of a layer's output, by name.
        rules: replacement by torch function, or a rulebook.
        graph: whether the autograd graph is kept.
        aims: indices of the targets that are differentiated.
        replay: stands in for what comes before a layer.
        precision: ``float32`` (as the module is) or ``bfloat16`` (autocast).
        reads: the only windows whose output is looked at; None: all.
    """

    want: frozenset[Ask]
    layers: tuple[str, ...] = ()
    edits: Mapping[str, Edit] = field(default_factory=dict)
    rules: Rules | None = None
    graph: bool = False
    aims: Sequence[int] = ()
    replay: Replay | Recording | None = None
    precision: str = "float32"
    reads: frozenset[tuple[int, ...]] | None = None  # first voxels of windows


Bind = Callable[[Tensor], tuple[BoundTarget, ...]]


def evaluate(model: Model, x: Inputs, work: Work, bind: Bind) -> Pass:
    """Run the module once on ``x`` and take what the work asks for.

    Args:
        model: its module's parameters, modes and hooks are as before afterwards, also after an error.
        x: by name, in network units.
        work: what to read, edit, replace and differentiate.
        bind: the targets, bound at the unperturbed input (the output is given for the first time).

    Raises:
        CannotDo: the model lacks an ability that the work needs.
        NonFinite: a target's score is NaN or infinite.
    """
    graph, backward = work.graph, bool(work.want & GRADIENTS)
    edits = bool(work.edits or work.replay)
    hooks, rules = bool(work.layers), work.rules is not None
    model.check_able({"gradient": backward, "hooks": hooks, "edits": edits, "rules": rules})
    to_input, to_layer = Ask.INPUT_GRADIENT in work.want, Ask.LAYER_GRADIENT in work.want
    again = 0
    with model.held(), torch.set_grad_enabled(backward or graph):
        # nothing before the first layer is recorded for a backward that ends there
        late = (to_layer or bool(work.want & ATTENTIONS)) and not to_input and not graph
        leaves, watch, capture, output = _forward(model, x, work, late)
        if late and not output.requires_grad:  # the module cuts its graph behind the layer (torch.no_grad)
            again = len(output)
            leaves, watch, capture, output = _forward(model, x, work, late=False)
        bound = bind(output)
        scores = tuple(b(output) for b in bound)
        for i in work.aims:
            check_finite(scores[i], bound[i].name)
        wrt: dict[Key, list[Tensor]] = {("layer", n): watch.kept[n] for n in work.layers if to_layer}
        wrt |= {("input", k): [v] for k, v in leaves.items() if to_input and v.requires_grad}
        wrt |= capture.wrt if capture else {}
        last = None if graph else work.aims[-1]
        aims = work.aims if backward else ()
        grads = {i: gradients(scores[i], bound[i].name, wrt, graph, i != last) for i in aims}
    keep: Callable[[Tensor], Tensor] = (lambda t: t) if graph else (lambda t: t.detach())
    kept = {n: joined(parts, len(output), model.can.batch) for n, parts in watch.kept.items()}
    given = [grads.get(i, {}) for i in range(len(bound))]
    return Pass(
        output=keep(output),
        score=tuple(keep(s) for s in scores),
        input_gradient=tuple({k: g[0] for (kind, k), g in each.items() if kind == "input"} for each in given),
        activation={n: keep(t) for n, t in kept.items()},
        layer_gradient=tuple(
            {n: joined(g, len(output), model.can.batch) for (kind, n), g in each.items() if kind == "layer"}
            for each in given
        ),
        again=again,
        attention=tuple(capture.heeded(g) for g in given) if capture and grads else (),
    )


def _forward(
    model: Model, x: Inputs, work: Work, late: bool
) -> tuple[dict[str, Tensor], Watch, Capture | None, Tensor]:
    """Leaves that gradients are taken to, what was watched, the output; ``late``: graph from a layer on."""
    capture = _capture(model, x, work)
    leaves = {k: leaf(v, Ask.INPUT_GRADIENT in work.want, work.graph) for k, v in x.items()}
    watch = Watch(model.module, work.layers, work.edits, leaf=Ask.LAYER_GRADIENT in work.want)
    cast = torch.autocast(model.device.type, torch.bfloat16, enabled=work.precision == "bfloat16")
    recorded = torch.set_grad_enabled(torch.is_grad_enabled() and not late)
    with recorded, watch, work.replay or nullcontext(), cast, capture or nullcontext():
        # a clone: a module may change its input in place; versions to be played back are copies already
        given = leaves if isinstance(work.replay, Replay) else {k: v.clone() for k, v in leaves.items()}
        return leaves, watch, capture, called(model, model.module, given, work.rules)


def _capture(model: Model, x: Inputs, work: Work) -> Capture | None:
    """What keeps the attention, where it is asked."""
    if not work.want & ATTENTIONS:
        return None
    leads = [one and one.lead for one in heeded(attention_of(model, x))]
    return Capture(leads, Ask.ATTENTION_GRADIENT in work.want)


def check_finite(score: Tensor, name: str) -> None:
    """Refuse a score that is NaN or infinite.

    Raises:
        NonFinite: it is.
    """
    if not bool(torch.isfinite(score).all()):
        raise NonFinite(
            f"the model's score of {name!r} is NaN or infinite",
            "check the input's intensities against the model card, or run in float32",
        )
