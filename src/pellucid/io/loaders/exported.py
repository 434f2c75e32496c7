"""``torch.export`` archives (.pt2), unflattened so that layers have their names back and hooks are called."""

import io
import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass
from torch.fx import Node

from pellucid.core.errors import CannotDo, ModelError
from pellucid.core.model import Abilities, Model
from pellucid.io.loaders.bare import Port, fixed_batch, output_of, specs_of
from pellucid.io.loaders.parts import Origin, Parts
from pellucid.io.loaders.trial import find_sample, tried
from pellucid.io.trust import sha256_of

_WHY = {
    "rules": "an exported graph calls aten operations, while rules name the torch functions that led to them",
}
_TRAINING = {  # operation: position of the argument that says "training"
    "dropout": 2,
    "dropout_": 2,
    "feature_dropout": 2,
    "alpha_dropout": 2,
    "native_dropout": 2,
    "batch_norm": 5,
    "native_batch_norm": 5,
    "_native_batch_norm_legit": 5,
    "_native_batch_norm_legit_functional": 5,
    "cudnn_batch_norm": 5,
}


def load_exported(origin: Origin) -> Parts:
    """Load an exported program.

    Its plain ``.module()`` would have dead hooks; the unflattened one has live ones, which is tried here. A batch size
    or image size that was fixed when exporting stays fixed.

    Raises:
        Untrusted: nobody said that it may be loaded (torch unpickles parts of the archive).
        ModelError: damaged, of another version, or exported in training mode.
    """
    code = {**origin.code, origin.path.name: sha256_of(origin.path)}
    trust = origin.gate.admit(origin.name, "torch unpickles parts of a .pt2 archive", code)
    program = _read(origin)
    _check_evaluation(program, origin)
    ports = _ports(program)
    inputs = specs_of(origin, ports)
    module = _unflattened(program, origin)
    call = origin.card.model.call if origin.card is not None else "positional"
    draft, _ = output_of(origin, None)
    can = Abilities(rules=False, batch=fixed_batch(ports), why=_WHY)
    model = Model(module, inputs, draft, can=can, call=call)
    sample = find_sample(model)
    if isinstance(sample, str):
        raise ModelError(f"{origin.path.name} runs on no input of the stated shape: {sample}", "correct the inputs")
    output, notes = output_of(origin, sample.output)
    channels = sample.output.shape[1]
    return Parts(module, inputs, output, tried(model, sample), call, trust, notes, channels=channels)


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Without torch's warnings about its own internals, and its log lines about older archives."""
    log = logging.getLogger("torch")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _read(origin: Origin) -> ExportedProgram:
    try:
        with _quiet():
            program = torch.export.load(io.BytesIO(origin.path.read_bytes()))
            return move_to_device_pass(program, origin.device) if origin.device.type != "cpu" else program
    except Exception as error:  # a damaged archive makes torch raise errors of any kind
        reason = " ".join(str(error).split())[:160]
        raise ModelError(
            f"{origin.path.name} cannot be read by torch {torch.__version__}: {reason}",
            "export it again with this version of torch",
        ) from error


def _unflattened(program: ExportedProgram, origin: Origin) -> nn.Module:
    try:
        with _quiet():
            module = torch.export.unflatten(program)
    except Exception as error:  # torch has no error of its own for graphs that it cannot unflatten
        reason = " ".join(str(error).split())[:160]
        raise CannotDo(
            f"{origin.path.name} cannot be brought back to its layers: {reason}", "load the original module"
        ) from error
    for part in module.modules():
        part.training = False  # train() and eval() are refused by exported modules; what is fixed was checked
    return module


def _check_evaluation(program: ExportedProgram, origin: Origin) -> None:
    for node in program.graph.nodes:
        if node.op == "call_function" and _trains(node):
            raise ModelError(
                f"{origin.path.name} was exported in training mode (layer {node.name})",
                "call model.eval() before torch.export.export",
            )


def _trains(node: Node) -> bool:
    name = str(getattr(node.target, "_opname", ""))
    position = _TRAINING.get(name)
    if position is None:
        return False
    value = node.args[position] if len(node.args) > position else node.kwargs.get("training", node.kwargs.get("train"))
    return value is True


def _ports(program: ExportedProgram) -> list[Port]:
    wanted = list(program.graph_signature.user_inputs)
    by_name = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    ports = []
    for name in wanted:
        value = by_name[name].meta.get("val") if name in by_name else None
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"the exported program takes {name!r}, which is no tensor", "export it with tensors only")
        ports.append(Port(name, tuple(n if isinstance(n, int) else None for n in value.shape)))
    return ports
