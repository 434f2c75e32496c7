"""One model, one batch, one or more targets: every evaluation is made here, counted here and kept here."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from pellucid.core.attention import Heeded
from pellucid.core.card import GRADIENTS, Ask, Cost
from pellucid.core.engine import Engine
from pellucid.core.errors import BadOption, CannotDo
from pellucid.core.evaluation import Pass, Spent, Work, check_finite, evaluate
from pellucid.core.grid import Grid
from pellucid.core.infill import Constant, Infill, ItemMean
from pellucid.core.layers import Edit
from pellucid.core.model import Inputs, Model
from pellucid.core.replay import Recording
from pellucid.core.rules import Rulebook, Rules
from pellucid.core.target import BoundTarget, Target
from pellucid.core.windowed import by_window, evaluate_windows, whole

Need = tuple[Ask, str | None]


@dataclass(frozen=True, eq=False)
class Retrained:
    """Another model of the same task.

    Args:
        model: with the same labels.
        inputs: the case as it takes it; None: as this model does.
        onto: brings its maps, "batch *space", to this model's grid; None: they are on it.
        scene: of its inputs; None: this model's.
    """

    model: Model
    inputs: Inputs | None = None
    onto: Callable[[Tensor], Tensor] | None = None
    scene: "Scene | None" = None


@dataclass(frozen=True, eq=False)
class Scene:
    """What surrounds the inputs: where they lie, what is marked in them, and what may replace a hidden part.

    Args:
        grids: the network's grid of each input; missing: pixels.
        regions: masks "*space" on the primary input's grid.
        infills: what stands for absence when a method or metric is not told otherwise: the first is the default, the
            spread between the first two is shown (a fill can paint disease).
        affine: per input, (shift, scale) per channel: network value = (value in image unit - shift) / scale.
        seed: of everything random.
        background: reference items by input, "item channel *space" in network units (normal cases, say), the same
            number for every input; None: no cohort is at hand.
        fills: what stands at each voxel when it is hidden, where the scene is one window of a larger image, whose mean
            or blur it is; None: it follows from the inputs.
        before_s: seconds that the case took before the first pass, by step (reading, preparing); those not in it are
            not known.
        retrained: other models of the same task.
        readers: masks "*space" of the same finding by each of several readers, on the primary input's grid.
    """

    grids: Mapping[str, Grid] = field(default_factory=dict)
    regions: Mapping[str, Tensor] = field(default_factory=dict)
    infills: tuple[Infill, ...] = (Constant(), ItemMean())
    affine: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)
    seed: int = 0
    background: Mapping[str, Tensor] | None = None
    fills: Callable[[Infill], Mapping[str, Tensor]] | None = None  # of a window
    retrained: tuple[Retrained, ...] = ()
    before_s: Mapping[str, float] = field(default_factory=dict)
    readers: Mapping[str, Tensor] = field(default_factory=dict)


class Probe:
    """Evaluate ``target(model(x))`` and its gradients for a batch; the only caller of the module.

    The *shared* pass is made at the first question, once, whatever asks and targets were announced. ``score`` and
    ``gradient`` evaluate other inputs (perturbed, interpolated) and are counted apart.

    Args:
        model: never changed.
        inputs: by name, "batch channel *space" in network units; a tensor for a model with one input.
        targets: one or several; ``at(i)`` aims at the i-th.
        needs: what methods will ask of the shared pass, as ``explainer.needs(model)`` gives it.
        scene: grids, regions, infill, seed.
        precision: ``float32`` (as the module is) or ``bfloat16`` (autocast).
        engine: evaluates what ``score`` is asked; None: the module does.

    Raises:
        CannotDo: the model lacks an ability that is asked for.

    Example:
        >>> import torch
        >>> from pellucid.core.target import ClassScore
        >>> model = Model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)))
        >>> probe = Probe(model, torch.rand(1, 1, 4, 4), [ClassScore(0), ClassScore(2)], [(Ask.INPUT_GRADIENT, None)])
        >>> probe.at(1).input_gradient["image"].shape, probe.spent.shared
        (torch.Size([1, 1, 4, 4]), Cost(forwards=1, backwards=2))
    """

    def __init__(
        self,
        model: Model,
        inputs: Inputs | Tensor,
        targets: Target | Iterable[Target],
        needs: Iterable[Need] = (),
        scene: Scene | None = None,
        precision: str = "float32",
        engine: Engine | None = None,
    ) -> None:
        if precision not in ("float32", "bfloat16"):
            raise BadOption(f"expected precision float32 or bfloat16, got {precision!r}", "choose one of these")
        named = {model.primary: inputs} if isinstance(inputs, Tensor) else dict(inputs)
        self.model = model
        self.inputs = {k: v.detach().to(model.device) for k, v in named.items()}
        model.check(self.inputs)
        self.targets = (targets,) if isinstance(targets, Target) else tuple(targets)
        self.scene = scene or Scene()
        self.precision = precision
        self.engine = engine
        self.spent = Spent()
        self.aim = 0
        self._needs = frozenset((ask, model.find(name, self.inputs).name if name else name) for ask, name in needs)
        self._kept: dict[str, Any] = {}
        self._checking = False

    # the shared pass -------------------------------------------------------------------------------------------------

    @property
    def batch(self) -> int:
        """Items explained at once."""
        return len(next(iter(self.inputs.values())))

    @property
    def target(self) -> BoundTarget:
        """The target aimed at, bound at the unperturbed input."""
        return self._bound()[self.aim]

    @property
    def grid(self) -> Grid:
        """The network's grid of the primary input."""
        name = self.model.primary
        return self.scene.grids.get(name) or Grid.regular(self.inputs[name].shape[2:])

    def at(self, index: int) -> "Probe":
        """The same probe, aimed at another target; passes and counts are shared."""
        return self._twin(aim=index)

    def checking(self) -> "Probe":
        """The same probe; what its own passes cost is counted as calculation checks, apart from the methods."""
        return self._twin(_checking=True)

    def through(self, engine: Engine | None) -> "Probe":
        """The same probe; ``score`` goes through the engine."""
        return self._twin(engine=engine)

    def _twin(self, **changed: Any) -> "Probe":
        other = object.__new__(Probe)
        other.__dict__.update(self.__dict__, **changed)
        return other

    def on(self, model: Model, needs: Iterable[Need] | None = None) -> "Probe":
        """A fresh probe of another model (randomized weights, say) with the targets bound on this one, no engine.

        Args:
            model: takes the same inputs.
            needs: of a model with other layers; None: this probe's.
        """
        asked = self._needs if needs is None else needs
        other = Probe(model, self.inputs, self.targets, asked, self.scene, self.precision)
        other.aim = self.aim
        other._kept["bound"] = self._bound()
        return other

    def elsewhere(self, inputs: Inputs, needs: Iterable[Need] = ()) -> "Probe":
        """A fresh probe at other inputs, opened for ``needs`` too, with the targets bound on this one, no engine."""
        other = Probe(self.model, inputs, self.targets, self._needs.union(needs), self.scene, self.precision)
        other.aim = self.aim
        other._kept["bound"] = self._bound()
        return other

    @property
    def baseline_score(self) -> Float[Tensor, " batch"]:
        """The target's value at the unperturbed input."""
        return self._shared().score[self.aim]

    @property
    def output(self) -> Tensor:
        """The head's output at the unperturbed input."""
        return self._shared().output

    @property
    def input_gradient(self) -> Mapping[str, Tensor]:
        """Gradient of the target with respect to each input."""
        self._announced(Ask.INPUT_GRADIENT, None)
        return self._shared().input_gradient[self.aim]

    def activation(self, layer: str | None) -> Tensor:
        """Output of a layer: "batch channel *space"."""
        name = self._named(layer)
        self._announced(Ask.ACTIVATION, name)
        return self._shared().activation[name]

    def layer_gradient(self, layer: str | None) -> Tensor:
        """Gradient of the target with respect to a layer's output."""
        name = self._named(layer)
        self._announced(Ask.LAYER_GRADIENT, name)
        return self._shared().layer_gradient[self.aim][name]

    @property
    def attention(self) -> Heeded:
        """Attention of the model's layers, and what the target takes from it."""
        self._announced(Ask.ATTENTION, None)
        return self._shared().attention[self.aim]

    def _named(self, layer: str | None) -> str:
        """A layer's full name; only the default must have spatial extent."""
        return self.model.find(layer, self.inputs).name if layer else self.model.resolve(None, self.inputs)

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """What the inputs alone decide (a partition, say): made at the first question, kept for every method."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def asked(self, ask: Ask, layer: str | None) -> bool:
        """Whether the shared pass answers this."""
        return (ask, layer) in self._needs

    def _announced(self, ask: Ask, layer: str | None) -> None:
        if not self.asked(ask, layer):
            raise LookupError(f"the probe was not opened for {ask.value!r} of {layer}: list Ask.{ask.name} in the card")
        if self.model.inference is not None and ask not in (Ask.OUTPUT, Ask.INPUT_GRADIENT):
            raise by_window(f"{ask.value} belongs to each window, not to the whole image")

    def _bound(self) -> tuple[BoundTarget, ...]:
        if "bound" not in self._kept:
            self._shared()
        return self._kept["bound"]

    def _shared(self) -> Pass:
        if "pass" not in self._kept:
            asks = frozenset(a for a, _ in self._needs)
            layers = tuple(sorted({name for _, name in self._needs if name}))
            work = Work(asks, layers, aims=range(len(self.targets)))
            work = work if self.model.inference is None else whole(work)
            self._kept["pass"] = self._evaluate(self.inputs, work)
            self.spent.shared += Cost(self.batch, self.batch * len(self.targets) * int(bool(asks & GRADIENTS)))
        return self._kept["pass"]

    # own passes ------------------------------------------------------------------------------------------------------

    def run(
        self,
        x: Inputs | None = None,
        want: frozenset[Ask] = frozenset(),
        layers: tuple[str, ...] = (),
        edits: Mapping[str, Edit] | None = None,
        rules: Rules | None = None,
        graph: bool = False,
    ) -> Pass:
        """Evaluate at ``x`` (None: the unperturbed input), optionally with layers edited and operations replaced.

        Gradients are those of the target aimed at; the others hold none.

        Args:
            x: as many items as the batch, or a multiple of it (versions of the batch, batch innermost).
            want: what the Pass must hold besides output and score.
            layers: read.
            edits: function of a layer's output, by layer; ``relu`` edits every call of it, ``relu#2`` the second.
            rules: replacement by torch function, each spelling apart: ``nn.ReLU`` calls ``F.relu``, not ``torch.relu``.
            graph: keep the autograd graph of output and score, back to an ``x`` that has one.
        """
        if self._needs or x is not None or edits or not isinstance(rules, Rulebook):
            self._bound()  # a rulebook leaves the output as it is, so the targets can be bound on this very pass
        names = tuple(self.model.find(name, self.inputs).name for name in layers)
        for name in edits or {}:
            self.model.check_edit(name, self.inputs)
        return self._own(x or self.inputs, Work(want, names, edits or {}, rules, graph, (self.aim,)))

    def behind(self, layer: str, edit: Edit, versions: int) -> Float[Tensor, " items"]:
        """The target's value with a layer's output replaced; only what comes after the layer is computed.

        What comes before was recorded at the first question about this layer (one own pass), and is played back.

        Args:
            layer: name.
            edit: its output for ``versions`` of the batch (batch innermost) -> as many replaced ones.
            versions: at least one.

        Raises:
            CannotDo: the model's batch size is fixed, or it predicts by sliding windows.
        """
        self._bound()
        self.model.check_edit(layer, self.inputs)
        if self.model.inference is not None:
            raise by_window(f"what comes after layer {layer!r} is computed in each window")
        if self.model.can.batch is not None:
            raise CannotDo(
                f"the model takes {self.model.can.batch} item(s) at a time, so a layer cannot hold several versions",
                "load the original module, or use another method (GradCAM)",
            )
        x = {k: v.repeat(versions, *(1,) * (v.ndim - 1)) for k, v in self.inputs.items()}
        key = f"before {layer}"
        if key not in self._kept:
            recording = Recording(self.model.module, layer)
            self._own(self.inputs, Work(frozenset(), replay=recording, aims=(self.aim,)))
            self._kept[key] = recording
        replay = self._kept[key].replay(edit, versions)
        return self._own(x, Work(frozenset(), replay=replay, aims=(self.aim,))).score[self.aim]

    def _evaluate(self, x: Inputs, work: Work) -> Pass:
        once = evaluate if self.model.inference is None else evaluate_windows
        done = once(self.model, x, replace(work, precision=self.precision), self._bind)
        self.spent.own += Cost(done.again)
        self.spent.windows += done.windows
        return done

    def _own(self, x: Inputs, work: Work) -> Pass:
        done = self._evaluate(x, work)
        self._spend(len(done.output), bool(work.want & GRADIENTS))
        return done

    def _spend(self, items: int, backward: bool = False) -> None:
        cost = Cost(items, items * int(backward))
        if self._checking:
            self.spent.checks += cost
        else:
            self.spent.own += cost

    def score(self, x: Inputs) -> Float[Tensor, " items"]:
        """The target's value at other inputs (a multiple of the batch), through the engine where there is one."""
        if self.engine is None:
            return self._seen(x, frozenset()).score[self.aim]
        target = self.target
        output = self.by_engine(self.engine, {k: v.to(self.model.device) for k, v in x.items()}, self._reads())
        score = target(output) - self._offset(self.engine).repeat(len(output) // self.batch)
        check_finite(score, target.name)
        self._spend(len(output))
        self.spent.engine += len(output)
        return score

    def by_engine(self, engine: Engine, x: Inputs, reads: frozenset[tuple[int, ...]] | None = None) -> Tensor:
        """What an engine gives as head; it sees a window (of ``reads``, if given) at a time where the model does."""
        cut = self.model.inference
        return engine(x) if cut is None else cut.of(x).blend(engine, x, reads)

    def _offset(self, engine: Engine) -> Tensor:
        """By how much the engine errs at the unperturbed input, where the effect of a change must begin at zero."""
        key = f"offset {id(engine)} {self.aim}"
        if key not in self._kept:
            self._kept[key] = self.target(self.by_engine(engine, self.inputs, self._reads())) - self.baseline_score
            self.spent.shared += Cost(self.batch)
        return self._kept[key]

    def gradient(self, x: Inputs) -> Mapping[str, Tensor]:
        """The target's gradient at other inputs, by input name."""
        return self._seen(x, frozenset({Ask.INPUT_GRADIENT})).input_gradient[self.aim]

    def _seen(self, x: Inputs, want: frozenset[Ask]) -> Pass:
        """What only the target's value needs: windows that it does not look at are left out."""
        return self._own(x, Work(want, aims=(self.aim,), reads=self._reads()))

    def _reads(self) -> frozenset[tuple[int, ...]] | None:
        cut, mask = self.model.inference, self.target.reads
        if cut is None or mask is None:
            return None
        return self.once(f"windows read {self.aim}", lambda: cut.of(self.inputs).reading(mask))

    def _bind(self, output: Tensor) -> tuple[BoundTarget, ...]:
        if "bound" not in self._kept:
            spec = self.model.output
            self._kept["bound"] = tuple(t.bind(output.detach(), spec, self.scene.regions) for t in self.targets)
        return self._kept["bound"]
