"""What ``explain`` and ``evaluate`` write for a reader beside the report."""

from typing import Annotated

import typer

Viewer = Annotated[bool, typer.Option("--viewer/--no-viewer", help="Put a viewer into each report.")]
Pdf = Annotated[bool, typer.Option("--pdf", help="Write each report as PDF, too (needs Chromium or Chrome).")]
