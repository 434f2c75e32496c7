"""ONNX as a black box: what goes in and what comes out, and nothing between."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.core.errors import BadCard, CannotDo, MissingExtra, ModelError, ShapeMismatch
from pellucid.core.model import Abilities, Model
from pellucid.io.loaders.bare import Port, fixed_batch, output_of, specs_of
from pellucid.io.loaders.parts import Origin, Parts
from pellucid.io.loaders.trial import find_sample, tried

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_ELSEWHERE = b"\x0a\x08location\x12"  # TensorProto.external_data: an entry with the key "location"
_WHY = {
    "gradient": "onnxruntime computes outputs only",
    "hooks": "onnxruntime does not show its layers",
    "edits": "onnxruntime does not show its layers",
    "rules": "onnxruntime does not show its operations",
}


class OnnxModule(nn.Module):
    """An onnxruntime session as a module without parameters.

    Args:
        session: with its model.
        names: of its inputs, in the order of the arguments.
        kinds: number type of each.
    """

    def __init__(self, session: Any, names: tuple[str, ...], kinds: tuple[type, ...]) -> None:
        super().__init__()
        self.session, self.names, self.kinds = session, names, kinds
        self.outputs = tuple(o.name for o in session.get_outputs())

    def forward(self, *tensors: Tensor) -> Tensor | dict[str, Tensor]:
        """Outputs as float32 on the device of the inputs; several as a dict by name."""
        feed = {
            name: np.ascontiguousarray(t.detach().cpu().numpy().astype(kind, copy=False))
            for name, kind, t in zip(self.names, self.kinds, tensors, strict=True)
        }
        try:
            arrays = self.session.run(list(self.outputs), feed)
        except Exception as error:  # onnxruntime's errors share no base of their own
            raise ShapeMismatch(
                f"onnxruntime: {' '.join(str(error).split())[:200]}", "give the stated shape"
            ) from error
        found = {
            name: torch.from_numpy(np.asarray(a)).to(tensors[0].device)
            for name, a in zip(self.outputs, arrays, strict=True)
        }
        return next(iter(found.values())) if len(found) == 1 else found

    def __deepcopy__(self, memo: Mapping[int, object]) -> "OnnxModule":
        raise CannotDo("an ONNX model cannot be copied or randomized", "load the original module")


def load_onnx(origin: Origin) -> Parts:
    """Open an ONNX file; its graph is data, so it needs no trust.

    Raises:
        MissingExtra: onnxruntime is not installed.
        ModelError: damaged, or with operations that this onnxruntime does not know.
        BadCard: its inputs are not those of the card.
    """
    session = _session(origin)
    ports = _matched(origin, _ports(session))
    inputs = specs_of(origin, ports)
    kinds = tuple(_kind(origin, i.type) for i in session.get_inputs())
    by_name = {i.name: kind for i, kind in zip(session.get_inputs(), kinds, strict=True)}
    module = OnnxModule(session, tuple(p.name for p in ports), tuple(by_name[p.name] for p in ports)).eval()
    draft, _ = output_of(origin, None)
    can = Abilities(gradient=False, hooks=False, edits=False, rules=False, batch=fixed_batch(ports), why=_WHY)
    model = Model(module, inputs, draft, can=can)
    sample = find_sample(model)
    if isinstance(sample, str):
        raise ModelError(f"{origin.path.name} runs on no input of the stated shape: {sample}", "correct the inputs")
    output, notes = output_of(origin, sample.output)
    return Parts(module, inputs, output, tried(model, sample), notes=notes, channels=sample.output.shape[1])


def _session(origin: Origin) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("an ONNX model needs onnxruntime", "pip install 'pellucid[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    content = origin.path.read_bytes()
    if _ELSEWHERE in content:
        raise ModelError(
            f"{origin.path.name} keeps weights in another file, which its SHA-256 does not cover",
            "save it whole: torch.onnx.export(..., external_data=False)",
        )
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base of their own
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{origin.path.name} cannot be opened by onnxruntime: {reason}", "export it again") from error


def _kind(origin: Origin, text: str) -> type:
    if text not in _TYPES:
        raise ModelError(f"{origin.path.name} takes a {text}, expected floating-point numbers", "export it without")
    return _TYPES[text]


def _ports(session: Any) -> list[Port]:
    return [Port(i.name, tuple(n if isinstance(n, int) else None for n in i.shape)) for i in session.get_inputs()]


def _matched(origin: Origin, ports: list[Port]) -> list[Port]:
    """The session's inputs in the card's order: by name where the names agree, a single one also without."""
    if origin.card is None:
        return ports
    wanted = [s.name for s in origin.card.inputs]
    by_name = {p.name: p for p in ports}
    if set(wanted) == set(by_name):
        return [by_name[n] for n in wanted]
    if len(wanted) == len(ports) == 1:
        return ports
    raise BadCard(
        f"inputs: the card names {wanted}, the ONNX file takes {list(by_name)}", "use the file's names in the card"
    )
