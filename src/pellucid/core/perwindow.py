"""Methods that read what each window has for itself (layers, remembered runs), asked window by window."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast, final

import torch
from torch import Tensor

from pellucid.core.card import Ask, Cost, Family
from pellucid.core.differentiate import gradients
from pellucid.core.errors import CannotDo
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer, Attribution
from pellucid.core.grid import Grid
from pellucid.core.infill import Infill, filled
from pellucid.core.ledger import Entry, Ledger
from pellucid.core.model import OutputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.target import BoundTarget, Target, tiled
from pellucid.core.windows import Layout, SlidingWindows, Start

_WHOLE = frozenset({Ask.OUTPUT, Ask.INPUT_GRADIENT})
_CURVED = (
    "the target is not linear in the blended output: each window explains its share of the target's slope at this image"
)


def answered(explainer: Explainer, probe: Probe) -> Answer:
    """A method's answer, made window by window where the model predicts so and the method cannot be asked otherwise.

    Gradients, paths and perturbations are of the whole prediction, and the method is asked as it is. Relevance is made
    in each window of what the window contributes to the target, and summed: exact for targets linear in the blend. What
    reads layers is made in each window of the part of the target that the window holds; the maps are blended with the
    prediction's own weights, and labeled, for channels are weighed in each window anew.

    Args:
        explainer: any.
        probe: opened for what the explainer needs.

    Raises:
        CannotDo: the method answers with something that cannot be put together from windows.
    """
    windows = probe.model.inference
    if windows is None:
        return explainer(probe)
    if any(ask not in _WHOLE for ask, _ in explainer.needs(probe.model, probe.inputs)):
        return _together(explainer, probe, windows, summed=False)
    if explainer.card.family in (Family.RELEVANCE, Family.ATTENTION):  # AttnLRP is relevance through attention
        return _together(explainer, probe, windows, summed=True)
    return explainer(probe)


@final
@dataclass(frozen=True, eq=False)
class _Share(Target):
    """What one window has of the target: its output times a fixed slope."""

    whole: BoundTarget
    slope: Tensor

    def bind(self, output: Tensor, spec: OutputSpec, regions: Mapping[str, Tensor]) -> BoundTarget:
        def score(o: Tensor) -> Tensor:
            return (o * tiled(self.slope, len(o)).to(o)).flatten(1).sum(1)

        return BoundTarget(self.whole.name, score, self.whole.unit, self.whole.label)


@dataclass(eq=False)
class _Sum:
    """Maps of windows put together on the padded image."""

    layout: Layout
    maps: dict[str, Tensor] = field(default_factory=dict)
    errors: dict[str, Tensor] = field(default_factory=dict)
    difference: Tensor | None = None
    ledger: Ledger | None = None
    warnings: dict[str, int] = field(default_factory=dict)
    first: Attribution | None = None
    count: int = 0

    def add(self, answer: Answer, start: Start, held: Tensor, factor: Tensor | None) -> None:
        """One window's answer.

        Args:
            answer: of the window.
            start: of the window.
            held: per item, whether the window has a part in the target.
            factor: that maps are blended with; None: they are summed.
        """
        if not isinstance(answer, Attribution):
            raise CannotDo(
                f"a {answer.kind} cannot be put together from windows", "choose a method that answers with a map"
            )
        self.first, self.count = self.first or answer, self.count + 1
        for into, parts in ((self.maps, answer.maps), (self.errors, answer.error or {})):
            for name, values in parts.items():
                kept = torch.where(held.view(-1, *(1,) * (values.ndim - 1)), values, 0)
                self._put(into, name, kept if factor is None or kept.ndim == 2 else kept * factor.to(kept), start)
        if answer.difference is not None:
            part = torch.where(held, answer.difference, 0)
            self.difference = part if self.difference is None else self.difference + part
        if answer.ledger is not None:
            self.ledger = _added(self.ledger, answer.ledger, held)
        for text in answer.warnings:
            self.warnings[text] = self.warnings.get(text, 0) + 1

    def _put(self, into: dict[str, Tensor], name: str, values: Tensor, start: Start) -> None:
        if values.ndim == 2:
            into[name] = into[name] + values if name in into else values
            return
        if name not in into:
            into[name] = values.new_zeros(*values.shape[:2], *self.layout.padded)
        into[name][self.layout.at(start)] += values

    def answer(self, summed: bool, said: tuple[str, ...]) -> Attribution:
        """On the image: margins cut, or folded back where values are sums."""
        back: Callable[[Tensor], Tensor] = self.layout.fold if summed else self.layout.unpad
        maps, errors = (
            {k: v if v.ndim == 2 else back(v) for k, v in parts.items()} for parts in (self.maps, self.errors)
        )
        told = [w if n == self.count else f"in {n} of {self.count} windows: {w}" for w, n in self.warnings.items()]
        return replace(
            cast(Attribution, self.first),
            maps=maps,
            error=errors or None,
            difference=self.difference if summed else None,
            ledger=self.ledger if summed else None,
            warnings=(*said, *told),
        )


def _added(sums: Ledger | None, one: Ledger, held: Tensor) -> Ledger:
    """Ledgers of windows, entry by entry; items that a window holds nothing of have none."""
    kept = {(e.place, e.operation, e.cause): e.amount for e in sums.entries} if sums is not None else {}
    for e in one.entries:
        key, amount = (e.place, e.operation, e.cause), torch.where(held, e.amount, 0)
        kept[key] = kept[key] + amount if key in kept else amount
    entries = [Entry(*key, amount) for key, amount in kept.items()]
    entries.sort(key=lambda e: -float(e.amount.abs().sum()))
    start, arrived = torch.where(held, one.start, 0), torch.where(held, one.arrived, 0)
    if sums is not None:
        start, arrived = sums.start + start, sums.arrived + arrived
    return Ledger(start, arrived, tuple(entries))


def _together(explainer: Explainer, probe: Probe, windows: SlidingWindows, summed: bool) -> Attribution:
    layout = windows.of(probe.inputs)
    weight = layout.weight(probe.output.device)
    total = layout.total(weight)
    slope = _slope(probe, layout)
    scene = _Cuts(probe, layout)
    padded = {k: layout.pad(v) for k, v in probe.inputs.items()}
    whole, most, made = probe.target, Cost(), _Sum(layout)
    for start, part in _holding(layout, slope):
        factor = weight / total[layout.at(start)]
        share = _Share(whole, part * factor if summed else part)
        inputs = layout.part(padded, start)
        needs = explainer.needs(probe.model, probe.inputs)
        one = Probe(probe.model.window, inputs, share, needs, scene.at(start), probe.precision)
        made.add(explainer(one), start, part.flatten(1).any(1), None if summed else factor)
        most = Cost(max(most.forwards, one.spent.own.forwards), max(most.backwards, one.spent.own.backwards))
        probe.spent.windows += one.spent.shared + one.spent.own
    if made.first is None:
        raise CannotDo(f"the score of {whole.name!r} has no slope here", "explain another target, or use Occlusion")
    probe.spent.own += most  # an item counts once, however many windows it takes
    return made.answer(summed, _said(windows, made.count, len(layout.starts), summed, whole))


def _said(windows: SlidingWindows, count: int, of: int, summed: bool, target: BoundTarget) -> tuple[str, ...]:
    curved = (_CURVED,) if target.head is not None else ()
    if summed:
        return curved
    label = (
        f"per window: the model predicts by {windows.words}; the map was made in each of the {count} of {of} windows "
        "that hold a part of the target, with weights of its own, and blended as the prediction is"
    )
    return (label, *curved)


def _slope(probe: Probe, layout: Layout) -> Tensor:
    """The target's gradient with respect to the blend, "batch class *padded"."""
    with torch.inference_mode(False), torch.enable_grad():
        blend = probe.output.clone().requires_grad_()
        key = ("input", "blend")
        found = gradients(probe.target(blend), probe.target.name, {key: [blend]}, False, False)[key][0]
    return layout.widen(found)


def _holding(layout: Layout, slope: Tensor) -> Iterator[tuple[Start, Tensor]]:
    """The windows that hold a part of the target, each with that part."""
    for start in layout.starts:
        part = slope[layout.at(start)]
        if bool(part.any()):
            yield start, part


@dataclass(frozen=True, eq=False)
class _Cuts:
    """The scene of each window, cut out of the whole image's."""

    probe: Probe
    layout: Layout
    _fills: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def at(self, start: Start) -> Scene:
        """The scene of one window; fills are those of the whole image (its mean, its blur)."""
        scene, size = self.probe.scene, self.layout.windows.size
        origin = [s - before for s, (before, _) in zip(start, self.layout.margins, strict=True)]
        regions = {n: self._cut(r[None, None].float(), start)[0, 0] > 0 for n, r in scene.regions.items()}
        background = {n: self._cut(x, start) for n, x in (scene.background or {}).items()}
        return replace(
            scene,
            grids={n: g.cropped(origin, size) for n, g in scene.grids.items() if g.rank == len(size)},
            regions={n: r for n, r in regions.items() if bool(r.any())},
            background=background or None,
            fills=partial(self._fill, start),
        )

    def _fill(self, start: Start, infill: Infill) -> Mapping[str, Tensor]:
        return self.layout.part(self._filled(infill), start)

    def _cut(self, x: Tensor, start: Start) -> Tensor:
        return self.layout.part({"": self.layout.pad(x) if x.ndim > 2 else x}, start)[""]

    def _filled(self, infill: Infill) -> Mapping[str, Tensor]:
        key = repr(infill)
        if key not in self._fills:
            probe = self.probe
            grids = {n: probe.scene.grids.get(n) or Grid.regular(x.shape[2:]) for n, x in _images(probe)}
            spacing = {n: g.spacing for n, g in grids.items()}
            fill = filled(infill, probe.inputs, spacing, probe.scene.affine)
            self._fills[key] = {n: self.layout.pad(v) for n, v in fill.items()}
        return self._fills[key]


def _images(probe: Probe) -> Iterator[tuple[str, Tensor]]:
    return ((n, x) for n, x in probe.inputs.items() if x.ndim > 2)
