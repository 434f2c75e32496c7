"""A model as a clinic knows it: a module with its inputs, labels, layers, limits and identity."""

import hashlib
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pellucid.core.card import Task
from pellucid.core.errors import BadCard, CannotDo, ShapeMismatch, UnknownLayer
from pellucid.core.layers import LayerName, LayerShape, trace
from pellucid.core.portions import in_parts
from pellucid.core.prepare import InputSpec
from pellucid.core.windows import SlidingWindows

Inputs = Mapping[str, Tensor]
_Shapes = tuple[tuple[int, ...], ...]
_FORMATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True)
class Abilities:
    """What a model can do, and why not where it cannot.

    Args:
        gradient: differentiable with respect to its inputs.
        hooks: layers can be read by name.
        edits: layers can be changed on the way.
        rules: operations can be replaced (guided backpropagation, LRP).
        batch: the fixed batch size, or None for any.
        why: reason by ability, for those it lacks.
    """

    gradient: bool = True
    hooks: bool = True
    edits: bool = True
    rules: bool = True
    batch: int | None = None
    why: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OutputSpec:
    """The model's output.

    Args:
        task: what the model does.
        labels: names of the classes in order; two names for a single logit (negative first).
        activation: turns the head into model scores: ``softmax`` or ``sigmoid`` on logits, ``none`` where the head
            already is a probability or a measured value.
        unit: of the head: ``logit``, ``probability`` or that of the measured value.
        head: what to take from a tuple, list or dict output; None: the output itself.
        operating_point: by label, the head value from which the model says yes.

    Example:
        >>> OutputSpec(labels=("no", "yes"), activation="sigmoid").scores(torch.zeros(1, 1))
        tensor([[0.5000, 0.5000]])
    """

    task: Task = "classification"
    labels: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    unit: str = "logit"
    head: str | int | None = None
    operating_point: Mapping[str, float] = field(default_factory=dict)

    def scores(self, output: Tensor) -> Tensor:
        """Model scores of "batch class *space"; a single logit for two labels becomes two scores."""
        if self.activation == "softmax" and output.shape[1] > 1:
            return output.float().softmax(1)
        out = output.float() if self.activation == "none" else output.float().sigmoid()
        return torch.cat([1 - out, out], 1) if out.shape[1] == 1 and len(self.labels) == 2 else out

    def predicted(self, output: Tensor) -> Tensor:
        """Where each class of a segmentation is predicted, "batch class *space".

        One class a voxel, the largest; with a sigmoid over several channels classes may overlap, and with a single
        channel there is one: both count from the even point (logit 0, score one half).
        """
        if output.shape[1] == 1 or self.activation == "sigmoid":
            return output > (0.5 if self.unit == "probability" else 0.0)
        classes = torch.arange(output.shape[1], device=output.device).view(1, -1, *(1,) * (output.ndim - 2))
        return output.argmax(1, keepdim=True) == classes


@dataclass(frozen=True)
class Identity:
    """Which model this is, for the report and the audit record.

    Args:
        name: of the model.
        version: as its makers count.
        digest: SHA-256 of the weights.
        card: SHA-256 of the model card; empty without one.
    """

    name: str = "unnamed model"
    version: str = ""
    digest: str = ""
    card: str = ""


@dataclass(frozen=True, eq=False)
class Model:
    """A module with what Pellucid must know to explain it; the module itself is never changed.

    Args:
        module: in any mode, on any device.
        inputs: in the order of the module's arguments.
        output: what comes out.
        identity: name, version, hashes.
        can: abilities.
        layer: default layer for methods that need one; None: found by a trace.
        call: inputs are passed ``positional``, ``keyword`` or as one ``dict``.
        inference: how images larger than the network's input are predicted; None: they go in whole.
        findings: about the module, by what was asked; each is made once, by who asks.

    Example:
        >>> model = Model(nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        >>> model.resolve(None, {"image": torch.zeros(1, 1, 8, 8)})
        '0'
    """

    module: nn.Module
    inputs: tuple[InputSpec, ...] = (InputSpec(),)
    output: OutputSpec = field(default_factory=OutputSpec)
    identity: Identity = field(default_factory=Identity)
    can: Abilities = field(default_factory=Abilities)
    layer: str | None = None
    call: Literal["positional", "keyword", "dict"] = "positional"
    inference: SlidingWindows | None = None
    findings: dict[tuple[object, ...], Any] = field(default_factory=dict, repr=False)
    _traces: dict[_Shapes, tuple[LayerShape, ...]] = field(default_factory=dict, repr=False)
    _defaults: dict[_Shapes, str] = field(default_factory=dict, repr=False)
    _lock: Any = field(default_factory=threading.RLock, repr=False)

    @property
    def rank(self) -> int:
        """Spatial axes of the first image input."""
        return next((s.rank for s in self.inputs if s.rank), 0)

    @property
    def primary(self) -> str:
        """Name of the first image input, on whose grid layer maps are drawn."""
        return next((s.name for s in self.inputs if s.rank), self.inputs[0].name)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights: the declared one, or computed from the parameters and buffers."""
        if self.identity.digest:
            return self.identity.digest
        total = hashlib.sha256()
        for name, value in self.module.state_dict().items():
            if isinstance(value, Tensor):
                plain = value.detach().cpu().contiguous()
                total.update(f"{name}{plain.dtype}{tuple(plain.shape)}".encode())
                total.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        return total.hexdigest()

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        first = next(iter(self.module.parameters()), None)
        return first.device if first is not None else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype | None:
        """Number format of the parameters, which inputs are cast to; None without parameters to go by."""
        return next((p.dtype for p in self.module.parameters() if p.dtype in _FORMATS), None)

    @property
    def window(self) -> "Model":
        """The network as it sees one window; the model itself where images go in whole."""
        return self if self.inference is None else replace(self, inference=None)

    def __call__(self, inputs: Inputs) -> Tensor:
        """The head's output, of windows blended; a fixed batch size is met by cutting and padding."""
        if self.inference is not None:
            return self.inference.of(inputs).blend(self.window, inputs)
        missing = [s.name for s in self.inputs if s.name not in inputs]
        if missing:
            raise ShapeMismatch(
                f"the model takes inputs {[s.name for s in self.inputs]}, got {list(inputs)}", f"add {missing}"
            )
        if self.can.batch is None:
            return self._head(self._invoke(inputs))
        return in_parts(lambda part: self._head(self._invoke(part)), inputs, self.can.batch, fixed=True)

    def _invoke(self, inputs: Inputs) -> Any:
        dtype = self.dtype
        ordered = {s.name: inputs[s.name] for s in self.inputs}
        ordered = {k: v.to(dtype) if v.is_floating_point() else v for k, v in ordered.items()}
        if self.call == "dict":
            return self.module(ordered)
        return self.module(**ordered) if self.call == "keyword" else self.module(*ordered.values())

    def _head(self, output: Any) -> Tensor:
        key = self.output.head
        if key is not None:
            try:
                output = output[key]
            except (KeyError, IndexError, TypeError) as error:
                raise BadCard(f"the output has no {key!r}: {_describe(output)}", "correct output.head") from error
        if not isinstance(output, Tensor):
            raise BadCard(
                f"expected a tensor from the model, got {_describe(output)}", "set output.head to one of these"
            )
        return output

    def check(self, inputs: Inputs) -> None:
        """Refuse inputs that the module would stumble over.

        Raises:
            ShapeMismatch: an input is missing, or of another rank, channel count or batch.
        """
        for spec in self.inputs:
            if spec.name not in inputs:
                raise ShapeMismatch(
                    f"the model takes inputs {[s.name for s in self.inputs]}, got {list(inputs)}", f"add {spec.name!r}"
                )
            shape = tuple(inputs[spec.name].shape)
            if len(shape) != spec.rank + 2 or shape[1] != spec.channels:
                axes = ", ".join(("batch", f"{spec.channels} channel(s)", *(["space"] * spec.rank)))
                raise ShapeMismatch(
                    f"the model's input {spec.name!r} expects ({axes}), got {shape}",
                    "put batch and channel first and match the channel count",
                )
        counts = {name: len(x) for name, x in inputs.items()}
        if len(set(counts.values())) > 1 or not all(counts.values()):
            raise ShapeMismatch(
                f"expected as many items in every input, at least one, got {counts}", "match the batch axis"
            )
        if self.inference is not None:
            self.inference.check(tuple(inputs[s.name].shape) for s in self.inputs if s.rank)

    def check_able(self, wanted: Mapping[str, bool]) -> None:
        """Refuse what the module cannot do.

        Args:
            wanted: of ``gradient``, ``hooks``, ``edits`` and ``rules``, whether it is needed.

        Raises:
            CannotDo: with the reason.
        """
        can, tensors = self.can, chain(self.module.parameters(), self.module.buffers())
        if wanted["gradient"] and any(t.is_inference() for t in tensors):
            raise CannotDo(
                "the model was made under torch.inference_mode, which forbids gradients for good",
                "make it outside inference_mode, or use a perturbation method (Occlusion)",
            )
        has = {"gradient": can.gradient, "hooks": can.hooks, "edits": can.edits, "rules": can.rules}
        for ability, needed in wanted.items():
            if needed and not has[ability]:
                why = can.why.get(ability, "its format hides it")
                raise CannotDo(
                    f"the method needs {ability} and this model has none: {why}",
                    "use a perturbation method (Occlusion), or load the model as a Python module",
                )

    def layers(self, inputs: Inputs) -> tuple[LayerShape, ...]:
        """Every layer with the shape of its output, in order; traced once per input (or window) shape.

        Raises:
            ShapeMismatch: the inputs are not the model's.
            CannotDo: the model does not show its layers.
        """
        self.check(inputs)
        if not self.can.hooks:
            raise CannotDo("this model does not show its layers", self.can.why.get("hooks", "load the original module"))
        key = self._shapes(inputs)
        if key not in self._traces:
            one = self.seen({k: v[:1].to(self.device) for k, v in inputs.items()})
            with self.held(), torch.no_grad():
                self._traces[key] = trace(self.module, lambda: self.window(one))
        return self._traces[key]

    def resolve(self, layer: str | None, inputs: Inputs) -> str:
        """The full name of a layer; None: the one best suited for maps.

        That is the card's, else for a classifier the last layer with spatial extent, for a segmentation the last at
        the coarsest resolution (the last layer of all would be the output itself).

        Raises:
            UnknownLayer: no such layer, or it has no spatial extent; the message lists those that have.
        """
        layer = layer or self.layer
        if layer is not None:
            found = self.find(layer, inputs)
            if found.extent(self.rank) <= 1:
                raise UnknownLayer(
                    f"layer {layer!r} has no spatial extent ({found.shape})",
                    f"layers with it: {self._spatial_names(inputs)}",
                )
            return layer
        self.check(inputs)
        key = self._shapes(inputs)
        if key not in self._defaults:  # every method of a panel asks, and a network has hundreds of layers
            self._defaults[key] = self._best(self._spatial(inputs))
        return self._defaults[key]

    def seen(self, inputs: Inputs) -> Inputs:
        """What the network sees at once: the inputs, or their first window."""
        if self.inference is None:
            return inputs
        layout = self.inference.of(inputs)
        return layout.part({k: layout.pad(v) for k, v in inputs.items()}, layout.starts[0])

    def _shapes(self, inputs: Inputs) -> _Shapes:
        size = self.inference.size if self.inference is not None else None
        return tuple(
            (1, *(inputs[s.name].shape[1:2]), *(size if size and s.rank else inputs[s.name].shape[2:]))
            for s in self.inputs
        )

    def _best(self, spatial: list[LayerShape]) -> str:
        # weights of attention (batch, head, token, token) look spatial, and end in one of these
        fit = [s for s in spatial if s.kind not in ("Dropout", "Softmax")]
        if not fit:
            raise UnknownLayer("the model has no layer with spatial extent", "use a gradient or perturbation method")
        rank = self.rank
        smallest = min(s.extent(rank) for s in fit)
        coarse = [s for s in fit if self.output.task != "segmentation" or s.extent(rank) == smallest]
        return coarse[-1].name

    def find(self, layer: str, inputs: Inputs) -> LayerShape:
        """A layer by its full name, with or without spatial extent.

        Raises:
            UnknownLayer: there is none of this name; the message lists calls or layers that could be meant.
        """
        shapes = self.layers(inputs)
        for shape in shapes:
            if shape.name == layer:
                return shape
        calls = [s.name for s in shapes if LayerName.parse(s.name).path == LayerName.parse(layer).path]
        mend = (
            f"it is called or returns several times: pass one of {', '.join(calls)}"
            if calls
            else (f"layers: {self._spatial_names(inputs)}. Pass one of these, or None for the default")
        )
        raise UnknownLayer(f"layer {layer!r} is not in the model", mend)

    def _spatial(self, inputs: Inputs) -> list[LayerShape]:
        rank = self.rank
        return [s for s in self.layers(inputs) if s.extent(rank) > 1]

    def _spatial_names(self, inputs: Inputs) -> str:
        return ", ".join(dict.fromkeys(s.name for s in self._spatial(inputs))) or "none"

    def check_edit(self, layer: str, inputs: Inputs) -> None:
        """Refuse the name of a layer to be edited that no call would match: the edit would do nothing in silence.

        Raises:
            UnknownLayer: no such layer, call or element.
        """
        wanted = LayerName.parse(layer)
        known = [LayerName.parse(s.name) for s in self.layers(inputs)]
        calls = [n for n in known if n.path == wanted.path and n.element == wanted.element]
        if not any(wanted.call in (None, n.call or 1) for n in calls):
            listing = ", ".join(s.name for s in self.layers(inputs))
            raise UnknownLayer(f"layer {layer!r} is not in the model", f"layers: {listing}. Pass one of these")

    def activation_bytes(self, inputs: Inputs) -> int:
        """Bytes of all layer outputs for one item (in one window): what a batch costs in memory, roughly."""
        if not self.can.hooks:
            return 100 * sum(v[:1].numel() * v.element_size() for v in inputs.values())
        return 4 * sum(prod(s.shape) for s in self.layers(inputs))

    @contextmanager
    def held(self) -> Generator[None, None, None]:
        """Run in evaluation mode and give back training flags and random state as they were, also after an error."""
        cuda = [self.device] if self.device.type == "cuda" else []
        # inference_mode(False): a caller may be inside inference_mode, where no gradient can be taken
        with self._lock, torch.random.fork_rng(devices=cuda), torch.inference_mode(False):
            training = [m for m in self.module.modules() if m.training]  # under the lock: no other thread's are read
            try:
                for m in training:
                    m.training = False  # not eval(): a module may override train() with a change of its own
                yield
            finally:
                for m in training:
                    m.training = True


def _describe(output: object) -> str:
    if isinstance(output, Mapping):
        return f"a dict with {list(output)}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"
