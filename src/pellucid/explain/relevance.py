"""Methods that send the score back through the network, divided at every operation among what made it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from pellucid.core.card import Ask, Card, Cost, Family
from pellucid.core.errors import BadOption, CannotDo
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.ledger import Ledger
from pellucid.core.probe import Probe
from pellucid.explain.inputrange import input_range
from pellucid.explain.propagation import Bounds, Fallback, Treatment
from pellucid.explain.relevance_operations import Layerwise
from pellucid.explain.relevance_rules import AlphaBeta, Epsilon, FirstRule, Flat, Gamma, Rule, WSquare, Zero

Composite = Literal[
    "epsilon-plus",
    "epsilon-plus-flat",
    "epsilon-gamma",
    "epsilon-alpha2-beta1",
    "epsilon",
    "gamma",
    "alpha-beta",
    "z+",
    "0",
]
First = Literal["as the rest", "flat", "w2", "zB"]
_FIRST: Mapping[str, FirstRule] = {"flat": Flat(), "w2": WSquare()}
_LOST = 0.1  # of the score: above it the reader is told
_NOTICE = "its authors claim a patent on it (see the docs page on relevance)"


@dataclass(frozen=True)
class LRP(Explainer):
    """How much of the score each voxel accounts for, when every layer divides what it gets among what it was made of.

    ``R_i = sum_j c_ij / sum_i c_ij R_j`` with contributions ``c_ij = x_i w_ij``, changed by the rule: ``0`` as they
    are, ``epsilon`` dampens sums near zero, ``gamma`` favors the sum's own sign, ``alpha-beta`` weighs positive and
    negative ones apart, ``z+`` takes the positive ones only. A composite takes the first name for dense layers, the
    second for convolutions, the third for what reads the image. Rules other than 0 and epsilon hardly show evidence
    against, and z+ maps change little with the class. Biases and norms keep relevance: the ledger says how much.

    Returns:
        Signed attribution in the target's unit, with its ledger.

    Raises:
        BadOption: a parameter outside its range.
        CannotDo: an operation has no rule and ``fallback`` is ``refuse``; low precision.

    Source:
        bach2015lrp; composites after montavon2019layerwise.

    Example:
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> layer, x = torch.nn.Linear(16, 2, bias=False), torch.rand(1, 1, 4, 4)
        >>> a = LRP()(Probe(Model(torch.nn.Sequential(torch.nn.Flatten(), layer)), x, ClassScore(1)))
        >>> float(a.gap) < 1e-4, a.ledger.entries[0].cause
        (True, 'stabilizer')
    """

    rule: Annotated[Composite, "one rule for all, or a composite: dense, convolution, first"] = "epsilon-plus"
    first: Annotated[First, "rule of the layers that read the image"] = "as the rest"
    epsilon: Annotated[float, "added to divisors, in units of the layer's values"] = 1e-6
    gamma: Annotated[float, "of the gamma rule: by how much contributions of the sum's sign are raised"] = 0.25
    alpha: Annotated[float, "of the alpha-beta rule: weight of the positive part; the negative gets 1 - alpha"] = 2.0
    fallback: Annotated[Fallback, "an operation without a rule: refuse, or take gradient times input"] = "refuse"

    card: ClassVar[Card] = Card(
        family=Family.RELEVANCE,
        shows="how much of the score each voxel accounts for, layer by layer",
        caution="rules differ much from each other, and those that look best change little with the class or the "
        f"weights; {_NOTICE}",
        equation=r"R_i = \sum_j \frac{x_i w_{ij}}{\sum_{i'} x_{i'} w_{i'j} + b_j}\, R_j",
        source="bach2015lrp",
        cost_note="one forward and backward in which each layer is evaluated once or twice more",
        asks=frozenset(),
        signed=True,
        completes=True,
    )

    def __post_init__(self) -> None:
        if self.epsilon <= 0 or self.gamma < 0 or self.alpha < 1:
            raise BadOption(
                f"expected epsilon above 0, gamma at least 0 and alpha at least 1, got {self.epsilon}, {self.gamma} "
                f"and {self.alpha}",
                "1e-6, 0.25 and 2 are usual",
            )

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        return Cost(1, 1)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        return relevance_of(probe, self._treatment(probe), signed=True)

    def _treatment(self, probe: Probe) -> Treatment:
        epsilon, plus = Epsilon(self.epsilon), AlphaBeta(epsilon=self.epsilon)
        gamma, two = Gamma(self.gamma, self.epsilon), AlphaBeta(2.0, 1.0, self.epsilon)
        own = AlphaBeta(self.alpha, self.alpha - 1, self.epsilon)
        of: dict[str, tuple[Rule, Rule]] = {
            "epsilon-plus": (epsilon, plus),
            "epsilon-plus-flat": (epsilon, plus),
            "epsilon-gamma": (epsilon, gamma),
            "epsilon-alpha2-beta1": (epsilon, two),
            "epsilon": (epsilon, epsilon),
            "gamma": (gamma, gamma),
            "alpha-beta": (own, own),
            "z+": (plus, plus),
            "0": (Zero(), Zero()),
        }
        dense, conv = of[self.rule]
        first = "flat" if self.rule.endswith("-flat") and self.first == "as the rest" else self.first
        bounds = _bounds(probe) if first == "zB" else {}
        return Treatment(conv, dense, _FIRST.get(first), bounds, fallback=self.fallback)


@dataclass(frozen=True)
class DeepTaylor(Explainer):
    """How much of a positive score each voxel accounts for, counting only what spoke for it.

    Every layer divides what it gets among its positive contributions (``z+``); the layer that reads the image divides
    by what an image could be: between the bounds of the input (``zB``) or anything (``w2``). Values are never
    negative and sum to the score; a score below zero has nothing to divide. Evidence against cannot be seen. Defined
    for ReLU networks without positive biases; elsewhere an extension, and the warnings say so.

    Returns:
        Attribution of values that are never negative, in the target's unit, with its ledger.

    Raises:
        CannotDo: an operation has no rule and ``fallback`` is ``refuse``; low precision.

    Source:
        montavon2017deeptaylor. The review's formula lacks the division by the sum, without which nothing is conserved.

    Example:
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, bias=False), torch.nn.ReLU(), torch.nn.Flatten())
        >>> a = DeepTaylor(first="w2")(Probe(Model(net), torch.rand(1, 1, 4, 4), ClassScore()))
        >>> bool((a.maps["image"] >= 0).all())
        True
    """

    first: Annotated[Literal["zB", "w2", "z+"], "rule of the layers that read the image"] = "zB"
    fallback: Annotated[Fallback, "an operation without a rule: refuse, or take gradient times input"] = "refuse"

    card: ClassVar[Card] = Card(
        family=Family.RELEVANCE,
        shows="how much of a positive score each voxel accounts for, counting only what spoke for it",
        caution=f"shows no evidence against, and changes little with the class; {_NOTICE}",
        equation=r"R_i = \sum_j \frac{x_i w_{ij}^+}{\sum_{i'} x_{i'} w_{i'j}^+}\, R_j",
        source="montavon2017deeptaylor",
        cost_note="one forward and backward in which each layer is evaluated once or twice more",
        asks=frozenset(),
        signed=False,
        completes=True,
    )

    def cost(self, probe: Probe) -> Cost:
        """See ``Explainer``."""
        return Cost(1, 1)

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        rule = AlphaBeta(epsilon=1e-9, biased=False)
        bounds = _bounds(probe) if self.first == "zB" else {}
        treatment = Treatment(
            rule, rule, _FIRST.get(self.first), bounds, positive=True, fallback=self.fallback, method=self.name
        )
        return relevance_of(probe, treatment, signed=False)


def _bounds(probe: Probe) -> dict[str, Bounds]:
    return {name: input_range(probe, name) for name, x in probe.inputs.items() if x.is_floating_point()}


def relevance_of(probe: Probe, treatment: Treatment, signed: bool) -> Attribution:
    """The target's score divided by the treatment's rules, with its ledger.

    Args:
        probe: of the answer.
        treatment: which rule is used where.
        signed: whether values below zero can occur.

    Raises:
        CannotDo: an operation has no rule, or the precision is low.
    """
    weights = probe.model.dtype
    short = str(weights).removeprefix("torch.") if weights in (torch.bfloat16, torch.float16) else probe.precision
    if short != "float32":
        raise CannotDo(
            f"{treatment.method} divides small sums, for which {short} has too few digits",
            "run in float32 (--precision float32)",
        )
    book = Layerwise(treatment, probe.batch)
    done = probe.run(want=frozenset({Ask.INPUT_GRADIENT}), rules=book)
    maps = dict(done.input_gradient[probe.aim])
    if not signed:  # rounding of sums of which each is at least zero
        maps = {name: m.clamp(min=0) for name, m in maps.items()}
    ledger = book.books.closed(torch.stack([m.double().flatten(1).sum(1) for m in maps.values()]).sum(0))
    return Attribution(
        maps=maps,
        unit=probe.target.unit,
        signed=signed,
        cell=(1.0,) * probe.grid.rank,
        difference=ledger.start.to(done.score[probe.aim]),
        ledger=ledger,
        warnings=_warnings(book, ledger, done.score[probe.aim]),
    )


def _warnings(book: Layerwise, ledger: Ledger, score: Tensor) -> tuple[str, ...]:
    found: list[str] = []
    method = book.treatment.method
    if book.without_rule:
        names = ", ".join(book.without_rule)
        found.append(f"no rule for {names}: gradient times input was taken there")
    if book.treatment.positive and bool((score <= 0).any()):
        found.append(f"{method} divides a positive score, and the score is {float(score.min()):.3g}: nothing to divide")
    elif not book.treatment.positive and not torch.allclose(ledger.start, score.double(), rtol=0.01, atol=1e-6):
        found.append(
            f"the target is not linear in the model's output: {float(ledger.start[0]):.3g} was divided, "
            f"not the score {float(score[0]):.3g}"
        )
    worst = int(ledger.lost.abs().argmax())
    if abs(float(ledger.lost[worst])) > _LOST:
        causes = {c: float(a[worst] / ledger.start[worst]) for c, a in ledger.by_cause().items()}
        named = ", ".join(f"{c} {share:.0%}" for c, share in causes.items() if abs(share) >= 0.01)
        found.append(
            f"{float(ledger.arrived[worst] / ledger.start[worst]):.0%} of the score arrived at the image; layers kept "
            f"the difference to 100% ({named or 'rounding'}), which no voxel accounts for"
        )
    return tuple(found)
