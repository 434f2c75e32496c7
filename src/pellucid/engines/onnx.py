"""ONNX Runtime: exact, and on many processors faster than torch."""

import io
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pellucid.core.engine import Engine
from pellucid.core.errors import MissingExtra
from pellucid.core.model import Inputs, Model
from pellucid.engines.sample import Sample
from pellucid.engines.tracing import Headed, arrays, example, exporting

_USUAL = 8
_OPSET = 17


@dataclass(frozen=True, eq=False)
class OnnxEngine(Engine):
    """A session of ONNX Runtime.

    Args:
        model: whose inputs it takes.
        session: on the processor.
    """

    model: Model = field(kw_only=True, repr=False)
    session: Any = field(kw_only=True, repr=False)

    def _run(self, inputs: Inputs) -> Tensor:
        names = [s.name for s in self.model.inputs]
        given = dict(zip(names, arrays(self.model, inputs), strict=True))
        return torch.from_numpy(self.session.run(None, given)[0])


def onnx_float32(sample: Sample) -> OnnxEngine:
    """In float32: what differs from the module is the order of summation.

    Raises:
        MissingExtra: onnxruntime or onnx is not installed.
    """
    try:
        import onnx  # noqa: F401 -- the exporter of torch needs it
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("this engine needs onnxruntime and onnx", "pip install 'pellucid[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(_exported(sample), options, providers=["CPUExecutionProvider"])
    model = sample.model
    batch = model.can.batch
    return OnnxEngine("onnx", "float32", batch or _USUAL, batch is not None, model=model, session=session)


def _exported(sample: Sample) -> bytes:
    model = sample.model
    names = [s.name for s in model.inputs]
    free = {} if model.can.batch else {name: {0: "items"} for name in (*names, "head")}
    content = io.BytesIO()
    with exporting(model):
        torch.onnx.export(
            Headed(model).eval(),
            example(model, sample.inputs),
            content,
            input_names=names,
            output_names=["head"],
            opset_version=_OPSET,
            dynamic_axes=free,
            dynamo=False,
        )
    return content.getvalue()
