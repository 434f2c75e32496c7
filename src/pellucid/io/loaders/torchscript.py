"""TorchScript: differentiable, but its layers can neither be read nor changed."""

import warnings

import torch
from torch import nn

from pellucid.core.errors import ModelError
from pellucid.core.model import Abilities, Model
from pellucid.io.loaders.bare import Port, output_of, specs_of
from pellucid.io.loaders.parts import Origin, Parts
from pellucid.io.loaders.trial import find_sample, tried, untried
from pellucid.io.trust import sha256_of

_WHY = {
    "hooks": "TorchScript runs its layers outside Python, where hooks are never called",
    "edits": "TorchScript runs its layers outside Python, where they cannot be changed",
    "rules": "TorchScript runs its operations outside Python, where they cannot be replaced",
}


def load_torchscript(origin: Origin) -> Parts:
    """Load a scripted or traced module.

    Raises:
        Untrusted: nobody said that its program may run (it can read and write files).
        ModelError: damaged, or of a version that this torch cannot read.
    """
    code = {**origin.code, origin.path.name: sha256_of(origin.path)}
    trust = origin.gate.admit(origin.name, "TorchScript is a program, which can read and write files", code)
    module = _read(origin)
    inputs = specs_of(origin, _ports(module, origin))
    call = origin.card.model.call if origin.card is not None else "positional"
    draft, _ = output_of(origin, None)
    model = Model(module, inputs, draft, can=Abilities(hooks=False, edits=False, rules=False, why=_WHY), call=call)
    sample = find_sample(model)
    if isinstance(sample, str):
        output, notes = output_of(origin, None)
        return Parts(module, inputs, output, model.can, call, trust, (*notes, untried(sample)))
    output, notes = output_of(origin, sample.output)
    channels = sample.output.shape[1]
    return Parts(module, inputs, output, tried(model, sample), call, trust, notes, channels=channels)


def _read(origin: Origin) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch would rather see .pt2; the user has this file
            module = torch.jit.load(str(origin.path), map_location=origin.device)
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{origin.path.name} is no whole TorchScript file: {reason}", "export it again") from error
    for part in module.modules():
        if getattr(part, "training", None) is None:
            part.training = False  # a frozen module has lost the flag that every torch module has
    return module.eval() if any(p.training for p in module.modules()) else module


def _ports(module: nn.Module, origin: Origin) -> list[Port]:
    """Argument names of ``forward``; without a card the first weight tells rank and channels of a single input."""
    names = [a.name for a in module.forward.schema.arguments[1:]]  # the first is the module itself
    if origin.card is not None:
        ranks = [s.rank for s in origin.card.inputs]
        return [Port(n, (None,) * (2 + r)) for n, r in zip(names, [*ranks, *[0] * len(names)], strict=False)]
    weights = [p for p in module.state_dict().values() if p.ndim in (4, 5)]
    shape = (None, int(weights[0].shape[1]), *(None,) * (weights[0].ndim - 2)) if weights and len(names) == 1 else ()
    return [Port(n, shape) for n in names]
