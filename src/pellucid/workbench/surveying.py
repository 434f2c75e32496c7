"""A method for cohorts run on gathered cases, and written as one page."""

import hashlib
import json
import platform
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from pellucid.core.atomic import write_text
from pellucid.core.errors import BadOption, CannotDo
from pellucid.core.explainer import CohortExplainer
from pellucid.core.explanation import Effects, Explanation, Provenance
from pellucid.core.keeping import Keeper, Told
from pellucid.io.journal import CaseJournal
from pellucid.io.models import LoadedModel
from pellucid.show.report import render_effects
from pellucid.workbench.gathering import Gathered
from pellucid.workbench.recording import Recorder
from pellucid.workbench.registry import spell

PAGE = "cohort.html"


def explain_cohort(
    gathered: Gathered,
    loaded: LoadedModel,
    explainer: CohortExplainer,
    folder: Path | None = None,
    told: Told | None = None,
) -> Explanation:
    """Run one method on gathered cases.

    Args:
        gathered: the cases.
        loaded: the model.
        explainer: the method.
        folder: where the numbers of each case are kept for a run that goes on after this one is stopped; None: nowhere.
        told: called with the stage, the cases that are done, and all of them.

    Raises:
        PellucidError: of the method; or a background that it has no use for.
    """
    model = loaded.model
    keeper = Keeper(CaseJournal.opened(folder) if folder else None, _about(gathered, loaded, explainer), told)
    cohort = replace(gathered.cohort, keeper=keeper)
    if cohort.background is not None and not explainer.background:
        raise BadOption(f"{explainer.name} takes nothing from a background", "leave out --background")
    if model.rank not in explainer.card.space or model.output.task not in explainer.card.tasks:
        raise CannotDo(
            f"{explainer.name} is not for a {model.rank}-D {model.output.task} model", "choose another method"
        )
    before, started = model.identity, time.perf_counter()
    answer = explainer(model, cohort)
    answer = replace(answer, said=(*answer.said, *_found(keeper)))
    ms = 1000 * (time.perf_counter() - started)
    made = Provenance(
        case=f"{cohort.size} cases",
        input_digest=gathered.digest,
        model=f"{before.name} {before.version}".strip(),
        model_digest=model.digest,
        card_digest=before.card,
        target=cohort.opened(model).target,
        method=explainer.name,
        settings=explainer.settings(),
        layer=None,
        infill=None,
        seed=cohort.scene.seed,
        precision="float32",
        device=model.device.type,
        shared=(0, 0),
        own=answer.spent,
        ms=round(ms, 1),
        versions={"pellucid": version("pellucid"), "torch": torch.__version__, "python": platform.python_version()},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        applicability=gathered.applicability,
        warnings=(*gathered.warnings, *answer.warnings),
    )
    return Explanation(answer, made)


def _about(gathered: Gathered, loaded: LoadedModel, explainer: CohortExplainer) -> str:
    """What the numbers of every case depend on."""
    cohort, model = gathered.cohort, loaded.model
    return json.dumps(
        [
            version("pellucid"),
            spell(explainer),
            model.digest,
            model.identity.card,
            str(cohort.target),
            cohort.scene.seed,
            cohort.parts.names,
            gathered.background,
        ]
    )


def _found(keeper: Keeper) -> tuple[str, ...]:
    """How many cases were there already."""
    return tuple(
        f"{count} of {size} cases were there already from an earlier run" + (f" ({stage})" if several else "")
        for several in (len(keeper.found) > 1,)
        for stage, (count, size) in keeper.found.items()
        if count
    )


def plain_cohort(explanation: Explanation, gathered: Gathered, page: Path) -> dict[str, object]:
    """The result as JSON types."""
    failures = [
        {"case": n, "error": type(e).__name__, "problem": e.problem, "mend": e.mend} for n, e in gathered.failures
    ]
    return {
        "cases": list(gathered.cohort.names),
        "provenance": explanation.provenance.plain(),
        "effects": effects_of(explanation).plain(),
        "failures": failures,
        "files": {"report": str(page)},
    }


def effects_of(explanation: Explanation) -> Effects:
    """The answer of a method for cohorts.

    Raises:
        CannotDo: it is of another kind.
    """
    if not isinstance(explanation.answer, Effects):
        raise CannotDo(f"expected effects, got {explanation.answer.kind}", "use a method for cohorts")
    return explanation.answer


def deliver_cohort(explanation: Explanation, gathered: Gathered, folder: Path, recorder: Recorder) -> dict[str, object]:
    """Write the page and ``results.json``, and record both.

    Args:
        explanation: of the cohort.
        gathered: what it was made from.
        folder: that exists.
        recorder: of the audit events.

    Returns:
        The result as JSON types.

    Raises:
        UnwritableOutput: the folder cannot be written.
    """
    recorder.created(explanation)
    page = write_text(folder / PAGE, render_effects(explanation, effects_of(explanation)))
    results = plain_cohort(explanation, gathered, page)
    write_text(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False))
    recorder.exported("cohort", explanation.provenance.method, hashlib.sha256(page.read_bytes()).hexdigest())
    return results
