"""The three lines for a notebook: a module and a tensor, no card."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pellucid.core.case import Case
from pellucid.core.errors import ShapeMismatch
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Explanation
from pellucid.core.grid import Grid
from pellucid.core.image import Image
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore, Label, RegionScore, Target
from pellucid.explain.byhand import Do, Reply, ask_region
from pellucid.workbench.explaining import explain_case
from pellucid.workbench.opening import Opened, default_target, open_case
from pellucid.workbench.registry import make_explainer


def explain(
    module: nn.Module | Model,
    tensor: Float[Tensor, "batch channel *space"],
    target: Target | Label | None = None,
    method: str | Explainer = "GradCAM",
    seed: int = 0,
) -> Explanation:
    """Explain a module's score for one image, with nothing but the module and the tensor.

    Args:
        module: any torch module, in any mode, on any device; it is left exactly as it was. A ``Model`` says more
            (labels, which element of a dict output); what it says of preparing an image is not applied again.
        tensor: (1, channel, height, width) or (1, channel, depth, height, width), as the module takes it.
        target: index or name of the class, or a Target; None: the predicted class, or the largest structure.
        method: name, with parameters if need be (``"Occlusion:window=16"``), or an explainer.
        seed: of everything random.

    Returns:
        An explanation with ``.numpy()``, ``.plot()``, and a picture in a notebook.

    Raises:
        PellucidError: with the mend.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 3))
        >>> explain(net, torch.rand(1, 1, 8, 8), target=2, method="GradCAM").numpy().shape
        (1, 8, 8)
    """
    opened, chosen = _opened(module, tensor, target, seed)
    explainer = make_explainer(method) if isinstance(method, str) else method
    return explain_case(opened, [chosen], [explainer]).explanations[0]


def ask(
    module: nn.Module | Model,
    tensor: Float[Tensor, "batch channel *space"],
    region: Bool[Tensor, "*space"],
    do: Do = "hide",
    target: Target | Label | None = None,
    seed: int = 0,
) -> Reply:
    """Hide a region of one image, show it alone or swap it with its mirror side, and see what the score does.

    Args:
        module: as in ``explain``.
        tensor: as in ``explain``.
        region: true inside, of the image's shape.
        do: ``hide``, ``keep`` or ``swap``.
        target: as in ``explain``.
        seed: of the places elsewhere where the same is done for comparison.

    Returns:
        The score before and after, for each fill, and what the same does elsewhere.

    Raises:
        PellucidError: with the mend.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 3))
        >>> region = torch.zeros(8, 8, dtype=torch.bool); region[2:4, 2:4] = True
        >>> reply = ask(net, torch.rand(1, 1, 8, 8), region, "hide", target=2)
        >>> reply.unit, len(reply.fills), reply.shams
        ('logit', 2, 8)
    """
    opened, chosen = _opened(module, tensor, target, seed)
    return ask_region(Probe(opened.model, opened.inputs, chosen, scene=opened.scene), region, do)


def _opened(
    module: nn.Module | Model, tensor: Tensor, target: Target | Label | None, seed: int
) -> tuple[Opened, Target]:
    """The image as a case of a model that takes it as it is, and what is explained."""
    if tensor.ndim not in (4, 5) or len(tensor) != 1:
        raise ShapeMismatch(
            f"expected one image (1, channel, *space) of 2 or 3 spatial axes, got {tuple(tensor.shape)}",
            "add the batch axis with tensor[None], or explain one item at a time",
        )
    model = _unprepared(module) if isinstance(module, Model) else _bare_model(module, tensor)
    image = Image(tensor[0].detach().cpu().float(), Grid.regular(tensor.shape[2:]))
    opened = open_case(Case("tensor", {model.primary: image}), model, seed)
    chosen = target if isinstance(target, Target) else _target(target, model)
    return opened, chosen or default_target(opened)


def _unprepared(model: Model) -> Model:
    """The model, taking tensors as they are: windows and sizes of its card belong to images."""
    specs = tuple(InputSpec(s.name, s.rank, s.channels, "gray" if s.channels == 1 else "rgb") for s in model.inputs)
    return replace(model, inputs=specs)


def _bare_model(module: nn.Module, tensor: Tensor) -> Model:
    """A Model of a bare module; whether it classifies or segments is seen from its output."""
    spec = InputSpec(rank=tensor.ndim - 2, channels=tensor.shape[1], order="rgb" if tensor.shape[1] == 3 else "gray")
    model = Model(module, (spec,))
    with model.held(), torch.no_grad():
        output = model({spec.name: tensor.to(model.device)})
    if output.ndim < 2:
        raise ShapeMismatch(
            f"expected an output (batch, class) or (batch, class, *space) from the module, got {tuple(output.shape)}",
            "let the module keep the class axis, of length 1 for a single score",
        )
    task = "classification" if output.ndim == 2 else "segmentation"
    activation = "sigmoid" if output.shape[1] == 1 else "softmax"
    return Model(module, (spec,), OutputSpec(task=task, activation=activation))


def _target(label: Label | None, model: Model) -> Target | None:
    if label is None:
        return None
    return RegionScore(label) if model.output.task == "segmentation" else ClassScore(label)
