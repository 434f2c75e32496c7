"""Whether a map depends on what the model has learned."""

import copy
import dataclasses
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool
from scipy.stats import rankdata
from torch import Tensor, nn

from pellucid.core.card import Ask, Cost, MetricCard, Property, shared_cost
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Answer, Attribution
from pellucid.core.metric import Metric, Score
from pellucid.core.model import Identity, Model
from pellucid.core.perwindow import answered
from pellucid.core.probe import Probe


@dataclass(frozen=True)
class ModelParameterRandomization(Metric):
    """Whether the map changes when the model's weights are replaced by fresh ones, from the output backwards.

    Rank correlation between the map and the map after each stage of the cascade; the value is the last one, with all
    weights fresh. A map that stays (near 1) shows the image, as an edge detector would, and not the model. It passes
    nobody: a map that changes may still be wrong. Works on a copy; the model is untouched.

    Returns:
        Spearman correlation, lower is better; undefined for a constant map.

    Raises:
        BadOption: fewer than one level.

    Source:
        adebayo2018sanity. Fresh weights come from each layer's own initialization, seeded.

    Example:
        >>> ModelParameterRandomization(levels=2).card.direction
        'lower'
    """

    levels: Annotated[int, "stages of the cascade, from the output to all weights"] = 3

    card: ClassVar[MetricCard] = MetricCard(
        measures=Property.RANDOMIZATION,
        shows="how much of the map stays when the model's weights are replaced by fresh ones",
        caution="a map that changes may still be wrong; fresh weights differ from draw to draw",
        equation=r"\rho(A(\theta),\, A(\theta_{\mathrm{fresh}}))",
        source="adebayo2018sanity",
        cost_note="one more explanation per level",
        direction="lower",
        interval="-1 to 1",
        asks=frozenset({Ask.OUTPUT}),
        stochastic=True,
    )

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise BadOption(f"expected at least 1 level, got {self.levels}", "3 is the default")

    def cost(self, probe: Probe, explainer: Explainer) -> Cost:
        """See ``Metric``."""
        return (shared_cost(explainer.card.asks) + explainer.cost(probe)) * self.levels

    def __call__(
        self, probe: Probe, answer: Answer, explainer: Explainer, region: Bool[Tensor, "*space"] | None
    ) -> Score:
        """See ``Metric``."""
        stages = _stages(probe.model.module, self.levels)
        if not isinstance(answer, Attribution) or not stages:
            why = "the model shows no weights" if not stages else "the answer is not a map"
            return Score.undefined(self, probe.batch, why)
        module = copy.deepcopy(probe.model.module)
        model = dataclasses.replace(
            probe.model, module=module, identity=Identity("randomized", digest="randomized"), _traces={}
        )
        original = answer.collapsed(probe.model.primary)
        curve = []
        for stage, names in enumerate(stages):
            _refresh(module, names, probe.scene.seed + stage)
            curve.append(_rank_correlation(original, _explained_again(probe, model, explainer)))
        last = curve[-1]
        reasons = tuple(
            "" if math.isfinite(v) else "a map is constant or not finite, so ranks mean nothing" for v in last
        )
        detail = {"curve": [list(row) for row in curve], "levels": [len(names) for names in stages]}
        return Score(self.name, torch.tensor(last, dtype=torch.float64), reasons, self.settings(), detail)


def _explained_again(probe: Probe, model: Model, explainer: Explainer) -> Tensor:
    again = probe.on(model)
    answer = answered(explainer, again)
    probe.spent.own += again.spent.shared + again.spent.own
    if not isinstance(answer, Attribution):
        raise TypeError(f"{explainer.name} answered with a {type(answer).__name__} the second time")
    return answer.collapsed(probe.model.primary)


def _stages(module: nn.Module, levels: int) -> list[list[str]]:
    """Layers with weights of their own, last first, in ``levels`` groups of nearly equal length."""
    own = [name for name, m in module.named_modules() if next(m.parameters(recurse=False), None) is not None][::-1]
    count = min(levels, len(own))
    edges = [round(i * len(own) / count) for i in range(count + 1)] if count else []
    return [own[a:b] for a, b in pairwise(edges)]


def _refresh(module: nn.Module, names: list[str], seed: int) -> None:
    """Draw fresh weights from each layer's own initialization; layers without one get the spread they had."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name in names:
            layer = module.get_submodule(name)
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for parameter in layer.parameters(recurse=False):
                spread = float(parameter.std()) if parameter.numel() > 1 else 1.0
                parameter.copy_(torch.randn(parameter.shape) * spread)


def _rank_correlation(a: Tensor, b: Tensor) -> list[float]:
    """Spearman correlation of each item's two maps; NaN where one is constant."""
    out = []
    for one, other in zip(a.cpu().flatten(1), b.cpu().flatten(1), strict=True):
        ranks = torch.tensor(rankdata(torch.stack([one, other]).numpy(), axis=1))
        centered = ranks - ranks.mean(1, keepdim=True)
        norm = centered.norm(dim=1).prod()
        out.append(float((centered[0] * centered[1]).sum() / norm) if norm > 0 else float("nan"))
    return out
