"""What comes out: answers of several kinds, with everything needed to repeat and to judge them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import isfinite
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pellucid.core.errors import UnknownName
from pellucid.core.image import Image
from pellucid.core.ledger import Ledger
from pellucid.core.prepare import Prepared

_NO_DIFFERENCE = 1e-6  # below it the reference scores as the image does, and a share of nothing is not asked


@dataclass(frozen=True, eq=False)
class Answer(ABC):
    """What a method says; the kinds differ in what they hold."""

    warnings: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    @abstractmethod
    def kind(self) -> str:
        """What it is, in one word for the archive."""


def share_missed(maps: Mapping[str, Tensor], difference: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Per item, how far the sum over all maps misses ``difference``, as a share of it."""
    total = torch.stack([m.flatten(1).sum(1) for m in maps.values()]).sum(0)
    return (total - difference).abs() / difference.abs().clamp_min(_NO_DIFFERENCE)


@dataclass(frozen=True, eq=False)
class Attribution(Answer):
    """A map that says where in the input the score comes from.

    Args:
        maps: by input, "batch channel *space" (or "batch channel" of a vector input), on the network's grid.
        unit: of a value, such as ``logit``.
        signed: whether negative values mean evidence against.
        collapse: how channels become one picture: ``sum`` of contributions, ``max`` of magnitudes.
        cell: edge of the smallest region the map can speak of, in voxels of the primary input, per axis.
        error: standard error of each value, shaped as ``maps``, where the method draws samples; None: it draws none.
        difference: per item, what the values of all inputs promise to sum to; None: the method promises no sum.
        ledger: where what did not reach the input stayed; None: the method keeps none.

    Example:
        >>> import torch
        >>> Attribution({"image": torch.ones(1, 3, 2, 2)}, "logit", signed=True).collapsed()
        tensor([[[3., 3.],
                 [3., 3.]]])
    """

    maps: Mapping[str, Tensor]
    unit: str
    signed: bool
    collapse: Literal["sum", "max"] = "sum"
    cell: tuple[float, ...] = ()
    error: Mapping[str, Tensor] | None = None
    difference: Float[Tensor, " batch"] | None = None
    ledger: Ledger | None = None

    @property
    def kind(self) -> str:
        """See ``Answer``."""
        return "attribution"

    @property
    def gap(self) -> Float[Tensor, " batch"] | None:
        """Per item, how far the sum of the values misses ``difference``, as a share of it; None: no sum is promised."""
        return None if self.difference is None else share_missed(self.maps, self.difference)

    def collapsed(self, name: str | None = None) -> Float[Tensor, "batch *space"]:
        """One value per voxel; None: the first input's map."""
        key = name or next(iter(self.maps))
        if key not in self.maps:
            raise UnknownName(f"no map of input {key!r}", f"inputs: {', '.join(self.maps)}")
        values = self.maps[key]
        return values.sum(1) if self.collapse == "sum" else values.amax(1)


@dataclass(frozen=True)
class Effect:
    """One row of ``Effects``: how much one thing matters to the model's score over a cohort.

    Args:
        name: of the region, channel, covariate or knob.
        estimate: see ``Effects.measure``.
        low: lower end of the interval; None: there is none.
        high: its upper end.
        n: cases (or trajectories) behind it.
        more: further numbers by name, such as mu* and sigma.
    """

    name: str
    estimate: float
    low: float | None
    high: float | None
    n: int
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Effects(Answer):
    """A table of how much each of several things matters, each with its interval.

    Args:
        rows: the largest estimate first, where the order has no meaning of its own.
        measure: what an estimate is, in words.
        unit: of the estimates.
        interval: what low to high is, in words.
        tables: further results as columns by name, such as the points of a curve.
        said: sentences a reader must see beside the table, such as how faithful a surrogate is.
        spent: (forwards, backwards) of the whole cohort.

    Example:
        >>> answer = Effects((Effect("heart", 0.5, 0.25, 0.75, 40),), "loss increase", "nat", "95 % bootstrap interval")
        >>> answer.kind, answer.plain()["rows"][0]["high"]
        ('effects', 0.75)
    """

    rows: tuple[Effect, ...]
    measure: str
    unit: str
    interval: str
    tables: Mapping[str, Mapping[str, tuple[float | str | None, ...]]] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    spent: tuple[int, int] = (0, 0)

    @property
    def kind(self) -> str:
        """See ``Answer``."""
        return "effects"

    def plain(self) -> dict[str, Any]:
        """As JSON types; what is not finite is None."""
        return {
            "measure": self.measure,
            "unit": self.unit,
            "interval": self.interval,
            "rows": [asdict(r) | {"more": {k: _told(v) for k, v in r.more.items()}} for r in self.rows],
            "tables": {n: {k: [_told(v) for v in column] for k, column in t.items()} for n, t in self.tables.items()},
            "said": list(self.said),
            "warnings": list(self.warnings),
        }


def _told(value: float | str | None) -> float | str | None:
    return None if isinstance(value, float) and not isfinite(value) else value


@dataclass(frozen=True)
class Reference:
    """How large a map of this model, target and method usually is: measured once on a cohort.

    Args:
        scale: the map value drawn at full strength (99th percentile of per-image maxima over the cohort).
        null: value that the maximum of a map exceeds in at most ``alpha`` of normal cases; None: not measured.
        alpha: level of the null.
        n_scale: cases behind ``scale``.
        n_null: normal cases behind ``null``.
        cohort: which cases, in words.
    """

    scale: float
    null: float | None
    alpha: float
    n_scale: int
    n_null: int
    cohort: str


@dataclass(frozen=True)
class Prediction:
    """What the model said of the case.

    Args:
        label: the explained class.
        value: head value of the target (``unit``).
        unit: of ``value``.
        score: model score of the class in [0, 1] where the task has one; never called a probability.
        threshold: the operating point on ``value``; None: the card names none.
        predicted: the label with the highest score.
        scores: model score by label.
    """

    label: str
    value: float
    unit: str
    score: float | None
    threshold: float | None
    predicted: str
    scores: Mapping[str, float]

    @property
    def below_threshold(self) -> bool:
        """Whether the model, at its operating point, says no."""
        return self.threshold is not None and self.value < self.threshold


@dataclass(frozen=True)
class Provenance:
    """Everything needed to repeat an explanation, and nothing about who the patient is.

    Args:
        case: pseudonym.
        input_digest: SHA-256 of the images.
        model: name and version.
        model_digest: SHA-256 of the weights.
        card_digest: SHA-256 of the model card; empty without one.
        target: in words.
        method: class name.
        settings: hyperparameters.
        layer: resolved name, where the method reads one.
        infill: in words, where the method hides or compares.
        seed: of everything random.
        precision: of the forwards.
        device: type of the device.
        shared: (forwards, backwards) of the pass shared with the other methods.
        own: (forwards, backwards) of this method alone.
        ms: wall time of this method's own work.
        versions: of Pellucid, torch and Python.
        created: UTC, ISO 8601.
        applicability: verdict of the card's ``applies_to``.
        warnings: doubts about the result, in plain words.
        engine: that evaluated the perturbed images; ``eager``: the module itself.
    """

    case: str
    input_digest: str
    model: str
    model_digest: str
    card_digest: str
    target: str
    method: str
    settings: Mapping[str, object]
    layer: str | None
    infill: str | None
    seed: int
    precision: str
    device: str
    shared: tuple[int, int]
    own: tuple[int, int]
    ms: float
    versions: Mapping[str, str]
    created: str
    applicability: str
    warnings: tuple[str, ...] = ()
    engine: str = "eager"

    def plain(self) -> dict[str, Any]:
        """As JSON types."""
        values = asdict(self)
        values["settings"] = {
            k: v if isinstance(v, int | float | str | None) else str(v) for k, v in self.settings.items()
        }
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


class View(ABC):
    """How an Explanation shows itself; the core knows no screen, so whoever makes one hands it over."""

    @abstractmethod
    def plot(self, explanation: "Explanation") -> Any:
        """A matplotlib figure."""

    @abstractmethod
    def html(self, explanation: "Explanation") -> str:
        """A fragment for a notebook."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """An answer with its provenance, and what is needed to show it.

    Args:
        answer: on the network's grid.
        provenance: how it was made.
        prediction: what the model said; None for a batch.
        image: the primary image as read; None when a bare tensor was explained.
        prepared: the way back to the image.
        reference: fixed display scale and null, where the model has them for this method.
        view: draws it.

    Example:
        >>> import pellucid, torch
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
        >>> explanation = pellucid.explain(net, torch.rand(1, 1, 4, 4), target=1, method="Saliency")
        >>> explanation.numpy().shape, explanation.attribution.unit, explanation.provenance.method
        ((1, 4, 4), 'logit per network unit', 'Saliency')
    """

    answer: Answer
    provenance: Provenance
    prediction: Prediction | None = None
    image: Image | None = None
    prepared: Prepared | None = None
    reference: Reference | None = None
    view: View | None = None

    @property
    def attribution(self) -> Attribution:
        """The answer, where it is a map."""
        if not isinstance(self.answer, Attribution):
            raise UnknownName(f"a {type(self.answer).__name__} has no map", "look at explanation.answer")
        return self.answer

    def numpy(self) -> NDArray[np.float32]:
        """The map with channels collapsed, (batch, *space): on the image's grid where there is an image."""
        return self.on_image().detach().cpu().float().numpy()

    def on_image(self) -> Float[Tensor, "batch *size"]:
        """The collapsed map on the grid of the image as read, lined up to the voxel."""
        return self._restored.clone()

    @cached_property
    def _restored(self) -> Tensor:
        """Once: the archive, the tables and every picture ask for it, and a large volume takes seconds."""
        values = self.attribution.collapsed().cpu()
        return values if self.prepared is None else self.prepared.restore(values[:, None].float())[:, 0]

    @property
    def cell(self) -> tuple[tuple[float, ...], str]:
        """Native resolution: the edge of the smallest statement along each network axis, and its unit."""
        cell = self.attribution.cell
        if self.prepared is None:
            return cell, "px"
        grid = self.prepared.grid
        return tuple(c * s for c, s in zip(cell, grid.spacing, strict=True)), grid.unit

    def plot(self) -> Any:
        """A figure: bare image, then the map under the display rules."""
        return self._shown().plot(self)

    def _repr_html_(self) -> str:
        return self._shown().html(self)

    def _shown(self) -> View:
        if self.view is None:
            raise UnknownName("this explanation was made without a view", "make it with pellucid.explain")
        return self.view
