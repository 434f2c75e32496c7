"""The viewer beside the report: its page in the case's folder, its script and NiiVue once for all cases."""

import gzip
from pathlib import Path

from pellucid.core.atomic import make_folder, write_bytes, write_text
from pellucid.show.sections import CaseReport
from pellucid.show.viewer import render_viewer, viewer_assets

VIEWER, ASSETS = "viewer.html", "assets"


def write_viewer(report: CaseReport, folder: Path, back: str = "") -> Path:
    """Write the viewer's page into a case's folder, and what all viewers share beside that folder.

    Args:
        report: what to show.
        folder: of the case.
        back: relative link to the report.

    Raises:
        UnwritableOutput: a folder cannot be written.
    """
    shared = make_folder(folder.parent / ASSETS)
    for name, content in viewer_assets(report.image.grid.rank == 3).items():
        path, plain = shared / name.removesuffix(".gz"), gzip.decompress(content) if name.endswith(".gz") else content
        if not path.is_file() or path.read_bytes() != plain:
            write_bytes(path, plain)
    return write_text(make_folder(folder) / VIEWER, render_viewer(report, f"../{ASSETS}", back))
