"""Global surrogates: a model simple enough to be read, and how far it can be believed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LassoCV, LinearRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor, export_text

from pellucid.core.card import Ask, Card, Family, Level
from pellucid.core.cohort import Cohort
from pellucid.core.errors import BadOption
from pellucid.core.explainer import CohortExplainer
from pellucid.core.explanation import Effect, Effects
from pellucid.core.model import Model
from pellucid.explain.cohort import LEVEL, RESAMPLES, ranked
from pellucid.explain.measurement import Measured, measure

Form = Literal["tree", "linear", "additive"]
_LEAST, _FOLDS, _REFITS = 10, 5, 30
_POOR = 0.5
_POINTS, _BACKGROUND = 11, 100  # of a partial dependence
_Array = NDArray[np.float64]


@dataclass(frozen=True)
class GlobalSurrogate(CohortExplainer):
    """What a readable model of region measurements can reproduce of the score, and how well, on cases held out.

    ``min_g sum_n (S(x_n) - g(phi(x_n)))^2``, ``phi``: mean and spread of each region, and the covariates; ``g``: a tree
    of at most four levels, a sparse linear model, or boosted functions of one measurement each. The fidelity R^2 is
    always stated: with a low one the surrogate explains itself, not the model. Correlated measurements cover for each
    other.

    Returns:
        Effects: how far each measurement moves the surrogate, in the target's unit; tables with fidelity and rules.

    Raises:
        BadOption: fewer than ten cases, a depth outside 1 to 4, a negative penalty, or a constant score.
        BadRegion: a region or covariate is missing in a case.

    Source:
        craven1995extracting.

    Example:
        >>> import torch
        >>> from pellucid.core.cohort import blocks_of
        >>> from pellucid.core.target import ClassScore
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)))
        >>> cases = Cohort({"image": torch.rand(30, 1, 4, 4)}, ClassScore(1), blocks_of((4, 4), 2))
        >>> answer = GlobalSurrogate(form="linear")(model, cases)
        >>> len(answer.rows), list(answer.tables["fidelity"])
        (8, ['surrogate', 'R2', 'low', 'high'])
    """

    form: Annotated[Form, "tree, sparse linear, or additive (one curve for each measurement)"] = "tree"
    depth: Annotated[int, "levels of the tree, 1 to 4"] = 4
    penalty: Annotated[float | None, "of the linear model; 0: none; None: chosen by cross-validation"] = None

    card: ClassVar[Card] = Card(
        family=Family.SURROGATE,
        shows="a tree, a sparse linear or an additive model of region measurements that imitates the score",
        caution="says nothing of the model where its fidelity is low; correlated measurements stand for each other",
        equation=r"\min_g \sum_n \big(S(x_n) - g(\varphi(x_n))\big)^2",
        source="craven1995extracting",
        cost_note="one forward per case",
        asks=frozenset({Ask.OUTPUT}),
        signed=False,
        stochastic=True,
        scope="global",
        level=Level.REGION,
        attribution=False,
        agnostic=True,
    )

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= 4:
            raise BadOption(f"expected a depth from 1 to 4, got {self.depth}", "a deeper tree cannot be read")
        if self.penalty is not None and self.penalty < 0:
            raise BadOption(f"expected a penalty of at least 0, got {self.penalty}", "0 is a plain linear model")

    def __call__(self, model: Model, cases: Cohort) -> Effects:
        """See ``CohortExplainer``."""
        cases.require(_LEAST, self.name)
        table, opening = measure(model, cases), cases.opened(model)
        score: _Array = opening.each("score", lambda batch: batch.baseline[:, None])[:, 0].numpy()
        if np.ptp(score) == 0:
            raise BadOption("the score is the same for every case: there is nothing to imitate", "add other cases")
        x, seed = table.values.numpy(), cases.scene.seed
        fidelity = _fidelity(self._maker(seed), x, score, seed)
        whole = self._maker(seed)().fit(x, score)
        r2, low, high = fidelity[self.form]
        left = f"{1 - r2:.0%} of the variance of the score is not explained" if r2 > 0 else "worse than the mean alone"
        stated = f"held-out fidelity R² {r2:.3f} ({low:.3f} to {high:.3f}), {_FOLDS}-fold: {left}"
        lines = tuple(export_text(whole, feature_names=list(table.names)).splitlines()) if self.form == "tree" else ()
        told = {k: tuple(v[i] for v in fidelity.values()) for i, k in enumerate(("R2", "low", "high"))}
        return Effects(
            rows=ranked(self._rows(whole, table, score, seed)),
            measure="standard deviation of the surrogate's mean along one measurement",
            unit=opening.unit,
            interval=f"2.5 to 97.5 percentile of {_REFITS} refits on resampled cases",
            tables={
                "fidelity": {"surrogate": tuple(fidelity), **told},
                **({"rules": {"rule": lines}} if lines else {}),
            },
            said=(stated,),
            warnings=(f"low fidelity: {stated}; do not read the rows as the model",) if r2 < _POOR else (),
            spent=opening.spent,
        )

    def _maker(self, seed: int) -> Callable[[], "_Model"]:
        """Makes an untrained surrogate."""
        if self.form == "tree":
            return lambda: DecisionTreeRegressor(max_depth=self.depth, random_state=seed)
        if self.form == "linear":
            return lambda: make_pipeline(StandardScaler(), _line(self.penalty, seed))
        return lambda: HistGradientBoostingRegressor(
            interaction_cst="no_interactions", early_stopping=False, min_samples_leaf=5, random_state=seed
        )

    def _rows(self, whole: "_Model", table: Measured, score: _Array, seed: int) -> list[Effect]:
        """How far each measurement moves the surrogate, with refits on resampled cases."""
        x, draw = table.values.numpy(), np.random.default_rng(seed)
        refits = []
        for _ in range(_REFITS):
            some = draw.integers(0, len(x), len(x))
            refits.append(_moves(self._maker(seed)().fit(x[some], score[some]), x))
        spread, central = np.array(refits), _moves(whole, x)
        low, high = np.quantile(spread, [0.025, 0.975], axis=0)
        used = (spread > 0).mean(0)
        slope = _slopes(whole, x) if self.form == "linear" else None
        rows = []
        for k, name in enumerate(table.names):
            more = {"used in share of refits": float(used[k])}
            more |= {"slope per unit": float(slope[k])} if slope is not None else {}
            rows.append(Effect(name, float(central[k]), float(low[k]), float(high[k]), len(x), more))
        return rows


_Model = DecisionTreeRegressor | HistGradientBoostingRegressor | LinearRegression


def _line(penalty: float | None, seed: int) -> LassoCV | LinearRegression:
    if penalty == 0:
        return LinearRegression()
    chosen = {"alphas": [penalty]} if penalty is not None else {}
    return LassoCV(cv=_FOLDS, random_state=seed, max_iter=20_000, **chosen)


def _moves(model: "_Model", x: _Array) -> _Array:
    """Standard deviation of the partial dependence on each column, over its quantiles."""
    some = x[:: max(1, len(x) // _BACKGROUND)]
    points = np.quantile(x, (np.arange(_POINTS) + 0.5) / _POINTS, axis=0)
    found = []
    for k in range(x.shape[1]):
        varied = np.tile(some, (_POINTS, 1))
        varied[:, k] = np.repeat(points[:, k], len(some))
        found.append(float(np.std(model.predict(varied).reshape(_POINTS, -1).mean(1))))
    return np.array(found)


def _slopes(model: "_Model", x: _Array) -> _Array:
    """Change of a linear prediction for one unit of each column."""
    at = np.tile(x.mean(0), (x.shape[1] + 1, 1))
    at[1:] += np.eye(x.shape[1])
    values = model.predict(at)
    return values[1:] - values[0]


def _fidelity(make: Callable[[], "_Model"], x: _Array, score: _Array, seed: int) -> dict[str, tuple[float, ...]]:
    """Held-out R^2 with its interval: of the surrogate, of a linear model, and of the mean alone."""
    own = make()
    name = {"DecisionTreeRegressor": "tree", "Pipeline": "linear"}.get(type(own).__name__, "additive")
    makers: dict[str, Callable[[], _Model]] = {name: make}
    if name != "linear":
        makers["linear"] = lambda: make_pipeline(StandardScaler(), _line(None, seed))
    said = {name: np.empty_like(score) for name in (*makers, "constant")}
    for train, held in KFold(_FOLDS, shuffle=True, random_state=seed).split(x):
        said["constant"][held] = score[train].mean()
        for name, maker in makers.items():
            said[name][held] = maker().fit(x[train], score[train]).predict(x[held])
    return {name: _r2(score, values, seed) for name, values in said.items()}


def _r2(truth: _Array, said: _Array, seed: int) -> tuple[float, float, float]:
    """Share of the variance that is reproduced, with a bootstrap interval over cases."""

    def share(y: _Array, z: _Array, axis: int = -1) -> _Array:
        total = ((y - y.mean(axis, keepdims=True)) ** 2).sum(axis)
        return 1 - ((y - z) ** 2).sum(axis) / np.where(total > 0, total, np.inf)

    value = float(share(truth, said))
    if np.array_equal(truth, said):
        return 1.0, 1.0, 1.0
    found = bootstrap(
        (truth, said),
        share,
        paired=True,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return value, float(found.confidence_interval.low), float(found.confidence_interval.high)
