"""``pellucid dicom``: explanations as DICOM objects, and the archives that hold them."""

import typer

app = typer.Typer(
    help="Verify explanations that were written as DICOM objects, and speak to archives.", no_args_is_help=True
)
