"""What a model file says of its inputs and its output where no card does."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from pellucid.core.errors import BadCard
from pellucid.core.model import OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.io.loaders.parts import NO_CARD, Origin


@dataclass(frozen=True)
class Port:
    """One input as the file declares it.

    Args:
        name: of the input.
        shape: of a batch; None where an axis may vary.
    """

    name: str
    shape: tuple[int | None, ...]


def specs_of(origin: Origin, ports: Sequence[Port]) -> tuple[InputSpec, ...]:
    """The card's inputs, checked against the file's; without a card, what the file says.

    Raises:
        BadCard: card and file disagree, or the file does not say enough to go without a card.
    """
    if origin.card is None:
        return tuple(_spec(port, origin) for port in ports)
    specs = origin.card.inputs
    if len(specs) != len(ports):
        raise BadCard(
            f"inputs: the card names {[s.name for s in specs]}, the file takes {[p.name for p in ports]}",
            "give one [[inputs]] for each, in the file's order",
        )
    return tuple(_checked(spec, port) for spec, port in zip(specs, ports, strict=True))


def _spec(port: Port, origin: Origin) -> InputSpec:
    rank = len(port.shape) - 2
    channels = port.shape[1] if len(port.shape) > 1 else None
    if rank not in (0, 2, 3) or channels is None:
        shape = ", ".join("?" if n is None else str(n) for n in port.shape)
        raise BadCard(
            f"{origin.path.name} takes an input {port.name!r} of shape ({shape}), which does not say its channels",
            "write a model.toml that names the file as its weights",
        )
    size = tuple(n for n in port.shape[2:] if n is not None)
    order = "rgb" if rank and channels == 3 else "gray"
    return InputSpec(port.name, rank, channels, order, size=size if rank and len(size) == rank else None)


def _checked(spec: InputSpec, port: Port) -> InputSpec:
    wanted = (None, spec.channels, *(spec.size or (None,) * spec.rank))
    agree = len(wanted) == len(port.shape) and all(
        a is None or b is None or a == b for a, b in zip(wanted[1:], port.shape[1:], strict=True)
    )
    if not agree:
        raise BadCard(
            f"inputs.{spec.name}: the card says rank {spec.rank}, {spec.channels} channel(s), size {spec.size}; "
            f"the file takes {_written(port.shape)}",
            "correct the card: the file is what runs",
        )
    fixed = tuple(n for n in port.shape[2:] if n is not None)
    if spec.size is None and spec.rank and len(fixed) == spec.rank:
        return replace(spec, size=fixed)
    return spec


def _written(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if n is None else str(n) for n in shape)})"


def fixed_batch(ports: Sequence[Port]) -> int | None:
    """The batch size that the file prescribes, None for any."""
    return next((p.shape[0] for p in ports if p.shape and p.shape[0] is not None), None)


def output_of(origin: Origin, sample: Tensor | None) -> tuple[OutputSpec, tuple[str, ...]]:
    """The card's output; without a card a guess from the shape of what the model gave, and a note that says so."""
    if origin.card is not None:
        return origin.card.output_spec, ()
    if sample is None:
        return OutputSpec(), (NO_CARD,)
    task = "classification" if sample.ndim == 2 else "segmentation"
    activation = "sigmoid" if sample.shape[1] == 1 else "softmax"
    guess = f"{NO_CARD}; taken for a {task} of {sample.shape[1]} {activation} logit(s)"
    return OutputSpec(task=task, activation=activation), (guess,)
