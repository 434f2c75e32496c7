"""Whether other models of the same task, trained anew, are explained alike."""

from abc import ABC
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from pellucid.core.card import Ask, Cost, MetricCard, Property, shared_cost
from pellucid.core.errors import BadOption, PellucidError
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer
from pellucid.core.metric import Metric, Score
from pellucid.core.model import Model
from pellucid.core.perwindow import answered
from pellucid.core.probe import Probe, Retrained
from pellucid.metrics.likeness import Values, part_iou, spearman, structure, top_part
from pellucid.metrics.maps import NO_MAP, blank_reasons, on_grid, ranked
from pellucid.metrics.robustness.noise import same_decision

_MEASURES = "spearman", "ssim", "iou"


@dataclass(frozen=True)
class _Retrained(Metric, ABC, abstract=""):
    """How alike the maps of this model and of others are, by models of the same or of another architecture."""

    measure: Annotated[
        Literal["spearman", "ssim", "iou"], "rank correlation, structural similarity, or overlap of the top share"
    ] = "spearman"
    top: Annotated[float, "share of the area whose overlap is taken"] = 0.1

    same: ClassVar[bool]  # whether the others have this model's architecture

    def __post_init__(self) -> None:
        if self.measure not in _MEASURES or not 0 < self.top < 1:
            raise BadOption(
                f"expected measure {', '.join(_MEASURES)} and a top share within (0, 1), got {self.measure!r} and "
                f"{self.top}",
                "spearman and 0.1 are the defaults",
            )

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``."""
        return sum((_cost(probe, explainer, m) for m in self._chosen(probe)), Cost())

    def _chosen(self, probe: Probe) -> list[Retrained]:
        return [m for m in probe.scene.retrained if same_architecture(m.model, probe.model) is self.same]

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        maps, models = on_grid(answer, probe), self._chosen(probe)
        if maps is None:
            return Score.undefined(self, probe.batch, NO_MAP)
        if not models:
            which = "the same" if self.same else "another"
            return Score.undefined(self, probe.batch, f"no other model of {which} architecture was given (--retrained)")
        compared = _Compared(maps, max(1, round(self.top * maps[0].numel())))
        for model in models:
            compared.add(probe, explainer, model)
        kept = torch.tensor([[r[self.measure] for r in row] for row in compared.rows], dtype=torch.float64)
        kept = kept.view(-1, probe.batch)
        defined = torch.isfinite(kept)
        values = torch.where(defined, kept, 0).sum(0) / defined.sum(0)
        reasons = tuple(
            blank or ("" if known else why)
            for blank, known, why in zip(blank_reasons(maps), defined.any(0).tolist(), compared.why(), strict=True)
        )
        values[[bool(r) for r in reasons]] = torch.nan
        return Score(self.name, values, reasons, self.settings(), compared.plain())


@dataclass(eq=False)
class _Compared:
    """The maps of other models, one after the other, beside this model's."""

    maps: Tensor
    count: int
    names: list[str] = field(default_factory=list)
    rows: list[list[dict[str, float]]] = field(default_factory=list)  # by model, by item
    agree: list[list[bool]] = field(default_factory=list)
    identical: int = 0
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, probe: Probe, explainer: Explainer, given: Retrained) -> None:
        """Explain with another model; one that cannot be compared is listed."""
        model = given.model
        name = f"{model.identity.name} {model.identity.version}".strip() + f" ({model.digest[:8]})"
        try:
            _check_alike(probe.model, given)
            other = _opened(probe, explainer, given)
            there = on_grid(answered(explainer, other), other)
            alike = other.target.label == probe.target.label
            same = [alike and s for s in same_decision(probe, other.output).tolist()]
        except PellucidError as error:
            self.left_out[name] = error.problem
            return
        probe.spent.own += other.spent.shared + other.spent.own
        if there is None:
            self.left_out[name] = NO_MAP
            return
        there = there if given.onto is None else given.onto(there)
        self.names.append(name)
        self.identical += model.digest == probe.model.digest
        self.agree.append(same)
        ranks = [_array(ranked(m)) for m in (self.maps, there)]
        plain = [_array(m) for m in (self.maps, there)]
        self.rows.append([self._row([r[i] for r in ranks], [p[i] for p in plain], ok) for i, ok in enumerate(same)])

    def _row(self, ranks: list[Values], plain: list[Values], same: bool) -> dict[str, float]:
        """Of one item: NaN where the other model decides otherwise, or where a map is not finite."""
        if not same or not all(np.isfinite(p).all() for p in plain) or np.ptp(ranks[1]) == 0:
            return dict.fromkeys(_MEASURES, float("nan"))
        parts = [top_part(r.ravel(), self.count) for r in ranks]
        found = spearman(*(r.ravel() for r in ranks)), structure(*plain), part_iou(*parts)
        return dict(zip(_MEASURES, found, strict=True))

    def why(self) -> list[str]:
        """Why there is no value, by item, where there is none."""
        if not self.names:
            said = "; ".join(f"{name}: {why}" for name, why in self.left_out.items())
            return [f"no other model could be compared: {said}"] * len(self.maps)
        apart = [all(not a[i] for a in self.agree) for i in range(len(self.maps))]
        return [
            "every other model decides otherwise, so its map explains something else"
            if every
            else "no map of another model can be compared: constant, not finite or too thin"
            for every in apart
        ]

    def plain(self) -> dict[str, Any]:
        """For the detail, each list by item."""
        return {
            "models": self.names,
            **{name: [[r[name] for r in row] for row in self.rows] for name in _MEASURES},
            "models that decide otherwise": [sum(not a[i] for a in self.agree) for i in range(len(self.maps))],
            "models with identical weights": self.identical,
            "left out": self.left_out,
        }


def same_architecture(one: Model, other: Model) -> bool:
    """Whether two modules have parameters of the same names and shapes."""
    first, second = ({n: tuple(p.shape) for n, p in m.module.named_parameters()} for m in (one, other))
    return first == second


def _check_alike(one: Model, other: Retrained) -> None:
    """Refuse a model that says something else, or whose inputs are not at hand."""
    if other.inputs is None and one.inputs != other.model.inputs:
        raise BadOption("it prepares the image differently", "give the case as it takes it")
    specs = one.output, other.model.output
    if len({(s.task, s.labels, s.activation, s.unit) for s in specs}) > 1:
        raise BadOption("its output means something else", "give a model with the same labels in its card")


def _opened(probe: Probe, explainer: Explainer, given: Retrained) -> Probe:
    """A probe of another model: of the same bound target, or, on inputs of its own, of one bound there."""
    if given.inputs is None:
        return probe.on(given.model, explainer.needs(given.model, probe.inputs))
    needs = explainer.needs(given.model, given.inputs)
    other = Probe(given.model, given.inputs, probe.targets, needs, given.scene, probe.precision)
    return other.at(probe.aim)


def _cost(probe: Probe, explainer: Explainer, given: Retrained) -> Cost:
    try:
        other = _opened(probe, explainer, given)
        return shared_cost(explainer.card.asks | {Ask.OUTPUT}) + explainer.cost(other)
    except PellucidError:
        return Cost()  # it will be left out, and the detail will say why


def _array(values: Tensor) -> Values:
    return values.double().numpy()


@dataclass(frozen=True)
class Repeatability(_Retrained):
    """Whether models of the same architecture, trained again, are explained alike.

    Mean over the models given (``--retrained``) of the rank correlation of their map and this one, on the network's
    grid; beside it structural similarity and the overlap of the top share. A model that decides otherwise is left out
    and counted. Maps that ignore the model repeat perfectly; compare with what readers reach among themselves.

    Returns:
        Score, higher is more repeatable; 1 for identical models; undefined without another model.

    Raises:
        BadOption: another measure, or a share outside (0, 1).

    Source:
        arun2021assessing.

    Example:
        >>> Repeatability("iou", top=0.05).settings()
        {'measure': 'iou', 'top': 0.05}
    """

    same: ClassVar[bool] = True

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.ROBUSTNESS,
        shows="how alike the maps of models of one architecture are that were trained apart",
        caution="a map that ignores the model repeats perfectly; models that are right for different reasons differ",
        equation=r"\frac{1}{M} \sum_m \rho(A(\theta),\, A(\theta_m))",
        source="arun2021assessing",
        cost_note="one more explanation per model given",
        direction="higher",
        interval="-1 to 1",
        asks=frozenset({Ask.OUTPUT}),
    )


@dataclass(frozen=True)
class Reproducibility(_Retrained):
    """Whether models of another architecture, trained for the same task, are explained alike.

    As Repeatability, over those models given (``--retrained``) whose parameters have other names or shapes; a map on
    another grid is brought to this model's. Methods that read layers see another resolution there, which lowers the
    value by itself.

    Returns:
        Score, higher is more reproducible; undefined without a model of another architecture.

    Raises:
        BadOption: another measure, or a share outside (0, 1).

    Source:
        arun2021assessing.

    Example:
        >>> Reproducibility().card.direction
        'higher'
    """

    same: ClassVar[bool] = False

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.ROBUSTNESS,
        shows="how alike the maps of models of different architectures are",
        caution="a map that ignores the model is reproduced perfectly; layers of another resolution lower the value",
        equation=r"\frac{1}{M} \sum_m \rho(A(\theta),\, A'(\theta_m))",
        source="arun2021assessing",
        cost_note="one more explanation per model given",
        direction="higher",
        interval="-1 to 1",
        asks=frozenset({Ask.OUTPUT}),
    )
