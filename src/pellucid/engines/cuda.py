"""A graphics card: many items at once, launched as one recorded graph."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pellucid.core.engine import Engine
from pellucid.core.errors import CannotDo
from pellucid.core.masking import free_bytes
from pellucid.core.model import Inputs, Model
from pellucid.engines.sample import Sample

_MOST = 256
_SHARE = 0.4  # of the free memory: a graph keeps its own
_WARM = 3  # runs before recording, as torch asks for


@dataclass(frozen=True, eq=False)
class CudaGraphEngine(Engine):
    """The module, recorded once for a fixed number of items and replayed.

    Args:
        model: whose module was recorded; its weights are read anew at each replay.
        graph: recorded.
        given: memory that the graph reads.
        output: memory that it writes.
    """

    model: Model = field(kw_only=True, repr=False)
    graph: Any = field(kw_only=True, repr=False)
    given: Mapping[str, Tensor] = field(kw_only=True, repr=False)
    output: Tensor = field(kw_only=True, repr=False)

    def _run(self, inputs: Inputs) -> Tensor:
        for name, memory in self.given.items():
            memory.copy_(inputs[name])
        self.graph.replay()
        return self.output.clone()


def cuda_graph(sample: Sample) -> CudaGraphEngine:
    """Up to 256 items at once, as many as fit into the free memory.

    No machine of ours with a graphics card has run it: it is used only where its self-check passes.

    Raises:
        CannotDo: the model is not on a graphics card.
    """
    model, inputs = sample.model, sample.inputs
    if model.device.type != "cuda":
        raise CannotDo("the model is not on a graphics card", "put it there with --device cuda")
    each = max(1, model.activation_bytes(inputs))
    batch = model.can.batch or max(1, min(_MOST, int(_SHARE * free_bytes(model.device) / each)))
    given = {k: v[:1].to(model.device).repeat(batch, *(1,) * (v.ndim - 1)) for k, v in inputs.items()}
    with model.held(), torch.no_grad(), torch.cuda.device(model.device):
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM):
                model({k: v.clone() for k, v in given.items()})
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = model({k: v.clone() for k, v in given.items()})
    return CudaGraphEngine("cuda", "float32", batch, True, model=model, graph=graph, given=given, output=output)
