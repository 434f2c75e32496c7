"""What a loaded module really can do, found by trying it once on random input."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, prod

import torch
from torch import Tensor

from pellucid.core.errors import InputError, ModelError
from pellucid.core.layers import Watch
from pellucid.core.model import Abilities, Model
from pellucid.core.prepare import InputSpec

_SIDE = {0: 1, 2: 32, 3: 16}  # of the input tried first, where the card fixes no size
_BATCHES = (1, 2, 4, 8, 16)
_LAYERS = 6  # edited one after the other until one changes the output
_LARGE = 1 << 20  # values of an input; more (a volume of 100 a side) is not worth the wait
# what a module may raise on an input it was not made for
REFUSALS = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, InputError)


@dataclass(frozen=True, eq=False)
class Sample:
    """Random inputs that the module takes, and what it gives for them.

    Args:
        inputs: by name, a batch of ``batch``.
        output: of the head.
        batch: the size that worked.
    """

    inputs: dict[str, Tensor]
    output: Tensor
    batch: int


@dataclass(frozen=True)
class Settled:
    """What the trial of a module gave.

    Args:
        can: abilities.
        channels: of the head's output; None where it could not be tried.
        notes: doubts.
    """

    can: Abilities
    channels: int | None
    notes: tuple[str, ...] = ()


def settled(model: Model) -> Settled:
    """What a module with live layers can do: tried for what its own code may still take away, such as gradients."""
    blind = replace(model, can=replace(model.can, hooks=False, edits=False))
    sample = find_sample(blind)
    if isinstance(sample, str):
        return Settled(model.can, None, (untried(sample),))
    can = tried(blind, sample)
    return Settled(replace(can, hooks=model.can.hooks, edits=model.can.edits), sample.output.shape[1])


def untried(reason: str) -> str:
    """The note where a module ran on none of the inputs tried."""
    return f"the model could not be tried when loaded ({reason})"


def find_sample(model: Model) -> Sample | str:
    """Inputs on which the module runs, small ones first; else the reason why none did."""
    reason = ""
    for shapes in _candidates(model):
        for batch in (model.can.batch,) if model.can.batch is not None else _BATCHES:
            inputs = _draw(model, shapes, batch)
            try:
                return Sample(inputs, forward(model, inputs), batch)
            except REFUSALS as error:
                reason = reason or f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return reason


def forward(model: Model, inputs: dict[str, Tensor]) -> Tensor:
    """The head's output without a graph, leaving the module as it was."""
    with model.held(), torch.no_grad():
        return model({k: v.clone() for k, v in inputs.items()})


def _candidates(model: Model) -> list[tuple[tuple[int, ...], ...]]:
    """Sizes to try, small ones first; the card's own where it is not too large to try for nothing."""
    found = [tuple(_size(spec, factor) for spec in model.inputs) for factor in (1, 4)]
    full = tuple(spec.size or size for spec, size in zip(model.inputs, found[-1], strict=True))
    # a file that prescribes its batch mostly prescribes its size too
    if model.can.batch is not None or sum(map(prod, full)) <= _LARGE:
        found.append(full)
    return list(dict.fromkeys(found))


def _size(spec: InputSpec, factor: int) -> tuple[int, ...]:
    side = spec.multiple * ceil(factor * _SIDE[spec.rank] / spec.multiple)
    return (side,) * spec.rank if spec.size is None else tuple(min(side, n) for n in spec.size)


def _draw(model: Model, shapes: tuple[tuple[int, ...], ...], batch: int) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(0)
    return {
        spec.name: torch.randn(batch, spec.channels, *shape, generator=source).to(model.device)
        for spec, shape in zip(model.inputs, shapes, strict=True)
    }


def tried(model: Model, sample: Sample) -> Abilities:
    """The abilities of the model as declared, less those that fail when tried.

    Raises:
        ModelError: the same input gives different outputs.
    """
    if sample.batch > 1:
        model = replace(model, can=replace(model.can, batch=sample.batch))
    can = model.can
    if sum(v.numel() for v in sample.inputs.values()) > _LARGE:
        return replace(can, batch=can.batch if can.batch is not None else 1)  # too large to try more than once
    _check_repeats(model, sample)
    why = dict(can.why)
    lacks: dict[str, bool] = {}
    checks: tuple[tuple[str, Callable[[Model, Sample], str]], ...] = (
        ("gradient", _gradient),
        ("hooks", _hooks),
        ("edits", _edits),
    )
    for ability, check in checks:
        if getattr(can, ability):
            reason = check(model, sample)
            if reason:
                lacks[ability], why[ability] = False, reason
    batch = model.can.batch if model.can.batch is not None else _batch(model, sample)
    if batch is not None and "batch" not in why:
        why["batch"] = f"it takes exactly {batch} at a time; others are cut and padded"
    return replace(can, **lacks, batch=batch, why=why)


def _check_repeats(model: Model, sample: Sample) -> None:
    outputs = []
    devices = [model.device] if model.device.type == "cuda" else []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)  # a dropout that was left on draws differently
            outputs.append(torch.nan_to_num(forward(model, sample.inputs)))  # random input may be beyond a domain
    spread = float((outputs[0] - outputs[1]).abs().max())
    if spread > 1e-3 * float(outputs[0].abs().max()):
        raise ModelError(
            "the model gives different outputs for the same input, so nothing can be said about it",
            "if it was exported in training mode (dropout), call model.eval() first and export it again",
        )


def _gradient(model: Model, sample: Sample) -> str:
    leaves = {k: v.clone().requires_grad_() for k, v in sample.inputs.items()}
    with model.held(), torch.enable_grad():
        try:
            output = model({k: v * 1 for k, v in leaves.items()})
            if not output.requires_grad:
                return "its code switches gradients off, or rounds on the way"
            grads = torch.autograd.grad(output.sum(), list(leaves.values()), allow_unused=True)
        except REFUSALS as error:
            return f"its backward pass fails: {' '.join(str(error).split())[:120]}"
    return "" if any(g is not None for g in grads) else "its output does not depend on its input in a smooth way"


def _hooks(model: Model, sample: Sample) -> str:
    return "" if _layer_names(model, sample) else "hooks on its layers are never called"


def _edits(model: Model, sample: Sample) -> str:
    """Set layers to other values, one after the other: if no change arrives at the output, edits do not work."""
    for name in _layer_names(model, sample)[:_LAYERS]:
        with Watch(model.module, (), {name: lambda t: t * 0 - 3}, leaf=False):
            if not torch.equal(forward(model, sample.inputs), sample.output):
                return ""
    return "a changed layer does not change its output"


def _layer_names(model: Model, sample: Sample) -> list[str]:
    return [layer.name for layer in model.layers(sample.inputs)]


def _batch(model: Model, sample: Sample) -> int | None:
    """None where two items together give what each gives alone, else the size that ran."""
    second = {k: v.flip(-1) * 0.5 for k, v in sample.inputs.items()}
    try:
        alone = torch.cat([sample.output, forward(model, second)])
        both = forward(model, {k: torch.cat([v, second[k]]) for k, v in sample.inputs.items()})
    except REFUSALS:
        return sample.batch
    return None if both.shape == alone.shape and torch.allclose(both, alone, rtol=1e-3, atol=1e-4) else 1
