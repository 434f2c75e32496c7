"""A case from reading to the page: what the command and the demo do with each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pellucid.core.case import Case
from pellucid.io.models import GoldenResult, LoadedModel, require_golden
from pellucid.workbench.explaining import Progress
from pellucid.workbench.job import Finished, Request, run_case, save_maps
from pellucid.workbench.recording import Recorder
from pellucid.workbench.reporting import write_index, write_report


@dataclass(frozen=True, eq=False)
class Checked:
    """A model that gives the scores its card promises.

    Args:
        loaded: the model.
        golden: how its golden vectors came out.
    """

    loaded: LoadedModel
    golden: tuple[GoldenResult, ...]


def checked(loaded: LoadedModel) -> Checked:
    """Run the golden vectors before the first explanation.

    Raises:
        GoldenVectorMismatch: the model explains nothing.
    """
    return Checked(loaded, tuple(require_golden(loaded)))


def deliver(
    case: Case, model: Checked, request: Request, folder: Path, recorder: Recorder, progress: Progress | None = None
) -> Finished:
    """Explain and score a case, and write its maps and its page into a folder of its own.

    Args:
        case: as read.
        model: whose golden vectors came out right.
        request: targets, methods, metrics.
        folder: in which the case gets one named after it.
        recorder: of the audit events.
        progress: called with what is being done.

    Raises:
        PellucidError: nothing of the case is written then.
    """
    done = run_case(case, model.loaded, request, recorder, progress)
    return write_report(save_maps(done, folder / case.name), model.loaded, model.golden, folder / case.name, recorder)


def overview(delivered: Sequence[tuple[Finished, Checked]], folder: Path, title: str) -> Path:
    """Write the overview of several delivered cases."""
    return write_index([(one, model.loaded, model.golden) for one, model in delivered], folder, title)
