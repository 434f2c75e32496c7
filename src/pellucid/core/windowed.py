"""One evaluation of a prediction blended from windows: its gradient window by window, in memory of one window."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from pellucid.core.card import Ask, Cost
from pellucid.core.differentiate import gradients, leaf
from pellucid.core.errors import CannotDo
from pellucid.core.evaluation import Bind, Pass, Work, check_finite, evaluate
from pellucid.core.layers import Watch
from pellucid.core.model import Inputs, Model
from pellucid.core.rules import Rulebook, called
from pellucid.core.windows import Layout, SlidingWindows, Start

Shares = Callable[[Start], Tensor]


def evaluate_windows(model: Model, x: Inputs, work: Work, bind: Bind) -> Pass:
    """Predict by windows, score the blend, and bring its cotangent back through each window that had a part in it.

    The blend is made without a graph. The targets are bound on it, and differentiated with respect to it only; each
    window is then run once more with a graph, and its output's share of the cotangent (times the window's weight over
    the sum of weights) goes back to the input. Windows whose share is zero are left out. The sum over windows is the
    gradient of the whole, since a blend is linear. Edits and replaced operations apply inside each window.

    Args:
        model: with sliding windows.
        x: by name, in network units, whole.
        work: what to edit, replace and differentiate.
        bind: the targets, bound at the unperturbed input.

    Raises:
        CannotDo: layers are asked for, or rules that remember; or the model lacks an ability that the work needs.
        NonFinite: a target's score is NaN or infinite.
    """
    _check(work)
    if work.graph:
        return evaluate(model, x, work, bind)  # every window's graph is kept: what is asked for
    backward = Ask.INPUT_GRADIENT in work.want
    model.check_able({"gradient": backward, "hooks": False, "edits": bool(work.edits), "rules": work.rules is not None})
    leaves = {k: leaf(v, backward, False) for k, v in x.items()}
    run = _Run(model, work, {k: v.detach() for k, v in leaves.items()})
    with model.held(), Watch(model.module, (), work.edits, leaf=False):
        with torch.no_grad():
            output = run.layout.blend(run.forward, run.inputs, work.reads)
        cotangents, scores = differentiated(output, work.aims, bind, backward)
        found, passes = run.backward(leaves, cotangents) if backward else ({}, 0)
    count = len(run.layout.starts if work.reads is None else work.reads)
    return Pass(
        output=output,
        score=scores,
        input_gradient=tuple(found.get(i, {}) for i in range(len(scores))),
        activation={},
        layer_gradient=tuple({} for _ in scores),
        windows=Cost(len(output) * (count + passes), len(output) * passes * len(work.aims)),
    )


def by_window(what: str) -> CannotDo:
    """The refusal of what has no meaning for the whole image, with the mend."""
    return CannotDo(
        f"the model predicts by sliding windows, and {what}",
        "ask window by window, with pellucid.core.perwindow.answered(method, probe), or use a gradient method",
    )


def _check(work: Work) -> None:
    if work.layers or work.want - {Ask.OUTPUT, Ask.INPUT_GRADIENT}:
        raise by_window("a layer has an output in each window, none for the whole image")
    if work.replay is not None or (isinstance(work.rules, Rulebook) and not work.rules.additive):
        raise by_window("what is remembered of one run cannot be played back in many windows")


def differentiated(
    output: Tensor, aims: Sequence[int], bind: Bind, backward: bool
) -> tuple[dict[int, Tensor], tuple[Tensor, ...]]:
    """The targets' gradients with respect to the blend, by aim, and all scores.

    Args:
        output: blended, without a graph.
        aims: indices of the targets that are differentiated.
        bind: the targets.
        backward: whether gradients are wanted.
    """
    with torch.set_grad_enabled(backward):
        blend = output.detach().requires_grad_(backward)
        bound = bind(blend)
        scores = tuple(b(blend) for b in bound)
        for i in aims:
            check_finite(scores[i], bound[i].name)
        found: dict[int, Tensor] = {}
        for i in aims if backward else ():
            key = ("input", "blend")
            found[i] = gradients(scores[i], bound[i].name, {key: [blend]}, False, i != aims[-1])[key][0]
    return found, tuple(s.detach() for s in scores)


@dataclass(frozen=True, eq=False)
class _Run:
    """The forwards of one evaluation, all with the same edits, rules and precision."""

    model: Model
    work: Work
    inputs: Inputs

    @cached_property
    def layout(self) -> Layout:
        return cast(SlidingWindows, self.model.inference).of(self.inputs)

    @cached_property
    def network(self) -> Model:
        return self.model.window

    def forward(self, part: Inputs) -> Tensor:
        """The head's output of one window; a clone: a module may change its input in place."""
        half = self.work.precision == "bfloat16"
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=half):
            return called(self.network, self.model.module, {k: v.clone() for k, v in part.items()}, self.work.rules)

    def backward(self, leaves: Inputs, cotangents: Mapping[int, Tensor]) -> tuple[dict[int, dict[str, Tensor]], int]:
        """Gradients of each aim by input, and the number of windows that were run for them."""
        plain = {k: self.layout.pad(v.detach()) for k, v in leaves.items()}
        wanted = [k for k, v in leaves.items() if v.requires_grad]
        if not wanted:
            raise CannotDo("the inputs are integers, which have no gradient", "use a perturbation method (Occlusion)")
        sums = {i: {k: torch.zeros_like(plain[k]) for k in wanted} for i in cotangents}
        passes = 0
        for start, shares in shared(self.layout, cotangents):
            passes += 1
            self._through(self.layout.part(plain, start), start, shares, sums)
        fold = self.layout.fold
        return {i: {k: fold(g) if g.ndim > 2 else g for k, g in of.items()} for i, of in sums.items()}, passes

    def _through(
        self, part: Inputs, start: Start, shares: Mapping[int, Tensor], sums: Mapping[int, Mapping[str, Tensor]]
    ) -> None:
        """One window forward with a graph, and back once for each aim."""
        names = tuple(next(iter(sums.values())))
        at = self.layout.at(start)
        with torch.enable_grad():
            given = {k: v.detach().requires_grad_(k in names) for k, v in part.items()}
            output = self.layout.checked(self.forward(given))
            if not output.requires_grad:
                raise CannotDo(
                    "the model's output has no gradient: its module cuts its graph",
                    "remove torch.no_grad, .detach() or argmax from its forward, or use a perturbation method",
                )
            last = next(reversed(shares))
            for i, share in shares.items():
                found = torch.autograd.grad(
                    output, [given[k] for k in names], share.to(output), retain_graph=i != last, allow_unused=True
                )
                for k, g in zip(names, cast(tuple[Tensor | None, ...], found), strict=True):
                    if g is not None:
                        (sums[i][k][at] if g.ndim > 2 else sums[i][k]).add_(g)


def shared(layout: Layout, cotangents: Mapping[int, Tensor]) -> Iterator[tuple[Start, dict[int, Tensor]]]:
    """Windows with the share that each has in the targets' gradients; those that have none are left out.

    Args:
        layout: of the windows.
        cotangents: of the blend, by aim.
    """
    weight = layout.weight(next(iter(cotangents.values())).device)
    total = layout.total(weight)
    wide = {i: layout.widen(c) for i, c in cotangents.items()}
    for start in layout.starts:
        at = layout.at(start)
        shares = {i: c[at] * weight / total[at] for i, c in wide.items() if bool(c[at].any())}
        if shares:
            yield start, shares


def whole(work: Work) -> Work:
    """What of a shared pass the whole image can answer; layers are read window by window."""
    return replace(work, want=work.want & {Ask.OUTPUT, Ask.INPUT_GRADIENT}, layers=())
