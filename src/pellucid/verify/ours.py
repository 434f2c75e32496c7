"""Our side of a comparison: a method on a prepared subject, and what it has shown the network."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.core.errors import DeclarationError
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.probe import Probe
from pellucid.verify.subjects import Prepared


@dataclass(frozen=True, eq=False)
class Explained:
    """What a method gave.

    Args:
        map: on the image's grid, "batch channel *space"; of a method for cohorts one row of numbers.
        noise: that the method added to the image, "draw batch channel *space"; empty where it added none.
        seen: by the network in the method's own passes, each shaped as the image, in order.
        error: standard error of each value; None: the method states none.
    """

    map: Tensor
    noise: Tensor
    seen: tuple[Tensor, ...] = ()
    error: Tensor | None = None


def explained(method: Explainer, prepared: Prepared) -> Explained:
    """Run a method, and watch which inputs the network sees besides the image itself."""
    model, inputs = prepared.model, {prepared.model.primary: prepared.x}
    seen: list[Tensor] = []

    def watch(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0].detach().clone())

    model.layers(inputs)  # traced now, or the trace would be seen
    probe = Probe(model, inputs, prepared.target, method.needs(model, inputs), prepared.scene)
    handle = model.module.register_forward_pre_hook(watch)
    try:
        answer = method(probe)
    finally:
        handle.remove()
    if not isinstance(answer, Attribution):
        raise DeclarationError(
            f"expected a map from {method.name}, got {answer.kind}", "compare a method that gives one"
        )
    parts = [part for x in seen for part in x.split(len(prepared.x)) if x.shape[1:] == prepared.x.shape[1:]]
    drawn = [noise for part in parts if bool((noise := part - prepared.x).any())]
    error = answer.error[model.primary].double() if answer.error else None
    return Explained(
        answer.maps[model.primary].double(),
        torch.stack(drawn) if drawn else torch.zeros(0),
        tuple(parts[1:]),  # the first is the shared pass
        error,
    )
