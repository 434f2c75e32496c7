"""A question about one region of one case."""

import time
from dataclasses import dataclass, replace

import torch

from pellucid.core.case import Case, Region
from pellucid.core.infill import Infill
from pellucid.core.probe import Probe
from pellucid.explain.byhand import Do, Reply, ask_region
from pellucid.io.models import LoadedModel
from pellucid.workbench.explaining import digest_of
from pellucid.workbench.gathering import admitted
from pellucid.workbench.opening import default_target, open_case, parse_target
from pellucid.workbench.recording import Origin

_NAME = "asked"


@dataclass(frozen=True)
class Question:
    """What is asked.

    Args:
        do: ``hide``, ``keep`` or ``swap``.
        target: as ``parse_target`` reads it; None: the default target.
        shams: placements of the sham test.
        infills: what hidden voxels show; None: the modality's two.
        seed: of the placements.
        override: ask although the model card excludes the image.
    """

    do: Do = "hide"
    target: str | None = None
    shams: int = 8
    infills: tuple[Infill, ...] | None = None
    seed: int = 0
    override: bool = False


@dataclass(frozen=True)
class Told:
    """A reply with where it comes from.

    Args:
        reply: what became of the score.
        model: name and version.
        applicability: what the model card says of the image.
        ms: time of the answer, without reading the files.
        forwards: of the model.
        origin: for the audit record.
    """

    reply: Reply
    model: str
    applicability: str
    ms: float
    forwards: int
    origin: Origin

    def plain(self) -> dict[str, object]:
        """As JSON types."""
        rest = {"case": self.origin.case, "model": self.model, "applicability": self.applicability}
        return {**rest, **self.reply.plain(), "forwards": self.forwards, "ms": self.ms}


def ask_case(case: Case, loaded: LoadedModel, region: Region, question: Question | None = None) -> Told:
    """Hide, keep or swap a region of a case.

    Args:
        case: as read.
        loaded: the model.
        region: on the image.
        question: what to do, and to which score.

    Raises:
        PellucidError: of the image, the region, the model or the question.
    """
    asked = question or Question()
    case, verdict = admitted(case, loaded, asked.override)
    started = time.perf_counter()
    case = replace(case, regions={**case.regions, _NAME: region})
    opened = open_case(case, loaded.model, asked.seed, asked.infills)
    target = parse_target(asked.target, loaded.model) or default_target(opened)
    probe = Probe(loaded.model, opened.inputs, target, scene=opened.scene)
    reply = ask_region(probe, opened.scene.regions[_NAME].to(torch.bool), asked.do, asked.shams)
    notes = (*reply.notes, *case.notes, *opened.prepared[loaded.model.primary].notes)
    made = loaded.model.identity
    spent = probe.spent.own + probe.spent.shared
    ms = round(1000 * (time.perf_counter() - started), 1)
    return Told(
        reply=replace(reply, notes=notes),
        model=f"{made.name} {made.version}".strip(),
        applicability=verdict,
        ms=ms,
        forwards=spent.forwards,
        origin=Origin(case.name, asked.seed, digest_of(opened), loaded.model.digest, made.card),
    )
