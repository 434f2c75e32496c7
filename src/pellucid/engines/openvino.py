"""OpenVINO: the fastest engine on a processor, in float32, bfloat16 and int8."""

import io
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pellucid.core.engine import Engine
from pellucid.core.errors import CannotDo, MissingExtra
from pellucid.core.model import Inputs, Model
from pellucid.engines.sample import Sample
from pellucid.engines.tracing import Headed, arrays, example, exporting, group_instances

_USUAL = 8
_TELEMETRY = "openvino_telemetry"


@dataclass(frozen=True, eq=False)
class OpenVinoEngine(Engine):
    """A graph compiled by OpenVINO.

    Args:
        model: whose inputs it takes.
        request: compiled.
    """

    model: Model = field(kw_only=True, repr=False)
    request: Any = field(kw_only=True, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False, kw_only=True)

    def _run(self, inputs: Inputs) -> Tensor:
        with self._lock:  # the output is the request's own memory
            found = self.request.infer(dict(enumerate(arrays(self.model, inputs))))
            return torch.from_numpy(found[0].copy())


def openvino_float32(sample: Sample) -> OpenVinoEngine:
    """In float32: what differs from the module is the order of summation.

    Raises:
        MissingExtra: OpenVINO is not installed.
    """
    return _compiled(sample.model, _graph(sample, exact=True), "openvino", "float32", "f32")


def openvino_bfloat16(sample: Sample) -> OpenVinoEngine:
    """With bfloat16 where OpenVINO finds it harmless.

    Raises:
        MissingExtra: OpenVINO is not installed.
        CannotDo: the processor computes no bfloat16.
    """
    if "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise CannotDo("this processor has no bfloat16 arithmetic", "use another engine")
    return _compiled(sample.model, _graph(sample), "openvino-bf16", "bfloat16", "bf16")


def openvino_int8(sample: Sample) -> OpenVinoEngine:
    """Weights and activations in 8 bits, quantized by NNCF on a few masked copies of the first image explained.

    Raises:
        MissingExtra: OpenVINO or NNCF is not installed.
    """
    with _unobserved():
        try:
            import nncf
        except ImportError as error:
            raise _missing() from error
    graph, model, calibration = _graph(sample), sample.model, sample.calibration()
    size = model.can.batch or 1
    count = max(1, len(next(iter(calibration.values()))) // size)
    parts = [{k: v[i * size : (i + 1) * size] for k, v in calibration.items()} for i in range(count)]
    items = [tuple(arrays(model, part)) for part in parts]
    nncf.set_log_level(logging.ERROR)
    with redirect_stdout(io.StringIO()):  # it draws progress bars
        quantized = nncf.quantize(
            graph,
            nncf.Dataset([i[0] if len(i) == 1 else i for i in items]),
            subset_size=len(items),
        )
    return _compiled(model, quantized, "openvino-int8", "8-bit integers", "f32")


def _graph(sample: Sample, exact: bool = False) -> Any:
    """The model as OpenVINO has it.

    Its front end is asked itself, because ``openvino.convert_model`` reports its use to its makers. ``exact``: instance
    normalization in five digits, where OpenVINO has four (measured; effects of the demo's hippocampus erred by 3e-4).
    """
    _core()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    model = sample.model
    with exporting(model):
        given = example(model, sample.inputs)
        headed = Headed(model).eval()
        if exact:
            group_instances(headed)
        decoder = TorchScriptPythonDecoder(headed, example_input=given)
        front = FrontEndManager().load_by_framework("pytorch")
        graph = front.convert(front.load(decoder))
    if len(graph.inputs) != len(given):
        raise CannotDo("OpenVINO dropped an input that the network does not use", "use another engine")
    batch = model.can.batch or -1
    graph.reshape({i: [batch, *x.shape[1:]] for i, x in enumerate(given)})
    return graph


def _compiled(model: Model, graph: Any, name: str, precision: str, hint: str) -> OpenVinoEngine:
    settings = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = _core().compile_model(graph, "CPU", settings).create_infer_request()
    batch = model.can.batch
    return OpenVinoEngine(name, precision, batch or _USUAL, batch is not None, model=model, request=request)


def _core() -> Any:
    with _unobserved():
        try:
            import openvino
        except ImportError as error:
            raise _missing() from error
    return openvino.Core()


def _missing() -> MissingExtra:
    return MissingExtra("this engine needs OpenVINO and NNCF", "pip install 'pellucid[openvino]'")


@contextmanager
def _unobserved() -> Iterator[None]:
    """Import without the package through which OpenVINO and NNCF report their use over the network."""
    kept = sys.modules.get(_TELEMETRY)
    if kept is None:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment] -- an import of it then fails, and they do without
    try:
        yield
    finally:
        if kept is None:
            del sys.modules[_TELEMETRY]
