"""What ``explain`` and ``evaluate`` write for a reader beside the report."""

from typing import Annotated

import typer

Viewer = Annotated[bool, typer.Option("--viewer/--no-viewer", help="Put a viewer into each report.")]
Nrrd = Annotated[bool, typer.Option("--nrrd", help="Write the maps of volumes as NRRD (3D Slicer), too.")]
ReadingRoom = Annotated[
    bool,
    typer.Option("--reading-room", help="Name the patient at the top of report.html: for the local reading room only."),
]
Pdf = Annotated[bool, typer.Option("--pdf", help="Write each report as PDF, too (needs Chromium or Chrome).")]
