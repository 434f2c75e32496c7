"""Relevance sent back through every operation of a network, each by its own rule, with no change to the network.

``Propagation`` is a rulebook: while the module runs it sees each operation of torch, replaces the few that the plain
gradient would treat wrongly (``relevance_operations``), and passes the others. At every tensor the gradient g that then
comes back is relevance over value, ``R = x g``; at the model's inputs it is relevance itself.

Another method reuses it by giving a ``Treatment`` of its own to ``relevance_operations.Layerwise``, or by a subclass
of it whose ``handlers`` are ``{**HANDLERS, "softmax": mine}``; a handler gets the propagation and the ``Call``.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from pellucid.core.errors import CannotDo
from pellucid.core.rules import Rulebook
from pellucid.explain.relay import Books, Note, dotted, opened, relayed
from pellucid.explain.relevance_rules import Affine, Apply, FirstRule, Rule, ZBox, Zero

Fallback = Literal["refuse", "gradient"]
Bounds = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Treatment:
    """Which rule is used where.

    Args:
        conv: of convolutions, transposed ones too.
        dense: of linear layers and products with a constant matrix.
        first: of the affine operations that read the model's input; None: as the others.
        bounds: by input, least and greatest value, "batch channel *space": the first rule is then ``ZBox``.
        positive: sums and means hand on their positive parts only, normalizations all they get (deep Taylor).
        attention: whether attention weights are constants, or share relevance with the values in halves.
        fallback: an operation without a rule: refuse it, or take its plain gradient and say so.
        method: in messages.
    """

    conv: Rule
    dense: Rule
    first: FirstRule | None = None
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    positive: bool = False
    attention: Literal["constant", "shared"] = "constant"
    fallback: Fallback = "refuse"
    method: str = "LRP"


@dataclass(eq=False)
class Mark:
    """What is known of a tensor that depends on the model's input.

    Args:
        raw: it is the input itself, perhaps cut or reshaped: its gradient is relevance, not relevance over value.
        bounds: least and greatest value of a raw one.
        gate: it came out of a sigmoid or softmax, to weigh something else.
        positive: no value is below zero.
        pending: an affine operation whose rule waits for a batch normalization that may follow.
        now: the tensor that stands in for this one.
        opened: a raw one, made ready for operations that read ``R = x g``.
    """

    raw: bool = False
    bounds: Bounds | None = None
    gate: bool = False
    positive: bool = False
    pending: "Pending | None" = None
    now: Tensor | None = None
    opened: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Pending:
    """An affine operation without its value, which would keep itself alive.

    Args:
        rule: how it hands relevance on.
        apply: see ``Affine``.
        x: likewise.
        weight: likewise.
        bias: likewise.
        channel: likewise.
        axis: of the weight, along which a batch normalization can be folded into it; None: it cannot.
        positive: see ``Affine``.
        note: writes down what it keeps.
    """

    rule: Rule | FirstRule
    apply: Apply
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    channel: tuple[int, ...]
    axis: int | None
    positive: bool
    note: Note

    def affine(self, value: Tensor) -> Affine:
        """The operation with its value."""
        return Affine(self.apply, self.x, self.weight, self.bias, value, self.channel, self.positive)


@dataclass(eq=False)
class Call:
    """One operation that is about to run on tensors that depend on the input.

    Args:
        operation: of torch.
        name: in any spelling, without the underscore of an in-place form.
        args: positional, with stand-ins in place.
        named: by keyword, likewise.
        place: of the layer.
        live: the tensors among them that depend on the input, with their marks.
        known: what the handler knows of the result, for its mark.
    """

    operation: Callable[..., Any]
    name: str
    args: list[Any]
    named: dict[str, Any]
    place: str
    live: list[tuple[Tensor, Mark]] = field(default_factory=list)
    known: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Any:
        """The operation as torch has it."""
        return self.operation(*self.args, **self.named)

    @property
    def every(self) -> list[Tensor]:
        """Every tensor among the arguments."""
        return tensors_of(self.args, self.named)

    def bound(self, *names: str) -> dict[str, Any]:
        """The arguments by the names of their positions; None: not given."""
        return {n: (self.args[i] if i < len(self.args) else self.named.get(n)) for i, n in enumerate(names)}


Handler = Callable[["Propagation", Call], Any]
_TURNED = frozenset({"T", "mT", "H", "mH"})
_LOOKS = frozenset(
    {"size", "dim", "stride", "__len__", "numel", "is_contiguous", "ndimension", "__set__", "get_device"}
)


class Propagation(Rulebook, ABC):
    """Rules for one run of a model; afterwards ``books`` knows what stayed on the way.

    Args:
        treatment: which rule where.
        batch: items.
    """

    def __init__(self, treatment: Treatment, batch: int) -> None:
        self.treatment = treatment
        self.books = Books(batch)
        self.without_rule = Counter[str]()
        self._marks: Any = WeakTensorKeyDictionary()
        self._kinds: dict[Any, tuple[str, Handler | None] | None] = {}

    @property
    @abstractmethod
    def handlers(self) -> Mapping[str, Handler]:
        """How each operation is made, by name."""

    @property
    def additive(self) -> bool:
        """See ``Rulebook``; positive parts of each window are not those of the whole."""
        return not self.treatment.positive

    # what the probe calls --------------------------------------------------------------------------------------------

    def begin(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See ``Rulebook``."""
        for name, x in inputs.items():
            if x.requires_grad:
                self.marked(x, Mark(raw=True, bounds=self.treatment.bounds.get(name)))
        return inputs

    def operate(
        self, operation: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any], place: str
    ) -> Any:
        """See ``Rulebook``."""
        if operation not in self._kinds:
            self._kinds[operation] = self._kind(operation)
        kind = self._kinds[operation]
        given = [] if kind is None else tensors_of(args, named)
        if kind is None or not torch.is_grad_enabled() or not any(t.requires_grad for t in given):
            return operation(*args, **named)
        name, handler = kind
        self._check_seen(given, name, place)
        marks = [m for t in given if (m := self.mark(t)) is not None]
        if not marks:
            with torch.no_grad():  # of parameters alone: a constant
                return operation(*args, **named)
        call = Call(operation, name, list(args), dict(named), place)
        if any(m.pending is not None or m.now is not None for m in marks):
            waits = name == "batch_norm"
            self._replace(call, lambda t: self.settled(t, waits))
        call.live = [(t, m) for t in call.every if (m := self.mark(t)) is not None]
        out = handler(self, call) if handler is not None else self._unruled(call)
        self._follow(call, marks, out)
        return out

    def finish(self, output: Tensor) -> Tensor:
        """See ``Rulebook``."""
        if self.mark(output) is None:
            return output
        output = self.open(self.settled(output))
        value, positive = output.detach(), self.treatment.positive

        def start(g: Tensor) -> Tensor:
            parts = value * g
            total = parts.flatten(1).sum(1)
            if positive:  # the target is the last layer, and it too hands on its positive parts only
                total, parts = total.clamp(min=0), parts.clamp(min=0)
                share = total / parts.flatten(1).sum(1).clamp_min(torch.finfo(g.dtype).tiny)
                g = torch.where(parts > 0, g, 0.0) * share.view(-1, *(1,) * (g.ndim - 1))
            self.books.start = total if self.books.start is None else self.books.start + total
            return g

        out = output.clone()
        out.register_hook(start)
        return out

    # what handlers call ----------------------------------------------------------------------------------------------

    def settled(self, t: Tensor, waits: bool = False) -> Tensor:
        """What stands in for a tensor now; ``waits``: an affine operation's rule may wait on."""
        mark = self.mark(t)
        while mark is not None and mark.now is not None:
            t = mark.now
            mark = self.mark(t)
        if mark is None or mark.pending is None or waits:
            return t
        pending, mark.pending = mark.pending, None
        out = self.shared(pending, t)
        if out is not t:
            mark.now = self.marked(out)
        return out

    def shared(self, pending: Pending, value: Tensor) -> Tensor:
        """The value of an affine operation, whose relevance goes back by its rule."""
        if not isinstance(pending.rule, Zero):
            return relayed(value, pending.rule(pending.affine(value)), pending.note)
        if pending.bias is not None:
            self.noted(value, pending.bias.view(pending.channel), pending.note, "bias")
        return value

    def noted(self, out: Tensor, constant: Tensor, note: Note, cause: str) -> None:
        """Have ``note`` told, under ``cause``, what a ``constant`` that is part of ``out`` takes."""

        def kept(g: Tensor) -> None:
            note(cause, dotted(g, constant.detach().to(g)))

        if out.requires_grad:
            out.register_hook(kept)

    def marked(self, t: Tensor, known: Mark | None = None) -> Tensor:
        """The tensor, known to depend on the input."""
        self._marks[t] = known or Mark()
        return t

    def mark(self, t: Tensor) -> Mark | None:
        """What is known of a tensor; None: it is a constant."""
        return cast("Mark | None", self._marks.get(t))

    def open(self, t: Tensor) -> Tensor:
        """A tensor whose gradient is relevance over value; a raw one is made so, once."""
        mark = self.mark(t)
        if mark is None or not mark.raw:
            return t
        if mark.opened is None:
            mark.opened = self.marked(opened(t, t.detach().clone()))
        return mark.opened

    def opened(self, call: Call) -> None:
        """Make every raw tensor of a call ready for operations that read ``R = x g``."""
        if any(m.raw for _, m in call.live):
            self._replace(call, self.open)
            call.live = [(t, m) for t in call.every if (m := self.mark(t)) is not None]

    def note(self, call: Call) -> Note:
        """Writes down what this operation keeps."""
        return self.books.note(call.place, call.name)

    def first(self, mark: Mark) -> FirstRule | None:
        """The rule of an affine operation that reads this raw tensor."""
        return self.treatment.first if mark.bounds is None else ZBox(*mark.bounds)

    def refuse(self, what: str, place: str) -> None:
        """Say that there is no rule: raise it, or remember it where the plain gradient is allowed.

        Raises:
            CannotDo: the fallback is not allowed.
        """
        if self.treatment.fallback == "refuse":
            raise CannotDo(
                f"{self.treatment.method} has no rule for the operation {_at(what, place)}",
                "pass fallback=gradient to send relevance through it as gradient times input, or use another method "
                "(IntegratedGradients)",
            )
        self.without_rule[_at(what, place)] += 1

    # -----------------------------------------------------------------------------------------------------------------

    def _kind(self, operation: Any) -> tuple[str, Handler | None] | None:
        """Name and handler; None: it only looks at a tensor."""
        name = getattr(operation, "__name__", str(operation))
        if name == "__get__":
            name = getattr(getattr(operation, "__self__", None), "__name__", name)
            return (name, self.handlers.get("view")) if name in _TURNED else None
        if name in _LOOKS:
            return None
        name = name if name.startswith("__") else name.rstrip("_")
        if name == "batch_norm" and operation is torch.batch_norm:
            name = "torch.batch_norm"  # its arguments are in another order
        return name, self.handlers.get(name)

    def _check_seen(self, given: list[Tensor], name: str, place: str) -> None:
        """Tensors with a history that no operation of torch made: a custom autograd function, a checkpoint."""
        for t in given:
            if t.requires_grad and not t.is_leaf and self.mark(t) is None:
                self.refuse(f"{type(t.grad_fn).__name__} (its result goes to {name})", place)
                self.marked(t)

    def _unruled(self, call: Call) -> Any:
        self.opened(call)
        out = call.run()
        if any(t.requires_grad for t in tensors_of((out,), {})):
            self.refuse(call.name, call.place)
        return out

    def _replace(self, call: Call, by: Callable[[Tensor], Tensor]) -> None:
        call.args = [_replaced(a, by) for a in call.args]
        call.named = {k: _replaced(a, by) for k, a in call.named.items()}

    def _follow(self, call: Call, before: list[Mark], out: Any) -> None:
        """Mark what came out; where a tensor was changed in place, its stand-in stands for it from now on."""
        given = call.every
        for t in tensors_of((out,), {}):
            if any(t is g for g in given):  # in place, or as it was
                for mine in before:
                    if mine.opened is t:
                        mine.raw, mine.now = False, t
                self.marked(t, Mark(**call.known))
            elif t.requires_grad and self.mark(t) is None:
                self.marked(t, Mark(**call.known))


def _at(name: str, place: str) -> str:
    return f"{name} in {place or 'the model itself'}"


def _replaced(a: Any, by: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(a, Tensor):
        return by(a)
    if isinstance(a, list | tuple) and any(isinstance(t, Tensor) for t in a):
        return [by(t) if isinstance(t, Tensor) else t for t in a]
    return a


def tensors_of(args: Any, named: Mapping[str, Any]) -> list[Tensor]:
    """Every tensor among the arguments, also in lists."""
    found: list[Tensor] = []
    for a in (*args, *named.values()):
        if isinstance(a, Tensor):
            found.append(a)
        elif isinstance(a, list | tuple):
            found += [t for t in a if isinstance(t, Tensor)]
    return found
