"""Run methods on an opened case: one shared pass, then each method's own, timed and counted."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

import torch

from pellucid.core.card import GRADIENTS
from pellucid.core.errors import BadRegion, CannotDo, UnknownLayer
from pellucid.core.explainer import Explainer, LayerExplainer
from pellucid.core.explanation import Explanation, Prediction, Provenance, Reference
from pellucid.core.metric import Metric
from pellucid.core.perwindow import answered
from pellucid.core.probe import Probe
from pellucid.core.target import Target
from pellucid.engines.selfcheck import EngineReport
from pellucid.show.notebook import NotebookView
from pellucid.workbench.hastening import engine_words, suited, through_engine
from pellucid.workbench.opening import Opened
from pellucid.workbench.registry import spell, told_apart

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Manner:
    """How explanations are made.

    Args:
        precision: of the forwards, ``float32`` or ``bfloat16``.
        references: by method (as ``spell`` writes it) and target: fixed display scale and null.
        applicability: verdict of the model card on this case.
        warnings: that every explanation of the case carries.
        engine: of the perturbed forwards: ``eager`` (the module), ``auto`` (the fastest that errs little, where there
            are forwards enough to repay it), or a name.
        strict: raise when a method cannot explain this model; else list it as skipped.
        metrics: that will score the maps: their forwards count too when an engine is chosen.
        said: what must stand beside the map of a method, by method as ``spell`` writes it.
    """

    precision: str = "float32"
    references: Mapping[str, Mapping[str, Reference]] = field(default_factory=dict)
    applicability: str = "not checked: no model card"
    warnings: tuple[str, ...] = ()
    strict: bool = True
    engine: str = "eager"
    metrics: tuple[Metric, ...] = ()
    said: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Panel:
    """The explanations of one case, made from one shared pass.

    Args:
        explanations: in the order asked.
        made_by: the explainer of each.
        probes: the probe of each, aimed at its target.
        skipped: (method, reason) of those that cannot explain this model.
    """

    explanations: tuple[Explanation, ...]
    made_by: tuple[Explainer, ...]
    probes: tuple[Probe, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> list[str]:
        """Of each explanation: the method, with its parameters where it was asked for with several settings."""
        return told_apart(self.made_by)

    @property
    def titles(self) -> list[str]:
        """Of each explanation: its name, with the target where several are explained."""
        targets = [e.provenance.target for e in self.explanations]
        several = len(set(targets)) > 1
        return [f"{name}: {t}" if several else name for name, t in zip(self.names, targets, strict=True)]


def explain_case(
    opened: Opened,
    targets: Sequence[Target],
    explainers: Sequence[Explainer],
    manner: Manner | None = None,
    progress: Progress | None = None,
) -> Panel:
    """Explain every target with every method.

    Args:
        opened: the case on the model's grid.
        targets: at least one.
        explainers: at least one.
        manner: precision, references, warnings.
        progress: called with the name of each method before it runs.

    Raises:
        PellucidError: of the model, the target or (when strict) a method.
    """
    manner = manner or Manner()
    able, skipped = able_methods(opened, explainers, manner.strict)
    needs = {need for e in able for need in e.needs(opened.model, opened.inputs)}
    plain = Probe(opened.model, opened.inputs, targets, needs, opened.scene, manner.precision)
    shared, engine = through_engine(plain, able, manner.engine, manner.metrics)
    made: list[tuple[Explanation, Explainer, Probe]] = []
    for aim in range(len(targets)):
        for explainer in able:
            if progress is not None:
                progress(explainer.name)
            probe = shared.at(aim)
            try:
                made.append((_explain(suited(probe, explainer), explainer, opened, manner, engine), explainer, probe))
            except CannotDo as error:  # some limits show only in the network's operations (a GELU, a head that pools)
                if manner.strict:
                    raise
                if aim == 0:  # the same for every target
                    skipped.append((explainer.name, error.problem))
    if not made:
        raise CannotDo("no method can explain this model", "; ".join(f"{name}: {why}" for name, why in skipped))
    explanations, explainers, probes = zip(*made, strict=True)
    return Panel(tuple(explanations), tuple(explainers), tuple(probes), tuple(skipped))


def able_methods(
    opened: Opened, explainers: Sequence[Explainer], strict: bool, unasked: Probe | None = None
) -> tuple[list[Explainer], list[tuple[str, str]]]:
    """The methods that can explain this model, and why the others cannot.

    Args:
        opened: the case.
        explainers: that were asked for.
        strict: raise at the first that cannot.
        unasked: a probe of the case that may have made no pass; None: one is opened.
    """
    unasked = unasked or Probe(opened.model, opened.inputs, (), scene=opened.scene)
    able: list[Explainer] = []
    skipped: list[tuple[str, str]] = []
    for explainer in explainers:
        try:
            _check_able(explainer, opened, unasked)
        except (CannotDo, UnknownLayer, BadRegion) as error:  # BadRegion: nobody marked what the method asks about
            if strict:
                raise
            skipped.append((explainer.name, error.problem))
        else:
            able.append(explainer)
    return able, skipped


def _check_able(explainer: Explainer, opened: Opened, unasked: Probe) -> None:
    model, card = opened.model, explainer.card
    if model.rank not in card.space:
        raise CannotDo(f"{explainer.name} is not for {model.rank}-D images", "choose another method")
    if model.output.task not in card.tasks:
        raise CannotDo(f"{explainer.name} is not for {model.output.task}", "choose another method")
    # a path method asks nothing of the shared pass, and makes backward passes of its own
    if (card.asks & GRADIENTS or explainer.cost(unasked).backwards) and not model.can.gradient:
        why = model.can.why.get("gradient", "its format hides them")
        raise CannotDo(f"{explainer.name} needs gradients: {why}", "use a perturbation method (Occlusion)")
    explainer.needs(model, opened.inputs)


def _explain(
    probe: Probe, explainer: Explainer, opened: Opened, manner: Manner, engine: EngineReport | None
) -> Explanation:
    prediction = predict(probe)  # makes the shared pass, so that it is not charged to the first method
    before, shared, fast = probe.spent.own, probe.spent.shared, probe.spent.engine
    started = time.perf_counter()
    answer = answered(explainer, probe)
    ms = 1000 * (time.perf_counter() - started)
    used = probe.spent.engine > fast
    said = manner.said.get(spell(explainer), ())
    doubts = (*_doubts(prediction, probe), *engine_words(engine, explainer, used), *said)
    own = (probe.spent.own.forwards - before.forwards, probe.spent.own.backwards - before.backwards)
    model, name = opened.model, probe.target.name
    prepared = opened.prepared[model.primary]
    provenance = Provenance(
        case=opened.case.name,
        input_digest=digest_of(opened),
        model=f"{model.identity.name} {model.identity.version}".strip(),
        model_digest=model.digest,
        card_digest=model.identity.card,
        target=name,
        method=explainer.name,
        settings=explainer.settings(),
        layer=_layer(explainer, opened),
        infill=explainer.stand_in(probe),
        seed=opened.scene.seed,
        precision=manner.precision,
        device=model.device.type,
        shared=(shared.forwards, shared.backwards),
        own=own,
        ms=round(ms, 1),
        versions={"pellucid": version("pellucid"), "torch": torch.__version__, "python": platform.python_version()},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        applicability=manner.applicability,
        warnings=(*manner.warnings, *prepared.notes, *opened.case.notes, *answer.warnings, *doubts),
        engine=engine.name if engine is not None and used else "eager",
    )
    known = manner.references.get(spell(explainer), {})  # a reference means nothing for other settings
    image = opened.image
    view = NotebookView(cautions={explainer.name: explainer.card.caution})
    return Explanation(answer, provenance, prediction, image, prepared, known.get(name), view)


def predict(probe: Probe) -> Prediction:
    """What the model says of the probe's (first) item, and of the explained target."""
    spec, target = probe.model.output, probe.target
    # an operating point is compared with the head, whatever scale is explained
    value = float((target.head(probe.output) if target.head else probe.baseline_score)[0])
    scores = spec.scores(probe.output[:1])
    flat = scores.flatten(2).mean(2)[0] if scores.ndim > 2 else scores[0]
    names = [spec.labels[i] if i < len(spec.labels) else f"class {i}" for i in range(len(flat))]
    by_label = dict(zip(names, (float(v) for v in flat), strict=True))
    scored = spec.task == "classification"  # a measured value is no score in [0, 1]
    return Prediction(
        label=target.name,
        value=value,
        unit=spec.unit if target.head else target.unit,
        score=by_label.get(target.name) if scored else None,
        threshold=spec.operating_point.get(target.name),
        predicted=max(by_label, key=lambda n: by_label[n]),
        scores=by_label,
    )


def _doubts(prediction: Prediction, probe: Probe) -> tuple[str, ...]:
    doubts = []
    # several findings may be present at once, and then the one with the highest score is not "the" predicted one
    exclusive = probe.model.output.activation != "sigmoid" or probe.output.shape[1] == 1
    if exclusive and prediction.score is not None and prediction.predicted != prediction.label:
        doubts.append(f"the explained class ({prediction.label}) is not the predicted one ({prediction.predicted})")
    if prediction.score is not None and (prediction.score > 0.9999 or prediction.score < 0.0001):
        doubts.append("the model score is saturated: small changes hardly move it")
    return tuple(doubts)


def digest_of(opened: Opened) -> str:
    """Of the images, for provenance and audit record."""
    digests = [image.digest for image in opened.images.values()]
    return digests[0] if len(digests) == 1 else " ".join(digests)


def _layer(explainer: Explainer, opened: Opened) -> str | None:
    if not isinstance(explainer, LayerExplainer):
        return None
    return opened.model.resolve(explainer.layer, opened.inputs)
