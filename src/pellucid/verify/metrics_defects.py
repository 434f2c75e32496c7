"""The numbered defects of the peers' metrics: what the peer gives, and what we give in the same place."""

import copy
from collections.abc import Callable
from dataclasses import replace
from math import isfinite, isnan

import torch
from torch import Tensor

from pellucid.core.errors import BadRegion
from pellucid.metrics.randomization.efficient import sturges
from pellucid.verify.demonstrations import Demonstration, Found, Said
from pellucid.verify.metrics_ours import Scored, of_map, part_of, region_of, scored, two_valued, views
from pellucid.verify.metrics_plan import RESIDUAL
from pellucid.verify.plan import DENSE, DENSE_3D, LINEAR, PAIR
from pellucid.verify.subjects import Prepared, Subject

_MAP = "InputXGradient"
_SAME, _FAR = 1e-9, 0.01  # relative
_BROKEN_IN_3D = ("RegionPerturbation", "Infidelity", "Selectivity", "IROF", "RelativeInputStability", "Continuity")
_OURS_IN_3D = ("RegionPerturbation:steps=4", "Infidelity", "Selectivity:steps=4", "RelativeInputStability", "ROAD")

Ours = Callable[[Prepared], Said]


def _finite(*metrics: str) -> Ours:
    """Whether these have a value."""

    def check(prepared: Prepared) -> Said:
        values = {m.partition(":")[0]: scored(m, _MAP, prepared).score.values for m in metrics}
        good = all(bool(torch.isfinite(v).all()) for v in values.values())
        return good, ", ".join(f"{name} {float(v[0]):.3g}" for name, v in values.items())

    return check


def _by_itself(*metrics: str) -> Ours:
    """Whether an item alone gets what it gets in a batch of four."""

    def check(prepared: Prepared) -> Said:
        many, worst = views(prepared), 0.0
        for metric in metrics:
            whole = scored(metric, _MAP, many, region_of(prepared)).score.values
            for item, value in zip(many.x, whole, strict=True):
                alone = scored(metric, _MAP, part_of(prepared, item[None]), region_of(prepared)).score.values[0]
                worst = max(worst, float((alone - value).abs() / value.abs().clamp_min(1e-30)))
        names = ", ".join(m.partition(":")[0] for m in metrics)
        return worst < _SAME, f"{names}: alone as in a batch of four, up to {worst:.0e}"

    return check


def _both(first: Ours, second: Ours) -> Ours:
    def check(prepared: Prepared) -> Said:
        (one, told), (other, more) = first(prepared), second(prepared)
        return one and other, f"{told}; {more}"

    return check


def _always_true(found: Found) -> Said:
    says = [bool(v) for v in found["value"].flatten()]
    return all(says), f"Monotonicity is {says[0]} for a map, for its opposite and for noise"


def _shares(prepared: Prepared) -> Said:
    maps = scored("Monotonicity:infill=0", _MAP, prepared).map
    noise = torch.randn(maps.shape, generator=torch.Generator().manual_seed(0), dtype=maps.dtype)
    upside_down = 1 / maps.abs().clamp_min(1e-12)
    values = [float(of_map("Monotonicity:infill=0", m, prepared).values[0]) for m in (maps, upside_down, noise)]
    told = ", ".join(f"{v:.2f} for {of}" for v, of in zip(values, ("a map", "it upside down", "noise"), strict=True))
    return len(set(values)) > 1, f"share of steps that do not fall: {told}"


def _raised(words: str) -> Callable[[Found], Said]:
    def check(found: Found) -> Said:
        return bool(found["raised"]), words

    return check


def _of_first(found: Found) -> Said:
    road, apart = found["road"], found["road by two"]
    whole, by_two = found["sensitivity"], found["sensitivity by two"]
    differs = not torch.equal(road, apart) and not torch.allclose(whole, by_two)
    several = (road != apart).nonzero()[0] if differs else torch.tensor([0])
    k = int(several[0])
    return differs, (
        f"ROAD of the same four images at {10 * (k + 1)}%: {float(road[k]):.2f} as one batch, {float(apart[k]):.2f} by "
        f"two; SensitivityN {float(whole[0]):.2f} and {float(by_two[0]):.2f}"
    )


def _missing(found: Found) -> Said:
    missing, hidden = int(found["missing"]), int(found["hidden"])
    return missing > 0, f"{missing} of {hidden} imputed voxels of a volume are NaN, without a word"


def _filled_volume(prepared: Prepared) -> Said:
    found = scored("ROAD:steps=3", _MAP, prepared)
    missing = int((~torch.isfinite(found.seen)).sum())
    return missing == 0 and bool(torch.isfinite(found.score.values).all()), f"{missing} NaN, by 26 neighbors"


def _empty_hit(found: Found) -> Said:
    wrong = bool((found["hit"] == 1).all()) and bool(found["raised"])
    return wrong, "PointingGame: a case without a finding is a hit; weighted=True raises TypeError"


def _no_finding(prepared: Prepared) -> Said:
    maps = scored("HitRate", _MAP, prepared).map
    none = of_map("HitRate", maps, prepared)
    try:
        of_map("HitRate", maps, prepared, torch.zeros(prepared.x.shape[2:], dtype=torch.bool))
    except BadRegion as error:
        right = bool(none.values.isnan().all()) and all(none.reasons)
        return right, f"no region: NaN, {none.reasons[0]}; an empty one: {error.problem}"
    return False, "an empty region is accepted"


def _of_count(found: Found) -> Said:
    two, three, four = (float(v) for v in found["value"])
    wrong = two == float("inf") and abs(three - four) > _FAR * abs(four)
    return (
        wrong,
        f"weighted AttributionLocalisation of one image: {two:g} among two, {three:.3f} among three, "
        f"{four:.3f} among four",
    )


def _in_vain(found: Found) -> Said:
    one, ten = float(found["one"][0]), float(found["ten"][0])
    wrong = bool(found["raised"]) and abs(one - ten) <= _SAME * abs(one)
    forwards = f"{int(found['forwards of ten'])} forwards instead of {int(found['forwards'])}"
    return wrong, f"Infidelity: patches of 7 raise; ten samples are the same ten times ({ten:.6g}, {forwards})"


def _changes(prepared: Prepared) -> Said:
    found = scored("Infidelity:size=0.175,samples=20,infill=0", _MAP, prepared)
    different = len({tuple(one.flatten().tolist()) for one in found.seen})
    right = bool(torch.isfinite(found.score.values).all()) and different == len(found.seen) >= 20
    return right, f"boxes of 7 voxels, {different} different changes for {len(found.seen)} forwards"


def _gone(found: Found) -> Said:
    raised, after = found["raised"], found["raised with it"]
    wrong = bool(raised.all()) and not bool(after[:2].any())
    return wrong, "areas of PixelFlipping and IROF (np.trapz) and Continuity (np.NaN) raise AttributeError"


def _of_company(found: Found) -> Said:
    (many, alone), (count, single) = (found[k].tolist() for k in ("steep", "complexity"))
    wrong = abs(many - alone) > _FAR * alone and count != single
    return wrong, (
        f"one image: LocalLipschitzEstimate {many:.2f} in a batch, {alone:.2f} alone; "
        f"EffectiveComplexity {count:.0f} and {single:.0f}"
    )


def _drifted(found: Found) -> Said:
    mean, fixed = found["mean"], found["fixed"]
    share = float((mean - fixed).abs().max() / (fixed.max() - fixed.min()))
    return (
        share > _FAR,
        f"PixelFlipping by the mean: up to {share:.0%} of the curve's range, as the mean is of what is left",
    )


def _hidden_values(fill: str, prepared: Prepared) -> tuple[Scored, Tensor]:
    """What stands in the hidden voxels of a curve, less the fill that is named, at most."""
    found = scored(f"PixelFlipping:steps=4,infill={fill}", _MAP, prepared)
    x = prepared.x
    value = x.flatten(2).mean(2).view(*x.shape[:2], *(1,) * (x.ndim - 2)) if fill == "mean" else torch.zeros(())
    off = torch.where(found.seen != x, found.seen - value, 0.0).abs().amax()
    return found, off


def _stays(prepared: Prepared) -> Said:
    found, off = _hidden_values("mean", prepared)
    return float(off) < _SAME, f"every hidden voxel shows the {found.score.detail['infill']}, whatever is left"


def _darkest(found: Found) -> Said:
    wrong = torch.equal(found["black"], found["least"]) and bool((found["values"] == 1).all())
    values = ", ".join(f"{float(v):.2f}" for v in found["black"])
    return wrong, f"black is each image's own least value ({values}), uniform a single number for each image"


def _named(prepared: Prepared) -> Said:
    told = []
    for fill in ("0", "mean"):
        found, off = _hidden_values(fill, prepared)
        if float(off) > _SAME:
            return False, f"the fill is not {found.score.detail['infill']}"
        told.append(found.score.detail["infill"])
    return True, f"the fill is what is asked for, and named: {', '.join(told)}"


def _on_a_line(found: Found) -> Said:
    flat, right = float(found["value"]), float(found["as images"])
    return abs(flat - right) > _FAR * abs(
        right
    ), f"RandomLogit's SSIM of maps as lines {flat:.3f}, as images {right:.3f}"


def _neighborhoods(prepared: Prepared) -> Said:
    score = scored("RandomLogit:similarity=ssim", _MAP, prepared).score
    return bool(torch.isfinite(score.values).all()), f"on the map's own grid: {float(score.values[0]):.3f}"


def _too_few(found: Found) -> Said:
    bins, right, values = (int(found[k]) for k in ("bins", "right", "values"))
    return bins < right, f"Sturges' formula gives {bins} bins for {values} values, not {right}"


def _enough(prepared: Prepared) -> Said:
    score, count = scored("EfficientMPRT", _MAP, prepared).score, prepared.x[0, 0].numel()
    return score.detail["bins"] == sturges(count), f"{score.detail['bins']} bins for {count} voxels"


def _one_sided(found: Found) -> Said:
    least, good, bad = float(found["least"]), float(found["value"][0]), float(found["with one"][0])
    wrong = least > 0 and isfinite(good) and isnan(bad)
    return (
        wrong,
        f"noise is never below {least:.2f}; RelativeInputStability {good:.2f}, and {bad} if one copy in ten flips",
    )


def _two_sided(prepared: Prepared) -> Said:
    found = scored("RelativeInputStability:radius=1,samples=20", _MAP, prepared)
    noise = found.seen - prepared.x
    with torch.no_grad():
        flipped = sum(int((prepared.net(one).argmax(1) != torch.tensor(prepared.labels)).sum()) for one in found.seen)
    right = (
        float(noise.min()) < 0 < float(noise.max()) and bool(torch.isfinite(found.score.values).all()) and flipped > 0
    )
    value = float(found.score.values[0])
    return (
        right,
        f"noise from {float(noise.min()):.1f} to {float(noise.max()):.1f}; {value:.2f} without {flipped} of 20 that do",
    )


def _of_others(found: Found) -> Said:
    (many, few), (among, alone) = found["Sufficiency"].tolist(), found["Consistency"].tolist()
    wrong = bool(found["raised"]) and many != few and among != alone
    return wrong, (
        f"MonotonicityCorrelation raises where a score is 0; one image's Sufficiency is {many:.2f} among eight and "
        f"{few:.2f} among two, its Consistency {among:.2f} among eight and {alone:.2f} alone"
    )


def _at_zero(prepared: Prepared) -> Said:
    """The head lowered so that the first image scores exactly zero."""
    net = copy.deepcopy(prepared.net)
    with torch.no_grad():
        net.get_parameter(f"{prepared.subject.head}.bias").sub_(net(prepared.x[:1])[0])
    return _finite("Sufficiency", "FaithfulnessEstimate:infill=0")(replace(prepared, net=net))


def _flat_only(found: Found) -> Said:
    raised = [name for name, r in zip(_BROKEN_IN_3D, found["raised"], strict=True) if bool(r)]
    return len(raised) == len(_BROKEN_IN_3D), f"raise for a volume: {', '.join(raised)}"


def _to_the_bit(found: Found) -> Said:
    gap = float(found["gap"])
    return not bool(
        found["complete"]
    ) and gap < _SAME, f"Completeness is False for a sum that is missed by {gap:.0e} of it"


def _gap(prepared: Prepared) -> Said:
    value = float(scored("CompletenessGap", "IntegratedGradients:baseline=0", prepared).score.values[0])
    return value < _SAME, f"CompletenessGap {value:.0e}"


def _any_of_the_tied(found: Found) -> Said:
    hit, (one, mirrored) = float(found["hit"][0]), found["ranks"].tolist()
    told = f"a map of two values: PointingGame {hit:.0f}, RelevanceRankAccuracy {one:.3f}, mirrored {mirrored:.3f}"
    return hit == 1 and abs(one - mirrored) > _SAME, told


def _shared(prepared: Prepared) -> Said:
    maps, region = two_valued(prepared), region_of(prepared)
    mirrored = part_of(prepared, prepared.x.flip(-1))
    hit, rank = (float(of_map(name, maps, prepared, region).values[0]) for name in ("HitRate", "RelevanceRank"))
    other = float(of_map("RelevanceRank", maps.flip(-1), mirrored, region.flip(-1)).values[0])
    inside = float((maps[0, 0] * region).sum() / maps[0].sum())
    right = abs(hit - inside) < _SAME and inside < 1 and abs(rank - other) < _SAME
    return right, f"HitRate {hit:.3f}, the share inside; RelevanceRank {rank:.3f}, mirrored {other:.3f}"


def _untupled(found: Found) -> Said:
    if bool(found["raised"]):
        return True, "sensitivity_max raises where the function gives a map instead of a tuple of maps"
    right, wrong = found["right"], found["value"]
    differs = not torch.allclose(right, wrong, rtol=_FAR)
    return (
        differs,
        f"sensitivity_max {float(wrong[0]):.3f} for a map, {float(right[0]):.3f} for a tuple of the same map",
    )


def _quantus(
    number: int, call: str, on: Subject, theirs: Callable[[Found], Said], ours: Ours, **options: object
) -> Demonstration:
    return Demonstration(f"Q{number}", "quantus", call, on, theirs, ours, options)


METRIC_DEFECTS: tuple[Demonstration, ...] = (
    _quantus(1, "monotonic", DENSE, _always_true, _shares),
    _quantus(2, "road in color", PAIR, _raised("ROAD of a color image raises IndexError"), _finite("ROAD:steps=3")),
    _quantus(3, "first batch", DENSE, _of_first, _by_itself("ROAD:steps=3", "SensitivityN:subsets=10")),
    _quantus(4, "imputed volume", DENSE_3D, _missing, _filled_volume),
    _quantus(5, "pointing", DENSE, _empty_hit, _no_finding),
    _quantus(6, "weighted", DENSE, _of_count, _by_itself("RelevanceMass")),
    _quantus(7, "repeated", DENSE, _in_vain, _changes),
    _quantus(8, "removed", RESIDUAL, _gone, _finite("PixelFlipping", "DeletionAUC:random_orders=0", "IROF:infill=0")),
    _quantus(9, "normalized", PAIR, _of_company, _by_itself("LocalLipschitz", "EffectiveComplexity")),
    _quantus(10, "drift", DENSE, _drifted, _stays),
    _quantus(11, "fills", PAIR, _darkest, _named),
    _quantus(12, "flattened", DENSE, _on_a_line, _neighborhoods),
    _quantus(13, "bins", DENSE, _too_few, _enough),
    _quantus(14, "unstable", DENSE, _one_sided, _two_sided),
    _quantus(15, "apart", PAIR, _of_others, _both(_at_zero, _by_itself("Sufficiency"))),
    _quantus(16, "volume", DENSE_3D, _flat_only, _finite(*_OURS_IN_3D), names=list(_BROKEN_IN_3D)),
    Demonstration("M6", "quantus", "complete", LINEAR, _to_the_bit, _gap),
    Demonstration("M7", "quantus", "tied", DENSE, _any_of_the_tied, _shared),
    Demonstration("M5", "captum", "no tuple", PAIR, _untupled, _finite("MaxSensitivity")),
)
