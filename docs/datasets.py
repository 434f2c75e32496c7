"""Write the list of public data sets from their files, so that the page cannot drift from them."""

from pathlib import Path

from pellucid.cli.collecting import regions
from pellucid.io.collections.declared import Collection, collections


def section(one: Collection) -> str:
    """What a reader must know of one data set."""
    known = [fact for fact in ("label", "patient", "group") if getattr(one, fact)]
    rows = {
        "images": ", ".join(f"`{name}`" for name in one.images) + f" ({one.modality})",
        "regions": ", ".join(f"`{name}`" for name in regions(one)) or "none",
        "known of a case": ", ".join([*known, *sorted(one.covariates)]) or "nothing more",
        "license": one.license,
        "cite": one.citation,
        "from": f"<{one.source}>",
    }
    table = [f"| {key} | {_cell(value)} |" for key, value in rows.items()]
    drawn = ["```text", one.layout.strip("\n"), "```"]
    lines = [f"### {one.name}", "", f"{one.title}. {one.caution}".strip(), "", *drawn, "", "| | |", "|---|---|", *table]
    return "\n".join(lines) + "\n"


def _cell(value: str) -> str:
    """What would end a cell is told from it."""
    return value.replace("|", "\\|")


def text() -> str:
    """The list, in the order of names."""
    return "\n".join(section(one) for one in collections().values())


def write(folder: Path) -> None:
    """The list as a part of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "collections.inc").write_text(text(), encoding="utf-8")
