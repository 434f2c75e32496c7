"""Sphinx configuration: pages of the cards are written from the registry, the gallery is made by running examples/."""

import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx_gallery.scrapers import figure_rst

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))  # for the generator beside this file

os.environ.setdefault("MPLBACKEND", "agg")
warnings.filterwarnings("ignore", category=DeprecationWarning)

import cards
import curves
import datasets

import pellucid

project = "Pellucid"
copyright = "2026, the Pellucid authors"
author = "the Pellucid authors"
release = pellucid.__version__ if "__version__" in vars(pellucid) else "0.1.0"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.bibtex",
    "sphinx_gallery.gen_gallery",
]

source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "gallery/**/*.ipynb", "gallery/**/*.py", "gallery/**/*.zip", "gallery/**/*.json"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

bibtex_bibfiles = ["../references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Source", "notes_style")]


def figures(_block: object, variables: dict[str, Any], settings: dict[str, Any]) -> str:
    """The matplotlib figures that an example has named, each shown once."""
    shown, names = set(variables.setdefault("shown", [])), []
    for value in variables["example_globals"].values():
        if isinstance(value, Figure) and id(value) not in shown:
            path = next(variables["image_path_iterator"])
            value.savefig(path, dpi=110, bbox_inches="tight")
            variables["shown"].append(id(value))
            names.append(path)
    return figure_rst(names, settings["src_dir"])


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "image_scrapers": (figures,),
    "plot_gallery": True,
    "write_computation_times": False,
    "reset_modules": (),
}
suppress_warnings = ["config.cache"]

html_theme = "furo"
html_title = "Pellucid"
html_static_path: list[str] = []
html_show_sourcelink = False

cards.write(HERE / "generated")
datasets.write(HERE / "generated")
cards.write_decisions(HERE / "generated", ROOT / "adr")
curves.write(HERE / "generated", ROOT / "benchmarks" / "results")

_LITERAL = re.compile(r"(``.*?``|`.*?`)")


def _escape(_app: Sphinx, _what: str, _name: str, _thing: object, _options: object, lines: list[str]) -> None:
    """Shapes such as ``batch *space`` and bars such as ``|x|`` are no markup, outside literals and examples."""
    for i, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        parts = _LITERAL.split(line)
        parts[::2] = [re.sub(r"\*(?=(space|size)\b)|\|", r"\\\g<0>", p) for p in parts[::2]]
        lines[i] = "".join(parts)


def _plain(_app: Sphinx, _what: str, _name: str, _thing: object, _options: object, call: str, back: str) -> object:
    """A signature with the types only: what a parameter means stands in the table of the card."""
    if not call:
        return call, back
    return re.sub(r"~[\w.]*\.(\w+)", r"\1", re.sub(r"Annotated\[(.*?), '[^']*'\]", r"\1", call)), back


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", _plain)
    app.connect("autodoc-process-docstring", _escape)
