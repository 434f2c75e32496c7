"""The sham test beside each map that hiding made: does hiding where it is strongest do more than hiding elsewhere?"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.infill import Infill
from pellucid.core.probe import Probe
from pellucid.explain.byhand import AskByHand
from pellucid.explain.sham import Do, Trial, try_region
from pellucid.show.answers import percent
from pellucid.show.sections import Check, State
from pellucid.show.words import number, unit_word
from pellucid.workbench.explaining import Panel

_TOP = 0.1  # of the map's range, below its maximum: what counts as its strongest place
_LARGEST = 0.5  # of the image: a larger "place" fits nowhere else
_TISSUE = 0.25  # of the image: a marked region as large as this is an organ, and may hold sham places
_DOING: dict[Do, str] = {"hide": "hiding", "keep": "showing alone", "swap": "mirroring"}


def sham_name(title: str) -> str:
    """Of the check of a map."""
    return f"sham test of {title}"


def hides(explainer: Explainer) -> bool:
    """Whether a method only looks at scores behind a fill, which can paint disease."""
    return explainer.card.agnostic and "infill" in explainer.settings()


def sham_checks(panel: Panel) -> list[Check]:
    """Of every map of a panel that hiding made; probes count the forwards as checks.

    The strongest place of a map is hidden, and places of the same size and shape elsewhere in the body, away from it
    and from what is marked. It passes where the map's place does more than all others, fails where it does no more
    than half of them, or where the fill alone moves the score of other places across the operating point.

    Args:
        panel: of one case.
    """
    made = zip(panel.explanations, panel.made_by, panel.probes, panel.titles, strict=True)
    return [
        _check(explainer, explanation.answer, probe.through(None).checking(), title)
        for explanation, explainer, probe, title in made
        if hides(explainer) and isinstance(explanation.answer, Attribution)
    ]


def warned(panel: Panel, checks: Sequence[Check]) -> Panel:
    """The panel with a warning on each explanation whose sham test failed."""
    failed = {c.name for c in checks if c.state == "fail"}
    words = "the sham test failed: hiding where the map is strongest says no more than hiding elsewhere"
    explanations = tuple(
        replace(e, provenance=replace(e.provenance, warnings=(*e.provenance.warnings, words)))
        if sham_name(title) in failed
        else e
        for e, title in zip(panel.explanations, panel.titles, strict=True)
    )
    return replace(panel, explanations=explanations)


def top_region(values: Float[Tensor, "*space"], cell: Sequence[float]) -> Bool[Tensor, "*space"] | None:
    """Where a map is strongest: what hangs together about its maximum, at least half a native cell; None: it is flat.

    Args:
        values: of the map.
        cell: its native resolution, in voxels along each axis.
    """
    plain = values.double().cpu().numpy()
    low, high = float(plain.min()), float(plain.max())
    if not high > low:
        return None
    peak = np.unravel_index(int(plain.argmax()), plain.shape)
    parts = np.zeros(plain.shape, np.int32)
    ndimage.label(plain >= high - _TOP * (high - low), np.ones((3,) * plain.ndim), output=parts)
    top = parts == parts[peak]
    edges = [min(n, max(1, round(c))) for n, c in zip(plain.shape, cell, strict=True)]
    if top.sum() < np.prod(edges) / 2:
        starts = [min(max(0, int(p) - e // 2), n - e) for p, e, n in zip(peak, edges, plain.shape, strict=True)]
        top[tuple(slice(s, s + e) for s, e in zip(starts, edges, strict=True))] = True
    return torch.from_numpy(top)


def _check(explainer: Explainer, answer: Attribution, probe: Probe, title: str) -> Check:
    name = sham_name(title)
    region, do = _asked(explainer, answer, probe)
    if region is None or float(region.double().mean()) > _LARGEST:
        why = "the map is flat" if region is None else "what is hidden is most of the image"
        return Check(name, "not measured", f"{why}: no other place to compare it with")
    infill = explainer.settings()["infill"]
    trial = _tried(probe, region, do, infill if isinstance(infill, Infill) else None)
    if not len(trial.there):
        return Check(name, "not measured", "a region of this size and shape fits nowhere else in the body")
    sign = 1.0 if isinstance(explainer, AskByHand) and trial.change > 0 else -1.0  # a map claims that hiding lowers
    stronger = float((sign * trial.there >= sign * trial.change).double().mean())
    crossed = _crossed(probe, trial)
    state: State = "pass" if stronger == 0 else "fail" if stronger >= 0.5 else "inconclusive"
    said = _words(probe, trial, region, do, isinstance(explainer, AskByHand))
    if stronger:
        said += f"; {percent(stronger)} of these places do at least as much"
    if crossed:
        said += f"; at {crossed} of them the fill alone moves the score across the operating point"
    return Check(name, "fail" if crossed else state, said, stronger)


def _asked(explainer: Explainer, answer: Attribution, probe: Probe) -> tuple[Tensor | None, Do]:
    """What is hidden, and how: where the map is strongest, or the region that a reader named."""
    values = answer.collapsed()[0].cpu()
    if not isinstance(explainer, AskByHand):
        return top_region(values, answer.cell), "hide"
    masks = [m.cpu() for m in explainer.regions(probe).values()]
    return max(masks, key=lambda m: float(values[m].abs().mean())), explainer.do


def _tried(probe: Probe, region: Tensor, do: Do, infill: Infill | None) -> Trial:
    """Once for each place, however many maps are strongest there."""
    known = [m.cpu().bool() for m in probe.scene.regions.values() if float(m.double().mean()) < _TISSUE]
    marked = torch.stack(known).any(0) if known else None
    place = hashlib.sha256(region.numpy().tobytes()).hexdigest()
    key = f"sham {probe.aim} {do} {infill.words if infill else ''} {place}"
    return probe.once(key, lambda: try_region(probe, region, do, infill=infill, marked=marked))


def _crossed(probe: Probe, trial: Trial) -> int:
    """At how many places elsewhere the score comes to lie on the other side of the operating point."""
    limit = probe.model.output.operating_point.get(probe.target.name)
    if limit is None or probe.target.head is not None:
        return 0
    return int((((trial.before + trial.there) < limit) != (trial.before < limit)).sum())


def _words(probe: Probe, trial: Trial, region: Tensor, do: Do, named: bool) -> str:
    share = percent(float(region.double().mean()))
    what = f"the region ({share} of the image)" if named else f"where it is strongest ({share} of the image)"
    unit, there = unit_word(probe.target.unit), trial.there
    span = f"{number(float(there.min()))} to {number(float(there.max()))}"
    places = f"{len(there)} places of that size and shape elsewhere" if len(there) > 1 else "one such place elsewhere"
    return (
        f"{_DOING[do]} {what} changes the score by {number(trial.change)} {unit}; {places} change it by "
        f"{number(float(there.mean()))} on average ({span})"
    )
