"""The module itself, and a copy of it in bfloat16."""

import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pellucid.core.engine import Engine
from pellucid.core.errors import CannotDo
from pellucid.core.model import Inputs, Model
from pellucid.engines.sample import Sample

_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
_BFLOAT16 = ("avx512_bf16", "amx_bf16", "amx_tile")  # without one of these it is computed in software, and slowly
_USUAL = 8  # measured: on a CPU more at once is slower for each


@dataclass(frozen=True, eq=False)
class EagerEngine(Engine):
    """A module as torch runs it.

    Args:
        model: the user's, or a copy in another number format.
        layout: whether images are laid out channels last.
    """

    model: Model = field(kw_only=True, repr=False)
    layout: bool = field(default=False, kw_only=True)

    def _run(self, inputs: Inputs) -> Tensor:
        with self.model.held():  # a clone: a module may change its input in place
            return self.model({k: self._laid_out(v) for k, v in inputs.items()})

    def _laid_out(self, x: Tensor) -> Tensor:
        if self.layout and x.ndim in _LAYOUTS:
            return x.clone(memory_format=_LAYOUTS[x.ndim])
        return x.clone()


def eager(model: Model) -> EagerEngine:
    """The module as it is: what every other engine is compared with."""
    batch = model.can.batch
    return EagerEngine("eager", "float32", batch or _USUAL, batch is not None, model=model)


def eager_bfloat16(sample: Sample) -> EagerEngine:
    """A copy of the module with weights in bfloat16, laid out channels last.

    Raises:
        CannotDo: the processor computes no bfloat16.
    """
    if not any(torch.cpu.get_capabilities().get(name, False) for name in _BFLOAT16):
        raise CannotDo("this processor has no bfloat16 arithmetic", "use another engine")
    model = sample.model
    with model.held():
        module = copy.deepcopy(model.module).to(torch.bfloat16)
    if model.rank + 2 in _LAYOUTS:
        module = module.to(memory_format=_LAYOUTS[model.rank + 2])
    batch = model.can.batch
    twin = replace(model, module=module, _traces={}, _defaults={})
    return EagerEngine("eager-bf16", "bfloat16 weights", batch or _USUAL, batch is not None, model=twin, layout=True)
