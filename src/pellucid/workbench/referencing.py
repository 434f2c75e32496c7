"""How large a map usually is: the fixed display scale of a model, and the null that a region must exceed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import binom

from pellucid.core.case import Case
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Reference
from pellucid.io.models import LoadedModel
from pellucid.workbench.explaining import Progress
from pellucid.workbench.job import Request, run_case
from pellucid.workbench.registry import spell

ALPHA = 0.05  # share of normal cases in which a region may appear
_CONFIDENCE = 0.95


@dataclass
class _Maxima:
    """Largest values of one method's maps of one target."""

    strength: list[float] = field(default_factory=list)
    normal: list[float] = field(default_factory=list)


def measure_references(
    loaded: LoadedModel,
    cohort: Iterable[Case],
    normals: Iterable[Case],
    explainers: Sequence[Explainer],
    request: Request,
    words: str,
    progress: Progress | None = None,
) -> dict[str, dict[str, Reference]]:
    """Run methods over a reference cohort and over normal cases.

    Args:
        loaded: the model; references it already has are not used.
        cohort: cases that show what the model is for; they set the scale.
        normals: cases without the finding; they set the null.
        explainers: with the settings that will be used.
        request: targets, fills, seed.
        words: which cases these are, for the caption.
        progress: called with the name of each case.

    Returns:
        Reference by method (as ``spell`` writes it) and target. The scale is the 99th percentile of per-case maxima;
        the null is a tolerance limit: at 95 % confidence at most 5 % of normal cases exceed it anywhere.
    """
    bare = replace(loaded, references={})
    asked = replace(request, methods=tuple(explainers), metrics=())
    found: dict[tuple[str, str], _Maxima] = {}
    for normal, cases in ((False, cohort), (True, normals)):
        for case in cases:
            if progress is not None:
                progress(case.name)
            panel = run_case(case, bare, asked).panel
            for explanation, explainer in zip(panel.explanations, panel.made_by, strict=True):
                maxima = found.setdefault((spell(explainer), explanation.provenance.target), _Maxima())
                values = explanation.attribution.collapsed()
                maxima.strength.append(float(values.abs().max()))
                if normal:
                    maxima.normal.append(float(values.max()))
    table: dict[str, dict[str, Reference]] = {}
    for (method, target), maxima in found.items():
        if max(maxima.strength) > 0:  # maps that are blank on every case have no scale
            table.setdefault(method, {})[target] = _reference(maxima, words)
    return table


def _reference(maxima: _Maxima, words: str) -> Reference:
    return Reference(
        scale=float(np.percentile(maxima.strength, 99)),
        null=tolerance_null(maxima.normal),
        alpha=ALPHA,
        n_scale=len(maxima.strength),
        n_null=len(maxima.normal),
        cohort=words,
    )


def tolerance_null(maxima: Sequence[float], alpha: float = ALPHA) -> float | None:
    """A value that, at 95 % confidence, at most ``alpha`` of all normal cases exceed; None with too few cases.

    The smallest order statistic that is a distribution-free upper tolerance limit (Wilks 1941): 59 cases are the fewest
    for alpha 5 %.

    Example:
        >>> tolerance_null(list(range(1, 60)))
        59.0
        >>> tolerance_null(list(range(1, 59))) is None
        True
    """
    n = len(maxima)
    ranks = np.arange(1, n + 1)
    # P(at most k - 1 of n normals lie below the (1 - alpha) quantile): then the k-th value is above it
    sure = ranks[binom.cdf(ranks - 1, n, 1 - alpha) >= _CONFIDENCE] if n else ranks
    return float(np.sort(maxima)[sure[0] - 1]) if len(sure) else None


def merged(
    old: Mapping[str, Mapping[str, Reference]], new: Mapping[str, Mapping[str, Reference]]
) -> dict[str, dict[str, Reference]]:
    """Two tables in one, the newer winning."""
    table = {method: dict(targets) for method, targets in old.items()}
    for method, targets in new.items():
        table.setdefault(method, {}).update(targets)
    return table
