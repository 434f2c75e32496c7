"""How far a map can be changed by an image change that nobody would notice and that changes no decision."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.card import Ask, Cost, MetricCard, Property, shared_cost
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.metric import Metric, Score
from pellucid.core.perwindow import answered
from pellucid.core.probe import Probe
from pellucid.metrics.likeness import kept_part, spearman, top_part
from pellucid.metrics.maps import NO_MAP, blank_reasons, on_grid, ranked
from pellucid.metrics.robustness.hunting import Drawing, Shift, chosen, descend, differentiable
from pellucid.metrics.robustness.noise import Bank, same_decision, unfit

_LOOKS = 4  # at images on the way down
_SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.1)  # of a shift that went too far: the largest that is admitted is taken
_BETTER = 1e-9  # by which a map must be worse to be kept: less is rounding
_NONE_ADMITTED = "every image tried changes the decision or the score, so nothing is known of the map"


@dataclass(frozen=True, eq=False)
class Attacked:
    """The worst images that were found, and what became of the map.

    Args:
        inputs: by name, one image per item; the image itself where nothing worse was found.
        change: share of the map's strongest part that is no longer there, "batch"; NaN where no image was admitted.
        spearman: rank correlation of the two maps.
        shift: change of the score, see ``ExplanationAttack.tolerance``.
        likeness: correlation with the map that was aimed at, before and after; None: none was.
        found: by which search, by item.
        tried: images explained.
        admitted: of these, how many decide alike, "batch".
    """

    inputs: Mapping[str, Tensor]
    change: Float[Tensor, " batch"]
    spearman: Float[Tensor, " batch"]
    shift: Float[Tensor, " batch"]
    likeness: tuple[Tensor, Tensor] | None
    found: tuple[str, ...]
    tried: int
    admitted: Tensor


@dataclass(frozen=True)
class ExplanationAttack(Metric):
    """How much of the map's strongest part an unnoticed change of the image can move, with the decision kept.

    ``max over e of 1 - |top(A(x + e)) and top(A(x))| / k``, no voxel moved by more than ``bound``, decision the same,
    score within ``tolerance``. Found by steps down the gradient of a smoothed stand-in and by a seeded random search;
    the method itself explains what they find. So it is a lower bound: a better attack may find worse.

    Returns:
        Score from 0 (nothing found) to 1 (all of it moved), lower is more robust; undefined for a constant map.

    Raises:
        BadOption: an option outside its range, or nothing to search with.

    Source:
        ghorbani2019interpretation (top-k); dombrowski2019explanations (target-map, rounded ReLU).

    Example:
        >>> ExplanationAttack(aim="target-map", steps=10).settings()["bound"]
        0.05
    """

    aim: Annotated[
        Literal["top-k", "target-map"], "move the evidence out of its strongest part, or toward the mirrored map"
    ] = "top-k"
    bound: Annotated[float, "largest shift of a voxel, as a share of the intensity range of the body"] = 0.05
    tolerance: Annotated[
        float, "largest change of the model score (of a class), else of the target as a share of itself"
    ] = 0.05
    top: Annotated[float, "share of the area that is the map's strongest part"] = 0.1
    steps: Annotated[int, "down the gradient of the stand-in; 0: none"] = 20
    tries: Annotated[int, "images drawn at random, each explained; 0: none"] = 20

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.ROBUSTNESS,
        shows="how much of the map's strongest part moves in the worst image found that looks and decides alike",
        caution="a lower bound: a better attack may find worse; a map that ignores the model cannot be attacked",
        equation=r"\max_{\Vert e \Vert_\infty \leq \epsilon} 1 - |T(A(x+e)) \cap T(A(x))| / k",
        source="ghorbani2019interpretation",
        cost_note="24 more explanations, and 44 forwards and 40 backwards of the gradient search, at the defaults",
        direction="lower",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def __post_init__(self) -> None:
        if self.aim not in ("top-k", "target-map"):
            raise BadOption(f"expected aim top-k or target-map, got {self.aim!r}", "choose one of these")
        if not (0 < self.bound <= 1 and 0 < self.tolerance <= 1 and 0 < self.top < 1):
            raise BadOption(
                f"expected bound and tolerance within (0, 1] and a top share within (0, 1), got {self.bound}, "
                f"{self.tolerance} and {self.top}",
                "0.05, 0.05 and 0.1 are the defaults",
            )
        if min(self.steps, self.tries) < 0 or 0 < self.steps < _LOOKS or self.steps + self.tries == 0:
            raise BadOption(
                f"expected steps of 0 or at least {_LOOKS}, tries of at least 0 and not both 0, got {self.steps} and "
                f"{self.tries}",
                "20 and 20 are the defaults",
            )

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``."""
        each, steps = shared_cost(explainer.card.asks | {Ask.OUTPUT}) + explainer.cost(probe), self._steps(probe)
        looks = _LOOKS if steps else 0
        return Cost(steps + looks * len(_SHARES), 2 * steps) + each * (looks + self.tries)

    def _steps(self, probe: Probe) -> int:
        return self.steps if differentiable(probe) else 0

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        maps, bank = on_grid(answer, probe), self._bank()
        if maps is None:
            return Score.undefined(self, probe.batch, NO_MAP)
        reasons = tuple(a or b for a, b in zip(unfit(probe, maps, bank), blank_reasons(maps), strict=True))
        if all(reasons):
            return replace(Score.undefined(self, probe.batch, ""), reasons=reasons)
        worst = self.attack(probe, answer, explainer)
        values = worst.change.clone()
        values[[bool(r) for r in reasons]] = torch.nan
        said = tuple(r or (_NONE_ADMITTED if v.isnan() else "") for r, v in zip(reasons, values, strict=True))
        return Score(self.name, values, said, self.settings(), self._detail(probe, worst))

    def attack(self, probe: Probe, answer: Answer, explainer: Explainer) -> Attacked:
        """Search, and hand back the worst images; the model is untouched.

        Args:
            probe: of the case, aimed at the explained target.
            answer: a map on the network's grid.
            explainer: what made it.
        """
        maps = on_grid(answer, probe)
        if maps is None:
            raise BadOption(f"expected a map to attack: {NO_MAP}", "choose a method that answers with a map")
        hunt, spans = _Hunt(self, probe, explainer, maps.nan_to_num(0.0, 0.0, 0.0).double()), self._bank().spread(probe)
        drawing = Drawing(probe, spans, self.tries)
        if steps := self._steps(probe):
            for shift in descend(probe, explainer, hunt.aim.smooth, spans, steps, _LOOKS):
                held = hunt.held(shift)
                drawing.begin(held, hunt.look(held, "gradient")[1])
        for _ in range(self.tries):
            shift = drawing.next()
            admitted, better = hunt.look(shift, "random")
            drawing.judged(admitted)
            drawing.begin(shift, better)
        return hunt.worst

    def _bank(self) -> Bank:
        return Bank("uniform", self.bound, 1)

    def _detail(self, probe: Probe, worst: Attacked) -> dict[str, Any]:
        sizes = {k: v for k, v in self._bank().report(probe).items() if k != "noise"}
        moved = {n: (x - probe.inputs[n]).abs().flatten(1).amax(1).tolist() for n, x in worst.inputs.items()}
        found: dict[str, Any] = {
            "means": "a lower bound of the worst case, found by "
            + ("gradient and random search" if self._steps(probe) else "random search alone: no second derivatives"),
            "bound": f"{self.bound:g} of the intensity range of the body, largest shift of any voxel",
            **{k.replace("noise", "bound"): v for k, v in sizes.items()},
            "moved in network units": moved,
            "spearman": worst.spearman.tolist(),
            "change of the score": worst.shift.tolist(),
            "found by": list(worst.found),
            "images explained": worst.tried,
            "images that decide alike": worst.admitted.tolist(),
        }
        if worst.likeness is not None:
            before, after = worst.likeness
            found |= {"correlation with the mirrored map": {"before": before.tolist(), "after": after.tolist()}}
        return found


@dataclass(frozen=True, eq=False)
class _Aim:
    """What a worse map is: in numbers for the random search, in smooth numbers for the gradient."""

    part: Tensor  # how much each voxel belongs to the strongest part, "batch *space"
    toward: Tensor | None  # the map aimed at

    def smooth(self, values: Tensor) -> Tensor:
        """To be made small, by item."""
        if self.toward is not None:
            return -correlation(values, self.toward.to(values))
        flat, part = values.flatten(1), self.part.to(values).flatten(1)
        return (flat * part).sum(1) / flat.abs().sum(1).clamp_min(torch.finfo(flat.dtype).tiny)

    def hard(self, values: Tensor) -> Tensor:
        """The same of the positive part of a real map, on which ties and signs do not count."""
        return self.smooth(values if self.toward is not None else values.clamp_min(0))


def correlation(one: Float[Tensor, "batch *space"], other: Float[Tensor, "batch *space"]) -> Float[Tensor, " batch"]:
    """Pearson's, by item; 0 where a map is constant."""
    a, b = (v.flatten(1) - v.flatten(1).mean(1, keepdim=True) for v in (one, other))
    lengths = a.square().sum(1).sqrt() * b.square().sum(1).sqrt()
    return (a * b).sum(1) / lengths.clamp_min(torch.finfo(one.dtype).tiny)


class _Hunt:
    """The images looked at, and the worst of them by item."""

    def __init__(self, metric: ExplanationAttack, probe: Probe, explainer: Explainer, maps: Tensor) -> None:
        self._metric, self._probe, self._explainer = metric, probe, explainer
        self._ranks = ranked(maps).flatten(1).numpy()
        self._count = max(1, round(metric.top * self._ranks.shape[1]))
        self._parts = [top_part(r, self._count) for r in self._ranks]
        part = torch.stack([torch.from_numpy(p) for p in self._parts]).view_as(maps)
        self.aim = _Aim(part, maps.flip(-1) if metric.aim == "target-map" else None)
        self._reached = self.aim.hard(maps)
        none = torch.full((probe.batch,), torch.nan, dtype=torch.float64)
        found = ("",) * probe.batch
        zero, admitted = torch.zeros_like(none), torch.zeros(probe.batch, dtype=torch.long)
        inputs = {n: x.clone() for n, x in probe.inputs.items()}
        start = None if self.aim.toward is None else correlation(maps, self.aim.toward)
        likeness = None if start is None else (start, start)
        self.worst = Attacked(inputs, none, zero + 1, zero, likeness, found, 0, admitted)

    def held(self, shift: Shift) -> Shift:
        """As much of a shift as is admitted, by item; all of it where nothing is."""
        probe, kept = self._probe, dict(shift)
        waiting = torch.ones(probe.batch, dtype=torch.bool)
        for share in _SHARES:
            part = {n: s * share for n, s in shift.items()}
            done = probe.run(self._at(part))
            fits = waiting & self._admitted(done.output, done.score[probe.aim])[0]
            kept = {n: chosen(fits, part[n], s) for n, s in kept.items()}
            waiting &= ~fits
            if not bool(waiting.any()):
                break
        return kept

    def look(self, shift: Shift, how: str) -> tuple[Bool[Tensor, " batch"], Bool[Tensor, " batch"]]:
        """Explain at an image: whether it is admitted, and whether the search should go on from it, by item."""
        inputs = self._at(shift)
        probe = self._probe.elsewhere(inputs)
        there = on_grid(answered(self._explainer, probe), probe)
        admitted, moved = self._admitted(probe.output, probe.baseline_score)
        self._probe.spent.own += probe.spent.shared + probe.spent.own
        self.worst = replace(self.worst, tried=self.worst.tried + 1)
        if there is None:
            return admitted, torch.zeros_like(admitted)
        admitted = admitted & torch.isfinite(there).flatten(1).all(1)
        values = there.nan_to_num(0.0, 0.0, 0.0).double()
        reached = self.aim.hard(values)
        better = admitted & (reached < self._reached - _BETTER)
        self._reached = torch.where(better, reached, self._reached)
        self._keep(values, (admitted, better), moved, inputs, how)
        return admitted, better

    def _keep(
        self,
        values: Tensor,
        verdict: tuple[Tensor, Tensor],
        moved: Tensor,
        inputs: Mapping[str, Tensor],
        how: str,
    ) -> None:
        """The image, for the items whose map it changes most, or brings nearest to the one aimed at."""
        (admitted, better), worst, ranks = verdict, self.worst, ranked(values).flatten(1).numpy()
        parts = (top_part(r, self._count) for r in ranks)
        change = _column([1 - kept_part(o, p) for o, p in zip(self._parts, parts, strict=True)])
        known = worst.change.where(~(admitted & worst.change.isnan()), 0)
        worse = better if self.aim.toward is not None else admitted & (change > known + _BETTER)
        order = _column([spearman(a, b) for a, b in zip(self._ranks, ranks, strict=True)])
        likeness = worst.likeness
        if likeness is not None and self.aim.toward is not None:
            likeness = likeness[0], correlation(values, self.aim.toward).where(worse, likeness[1])
        self.worst = Attacked(
            {n: chosen(worse, x, worst.inputs[n]) for n, x in inputs.items()},
            change.where(worse, known),
            order.where(worse, worst.spearman),
            moved.where(worse, worst.shift),
            likeness,
            tuple(how if w else old for w, old in zip(worse.tolist(), worst.found, strict=True)),
            worst.tried,
            worst.admitted + admitted,
        )

    def _at(self, shift: Shift) -> Mapping[str, Tensor]:
        return {n: x + shift[n] if n in shift else x for n, x in self._probe.inputs.items()}

    def _admitted(self, output: Tensor, score: Tensor) -> tuple[Bool[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Whether an image decides alike, and by how much its score differs."""
        probe, spec, label = self._probe, self._probe.model.output, self._probe.target.label
        before = probe.baseline_score.double().cpu()
        moved = score.double().cpu() - before
        size = moved.abs() / before.abs().clamp_min(torch.finfo(torch.float64).tiny)
        if spec.task == "classification" and spec.activation != "none" and label is not None:
            here, there = spec.scores(probe.output), spec.scores(output)
            if label < here.shape[1]:
                moved = (there - here)[:, label].double().cpu()
                size = moved.abs()
        return same_decision(probe, output) & (size <= self._metric.tolerance), moved


def _column(values: list[float]) -> Float[Tensor, " batch"]:
    return torch.tensor(values, dtype=torch.float64)
