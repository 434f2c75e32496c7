"""A case from reading to the page: what the command and the demo do with each."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pellucid.core.case import Case
from pellucid.core.errors import PellucidError
from pellucid.core.explanation import Explanation
from pellucid.core.grid import Calibration
from pellucid.io.archive import load_explanation
from pellucid.io.labelmap import LabelMap
from pellucid.io.models import GoldenResult, LoadedModel, require_golden
from pellucid.io.nifti import write_nifti
from pellucid.io.patient import patient_rows
from pellucid.show.difference import Difference
from pellucid.show.report import render_comparison, write_comparison
from pellucid.show.scenery import burned
from pellucid.workbench.comparing import compare
from pellucid.workbench.explaining import Progress
from pellucid.workbench.job import Finished, Request, run_case, save_maps
from pellucid.workbench.printing import find_browser
from pellucid.workbench.publishing import bind, check_publishable, publish
from pellucid.workbench.recording import Recorder
from pellucid.workbench.reporting import Wanted, write_index, write_report

COMPARISON = "compare.html"


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
    case: Case,
    model: Checked,
    request: Request,
    folder: Path,
    recorder: Recorder,
    progress: Progress | None = None,
    announce: Progress | None = None,
) -> Finished:
    """Explain and score a case, and write its maps and its page into a folder of its own.

    Args:
        case: as read.
        model: whose golden vectors came out right.
        request: targets, methods, metrics.
        folder: in which the case gets one named after it.
        recorder: of the audit events.
        progress: called with what is being done.
        announce: called with what the methods will cost, before the first is made; None: it is not measured.

    Raises:
        PellucidError: nothing of the case is written then.
    """
    if request.pdf:
        find_browser()  # before the work, not after it
    if request.dicom is not None:
        check_publishable(case, model.loaded.model)
    files = case.files.get(model.loaded.model.primary) or next(iter(case.files.values()), ())
    patient = patient_rows(files) if request.reading_room else ()
    done = run_case(case, model.loaded, request, recorder, progress, announce)
    source = bind(done) if request.dicom is not None else None
    saved = save_maps(done, folder / case.name, request.nrrd)
    if source is not None:
        saved = publish(saved, source, request, (model.loaded, model.golden), folder / case.name, recorder)
    wanted = Wanted(request.viewer, request.pdf, patient)
    return write_report(saved, model.loaded, model.golden, folder / case.name, recorder, wanted)


@dataclass(frozen=True, eq=False)
class Compared:
    """Two saved explanations against each other.

    Args:
        difference: what was found.
        first: as it was saved.
        second: as it was saved.
        files: written, by kind.
    """

    difference: Difference
    first: Explanation
    second: Explanation
    files: Mapping[str, Path]

    def plain(self) -> dict[str, object]:
        """As JSON types."""
        return {
            "comparison": self.difference.plain(),
            "provenance": [e.provenance.plain() for e in (self.first, self.second)],
            "files": {k: str(v) for k, v in self.files.items()},
        }


def deliver_comparison(
    saved: tuple[Path, Path],
    folder: Path,
    recorder: Recorder,
    atlas: LabelMap | None = None,
    ranks: bool = False,
    prior: bool = False,
) -> Compared:
    """Compare two saved explanations, and write their page and the difference into a folder.

    Args:
        saved: the two archives.
        folder: that exists.
        recorder: of the audit events.
        atlas: the reader's own regions; None: thirds of the image.
        ranks: compare ranks only.
        prior: the second is an earlier examination of the same patient.

    Raises:
        PellucidError: of an archive, the label map, or two maps that cannot be compared; nothing is written then.
    """
    try:
        first, second = (load_explanation(path) for path in saved)
        one = compare(first, second, None, atlas, ranks, prior)
    except PellucidError as error:
        recorder.failed("compare", type(error).__name__)
        raise
    found = dict.fromkeys(w for e in (first, second) for w in e.provenance.warnings if burned((w,)))
    path = write_comparison(render_comparison(one, first, second, tuple(found)), folder / COMPARISON)
    files = {"report": path}
    minus = one.difference if one.state == "told" else None
    if minus is not None and minus.grid.rank == 3 and minus.grid.calibration is not Calibration.NONE:
        words = f"{one.title}, research"
        files["nifti difference"] = write_nifti(minus.values, minus.grid, folder / "difference.nii.gz", words)
    recorder.exported(first.provenance.case, "comparison", hashlib.sha256(path.read_bytes()).hexdigest())
    return Compared(one, first, second, files)


def overview(delivered: Sequence[tuple[Finished, Checked]], folder: Path, title: str) -> Path:
    """Write the overview of several delivered cases."""
    return write_index([(one, model.loaded, model.golden) for one, model in delivered], folder, title)
