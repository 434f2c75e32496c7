"""A report as PDF, printed by a browser that is there already."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from pellucid.core.atomic import write_bytes
from pellucid.core.errors import MissingExtra, UnwritableOutput

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_QUIET = (
    "--headless", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-background-networking",
    "--disable-component-update", "--disable-extensions", "--no-pdf-header-footer", "--virtual-time-budget=10000",
)  # fmt: skip
_SECONDS = 180
_MEND = "install Chromium (Debian: apt-get install chromium), or print report.html from any browser"


def find_browser() -> str:
    """The browser that prints.

    Raises:
        MissingExtra: none is installed.
    """
    named = os.environ.get("PELLUCID_BROWSER")
    found = next((path for name in ((named,) if named else _BROWSERS) if (path := shutil.which(name))), None)
    if found is None:
        wanted = "the browser that $PELLUCID_BROWSER names" if named else "Chromium or Chrome"
        raise MissingExtra(f"a PDF is printed by {wanted}, which was not found", _MEND)
    return found


def print_pdf(page: str, path: Path) -> Path:
    """Print a page that needs no script and no other file, whole or not at all.

    The style sheet of the reports has a print side: light, sections kept together, RESEARCH - NOT FOR DIAGNOSIS and
    the page number on every sheet. The browser runs with a profile of its own, which is deleted.

    Args:
        page: HTML.
        path: of the PDF.

    Raises:
        MissingExtra: no browser is installed.
        UnwritableOutput: it printed nothing, or the folder cannot be written.
    """
    browser = find_browser()
    with tempfile.TemporaryDirectory(prefix="pellucid-print-", ignore_cleanup_errors=True) as room:
        source, printed = Path(room) / "page.html", Path(room) / "page.pdf"
        source.write_text(page, encoding="utf-8")
        # Chromium's sandbox refuses to run as root; the page is our own and runs no script
        root = ("--no-sandbox",) if os.name == "posix" and os.geteuid() == 0 else ()
        command = [browser, *_QUIET, *root, f"--user-data-dir={room}/profile", f"--print-to-pdf={printed}"]
        try:
            subprocess.run([*command, source.as_uri()], check=True, capture_output=True, timeout=_SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            problem = f"the browser did not print the report ({type(error).__name__})"
            raise UnwritableOutput(problem, _MEND) from None
        if not printed.is_file():
            raise UnwritableOutput("the browser ended without a PDF", _MEND)
        return write_bytes(path, printed.read_bytes())
