"""Methods that read the gradient of the target with respect to the input."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pellucid.core.card import Ask, Card, Family
from pellucid.core.errors import BadOption
from pellucid.core.explainer import Explainer
from pellucid.core.explanation import Attribution
from pellucid.core.probe import Probe


@dataclass(frozen=True)
class Saliency(Explainer):
    """Where a small change of the image would change the score most: the magnitude of the gradient.

    ``max over channels of |dS/dx|``. It shows sensitivity, not contribution: a voxel can matter for the score and have
    gradient zero where the score saturates, and neighboring voxels differ like noise.

    Returns:
        Attribution of magnitudes, never negative, in score per network unit. With ``sign="kept"``: the gradient itself,
        whose channels are summed where it is drawn.

    Raises:
        BadOption: another sign.

    Source:
        simonyan2014deep.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)))
        >>> method, x = Saliency(), torch.rand(1, 1, 4, 4)
        >>> method(Probe(model, x, ClassScore(1), method.needs(model, {"image": x}))).maps["image"].shape
        torch.Size([1, 1, 4, 4])
    """

    sign: Annotated[
        Literal["dropped", "kept"], "of the gradient; kept: whether the score rises or falls as the voxel gets brighter"
    ] = "dropped"

    card: ClassVar[Card] = Card(
        family=Family.GRADIENT,
        shows="how strongly the score reacts to a small change of each voxel",
        caution="sensitivity, not contribution; noisy; blind where the score saturates",
        equation=r"\max_c \left|\partial S / \partial x_c\right|",
        source="simonyan2014deep",
        cost_note="none of its own: one forward and backward shared with every gradient method",
        asks=frozenset({Ask.OUTPUT, Ask.INPUT_GRADIENT}),
        signed=False,
    )

    def __post_init__(self) -> None:
        if self.sign not in ("dropped", "kept"):
            raise BadOption(f"expected sign dropped or kept, got {self.sign!r}", "choose one of these")

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        signed = self.sign == "kept"
        return Attribution(
            maps={name: g.clone() if signed else g.abs() for name, g in probe.input_gradient.items()},
            unit=f"{probe.target.unit} per network unit",
            signed=signed,
            collapse="sum" if signed else "max",
            cell=(1.0,) * probe.grid.rank,
        )


@dataclass(frozen=True)
class InputXGradient(Explainer):
    """How much each voxel contributes if the model were linear here: input times gradient.

    ``x * dS/dx``. Its sum is the score itself for networks of linear layers and ReLU without bias. Zero intensity gets
    zero, whatever it means: after z-scoring that is average tissue, in HU it is water.

    Returns:
        Signed attribution in the target's unit.

    Source:
        shrikumar2017just.

    Example:
        >>> import torch
        >>> from pellucid.core.model import Model
        >>> from pellucid.core.target import ClassScore
        >>> layer = torch.nn.Linear(16, 2, bias=False)
        >>> model, x = Model(torch.nn.Sequential(torch.nn.Flatten(), layer)), torch.rand(1, 1, 4, 4)
        >>> method = InputXGradient()
        >>> a = method(Probe(model, x, ClassScore(1), method.needs(model, {"image": x})))
        >>> bool(torch.isclose(a.maps["image"].sum(), model({"image": x})[0, 1]))
        True
    """

    card: ClassVar[Card] = Card(
        family=Family.GRADIENT,
        shows="the contribution of each voxel, taking the model as linear around this image",
        caution="zero intensity always gets zero; as noisy as the gradient; misses saturated evidence",
        equation=r"x \odot \partial S / \partial x",
        source="shrikumar2017just",
        cost_note="none of its own: one forward and backward shared with every gradient method",
        asks=frozenset({Ask.OUTPUT, Ask.INPUT_GRADIENT}),
        signed=True,
    )

    def __call__(self, probe: Probe) -> Attribution:
        """See ``Explainer``."""
        gradient = probe.input_gradient
        return Attribution(
            maps={name: probe.inputs[name] * g for name, g in gradient.items()},
            unit=probe.target.unit,
            signed=True,
            cell=(1.0,) * probe.grid.rank,
        )
