"""The numbered defects of Quantus 0.6.0, each made to show on a network and a real image."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .with_quantus import Found, Given, ask, explained, quiet, region_of, trapezoid

_AFTER = 3  # of the noisy copies, the one whose decision changes


def _raises(kind: type[Exception], action: Callable[[], Any]) -> bool:
    try:
        action()
    except kind:
        return True
    return False


def _map(net: nn.Module, x: Tensor, labels: list[int]) -> Any:
    return explained(net, x.numpy(), labels)


def _mirrored(x: Tensor) -> Tensor:
    """Four views of the first image, as a batch."""
    one = x[:1]
    return torch.cat([one, one.flip(2), one.flip(3), one.flip(2, 3)])


def _monotonic(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """Q1: the answer for a map, for its opposite, and for noise."""
    import quantus

    a = _map(net, x, labels)
    noise = np.random.default_rng(0).normal(size=a.shape)
    made = quantus.Monotonicity(**quiet({"features_in_step": a[0].size // 16, "perturb_baseline": 0.0}))
    return {"value": np.stack([np.asarray(ask(made, net, x, labels, {"a_batch": m}), bool) for m in (a, -a, noise)])}


def _road_in_color(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """Q2: ROAD as it comes, on an image with three channels."""
    import quantus

    made = quantus.ROAD(**quiet({"percentages": [50]}))
    return {"raised": _raises(IndexError, lambda: ask(made, net, x, labels, {"a_batch": _map(net, x, labels)}))}


def _first_batch(net: nn.Module, x: Tensor, _labels: list[int], _layer: str, _given: Given) -> Found:
    """Q3: the same four images and maps, as one batch and two by two."""
    import quantus

    many = _mirrored(x)
    labels = net(many).argmax(1).tolist()
    a = _map(net, many, labels)

    def road(size: int) -> list[float]:
        np.random.seed(0)  # noqa: NPY002 -- the generator that the peer asks
        made = quantus.ROAD(**quiet({"percentages": list(range(10, 100, 10))}))
        return list(ask(made, net, many, labels, {"a_batch": a, "batch_size": size}).values())

    def sensitivity(size: int) -> Any:
        made = quantus.SensitivityN(**quiet({"features_in_step": a[0].size // 8, "perturb_baseline": 0.0}))
        return np.asarray(ask(made, net, many, labels, {"a_batch": a, "batch_size": size}))

    return {
        "road": road(4),
        "road by two": road(2),
        "sensitivity": sensitivity(4),
        "sensitivity by two": sensitivity(2),
    }


def _imputed_volume(_net: nn.Module, x: Tensor, _labels: list[int], _layer: str, _given: Given) -> Found:
    """Q4: the imputation of a volume."""
    from quantus.functions.perturb_func import noisy_linear_imputation

    hidden = np.arange(0, x[0].numel(), 3)
    filled = noisy_linear_imputation(x[0].numpy(), hidden)
    return {"missing": int((~np.isfinite(filled)).sum()), "hidden": len(hidden)}


def _pointing(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """Q5: a case without a finding, and the weighted form."""
    import quantus

    nothing, a = np.zeros((len(x), 1, *x.shape[2:])), _map(net, x, labels)
    hit = ask(quantus.PointingGame(**quiet()), net, x, labels, {"a_batch": a, "s_batch": nothing})
    weighted = quantus.PointingGame(**quiet({"weighted": True}))
    largest = {"region": torch.ones(x.shape[2:], dtype=torch.bool)}
    raised = _raises(TypeError, lambda: ask(weighted, net, x, labels, {"a_batch": a, "s_batch": region_of(x, largest)}))
    return {"hit": np.asarray(hit, float), "raised": raised}


def _weighted(net: nn.Module, x: Tensor, _labels: list[int], _layer: str, given: Given) -> Found:
    """Q6: the first of two, of three and of four images."""
    import quantus

    many = _mirrored(x)
    labels, found = net(many).argmax(1).tolist(), []
    for count in (2, 3, 4):
        part, of = many[:count], labels[:count]
        made = quantus.AttributionLocalisation(**quiet({"weighted": True, "positive_attributions": True}))
        a = _map(net, part, of)
        found.append(float(ask(made, net, part, of, {"a_batch": a, "s_batch": region_of(part, given)})[0]))
    return {"value": found}


def _repeated(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """Q7: a patch that does not divide the image; and what nine more samples of the same cost and change."""
    import quantus

    a, calls = _map(net, x, labels), []

    def scored(patch: int, samples: int) -> Any:
        settings = quiet({"perturb_patch_sizes": [patch], "n_perturb_samples": samples, "perturb_baseline": 0.0})
        handle = net.register_forward_hook(lambda *_: calls.append(1))
        try:
            return np.asarray(ask(quantus.Infidelity(**settings), net, x, labels, {"a_batch": a}))
        finally:
            handle.remove()

    one = scored(8, 1)
    forwards = len(calls)
    ten = scored(8, 10)
    return {
        "raised": _raises(ValueError, lambda: scored(7, 1)),
        "one": one,
        "ten": ten,
        "forwards": forwards,
        "forwards of ten": len(calls) - forwards,
    }


def _removed(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """Q8: what raises with this NumPy, and what does with the function put back."""
    import quantus

    a = _map(net, x, labels)
    flipping = quantus.PixelFlipping(**quiet({"features_in_step": a[0].size // 8, "return_auc_per_sample": True}))
    continuity = quantus.Continuity(**quiet({"nr_steps": 4, "return_nan_when_prediction_changes": True}))

    def raised() -> list[bool]:
        return [
            _raises(AttributeError, lambda: ask(flipping, net, x, labels, {"a_batch": a})),
            _raises(AttributeError, lambda: ask(quantus.IROF(**quiet()), net, x, labels, {"a_batch": a})),
            _raises(
                AttributeError, lambda: ask(continuity, net, x, labels, {"a_batch": None, "explain_func": explained})
            ),
        ]

    plain = raised()
    with trapezoid():
        return {"raised": plain, "raised with it": raised()}


def _normalized(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """Q9: the second item in a batch and alone, with the peer's own normalization, on the same noise."""
    import quantus

    def scored(name: str, items: slice, **more: Any) -> float:
        settings = quiet({"normalise": True, **more})
        made = getattr(quantus, name)(**settings)
        some, of = x[items], labels[items]
        return float(ask(made, net, some, of, {"a_batch": _map(net, some, of), "explain_func": explained})[-1])

    def steep(items: slice) -> float:
        waiting = iter(given["seen"][:, items].numpy())
        draw = {"perturb_func": lambda arr, **_: next(waiting).reshape(arr.shape)}
        return scored("LocalLipschitzEstimate", items, nr_samples=len(given["seen"]), **draw)

    both, last, eps = slice(0, 2), slice(1, 2), {"abs": True, "eps": 0.05}
    counts = [scored("EffectiveComplexity", items, **eps) for items in (both, last)]
    return {"steep": [steep(both), steep(last)], "complexity": counts}


def _drift(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """Q10: the curve with the mean of what is left, and with the mean of the image."""
    import quantus

    a, curves = _map(net, x, labels), []
    for baseline in ("mean", float(x[0].mean())):
        settings = quiet({"features_in_step": a[0].size // 20, "perturb_baseline": baseline})
        curves.append(ask(quantus.PixelFlipping(**settings), net, x[:1], labels[:1], {"a_batch": a[:1]}))
    return {"mean": np.asarray(curves[0]), "fixed": np.asarray(curves[1])}


def _fills(_net: nn.Module, x: Tensor, _labels: list[int], _layer: str, _given: Given) -> Found:
    """Q11: what stands where something is hidden, under ``black`` and ``uniform``."""
    from quantus.functions.perturb_func import batch_baseline_replacement_by_indices as hide

    flat = x.numpy().reshape(len(x), -1)
    some = np.tile(np.arange(0, flat.shape[1], 2), (len(x), 1))
    shown = {kind: hide(flat, some, perturb_baseline=kind)[:, ::2] for kind in ("black", "uniform")}
    return {
        "black": shown["black"][:, 0],
        "least": flat.min(1),
        "values": [len(np.unique(u)) for u in shown["uniform"]],
    }


def _flattened(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """Q12: the peer's SSIM of the maps of two labels, and that of the same two maps as images."""
    import quantus
    from skimage.metrics import structural_similarity

    seen: list[Any] = []

    def watched(model: nn.Module, inputs: Any, targets: Any) -> Any:
        seen.append(explained(model, inputs, targets))
        return seen[-1]

    a = _map(net, x, labels)
    made = quantus.RandomLogit(**quiet({"num_classes": net(x[:1]).shape[1]}))
    found = ask(made, net, x, labels, {"a_batch": a, "explain_func": watched})
    one, other = a[0, 0], seen[-1][0, 0]
    right = structural_similarity(one, other, data_range=max(one.max(), other.max()) - min(one.min(), other.min()))
    return {"value": float(found[0]), "as images": float(right)}


def _bins(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """Q13: bins by Sturges' formula, for a map and for its number of values."""
    from quantus.functions.n_bins_func import sturges_formula

    a = _map(net, x, labels)
    return {"bins": sturges_formula(a_batch=a), "right": int(np.log2(a[0].size) + 1), "values": a[0].size}


def _unstable(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """Q14: the noise as it comes; and one noisy copy of another decision among ten."""
    import quantus
    from quantus.functions.perturb_func import batch_uniform_noise

    noise: list[Any] = []

    def watched(arr: Any, **named: Any) -> Any:
        noise.append(batch_uniform_noise(arr=arr, **named) - arr)
        return arr + noise[-1]

    def flipping(arr: Any, **named: Any) -> Any:
        moved = watched(arr, **named)
        return -50 * moved if len(noise) == _AFTER else moved

    def scored(draw: Callable[..., Any]) -> Any:
        noise.clear()
        made = quantus.RelativeInputStability(**quiet({"nr_samples": 10, "perturb_func": draw}))
        return np.asarray(ask(made, net, x, labels, {"a_batch": None, "explain_func": explained}), float)

    plain = scored(watched)
    least = min(float(n.min()) for n in noise)
    return {"least": least, "value": plain, "with one": scored(flipping)}


class _Lowered(nn.Module):
    """The score of the first item is exactly zero."""

    def __init__(self, net: nn.Module, by: Tensor) -> None:
        super().__init__()
        self.net, self.by = net, by
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.net(x.double()) - self.by


def _apart(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """Q15: a score of zero; and a case that is compared with the others of its batch."""
    import quantus

    a = _map(net, x, labels)
    lowered = _Lowered(net, net(x[:1]).detach())
    settings = quiet({"nr_samples": 2, "features_in_step": a[0].size // 4, "abs": True})
    raised = _raises(
        ValueError, lambda: ask(quantus.MonotonicityCorrelation(**settings), lowered, x, labels, {"a_batch": a})
    )
    many = torch.cat([_mirrored(x), _mirrored(x)])
    of = net(many).argmax(1).tolist()
    maps = _map(net, many, of)
    found = {}
    for name in ("Sufficiency", "Consistency"):
        made = getattr(quantus, name)(**quiet({"abs": True, "normalise": True}))
        sizes = (8, 2 if name == "Sufficiency" else 1)
        found[name] = [float(ask(made, net, many[:n], of[:n], {"a_batch": maps[:n]})[0]) for n in sizes]
    return {"raised": raised, **found}


def _volume(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """Q16: which metrics raise on a volume."""
    import quantus

    a = _map(net, x, labels)
    more = {"a_batch": a, "explain_func": explained}
    with trapezoid():
        raised = [
            _raises(Exception, lambda n=n: ask(getattr(quantus, n)(**quiet()), net, x, labels, more))
            for n in given["names"]
        ]
    return {"raised": raised}


def _complete(net: nn.Module, x: Tensor, labels: list[int], _layer: str, _given: Given) -> Found:
    """M6: a map that keeps its sum, from black, but for rounding."""
    import quantus

    a = _map(net, x, labels)
    made = quantus.Completeness(**quiet({"perturb_baseline": 0.0}))
    with torch.no_grad():
        rise = float((net(x) - net(torch.zeros_like(x)))[0, labels[0]])
    return {
        "complete": bool(ask(made, net, x, labels, {"a_batch": a})[0]),
        "gap": abs(float(a[0].sum()) - rise) / abs(rise),
    }


def _tied(net: nn.Module, x: Tensor, labels: list[int], _layer: str, given: Given) -> Found:
    """M7: a map of two values, and the mirrored map with the mirrored region."""
    import quantus

    def scored(name: str, mirrored: bool) -> Any:
        a, region = given["two"], given["region"]
        a, region = (a.flip(-1), region.flip(-1)) if mirrored else (a, region)
        more = {"a_batch": a.numpy().copy(), "s_batch": region_of(x, {"region": region}).copy()}
        return np.asarray(ask(getattr(quantus, name)(**quiet()), net, x, labels, more), float)

    ranks = [scored("RelevanceRankAccuracy", mirrored)[0] for mirrored in (False, True)]
    return {"hit": scored("PointingGame", False), "ranks": ranks}


CALLS: dict[str, Callable[..., Found]] = {
    "monotonic": _monotonic,
    "road in color": _road_in_color,
    "first batch": _first_batch,
    "imputed volume": _imputed_volume,
    "pointing": _pointing,
    "weighted": _weighted,
    "repeated": _repeated,
    "removed": _removed,
    "normalized": _normalized,
    "drift": _drift,
    "fills": _fills,
    "flattened": _flattened,
    "bins": _bins,
    "unstable": _unstable,
    "apart": _apart,
    "volume": _volume,
    "complete": _complete,
    "tied": _tied,
}
