"""The documents are true: their examples run, their links lead somewhere, and every card has its page."""

import importlib.util
import re
import sys
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pellucid.cli.main import app
from pellucid.core.explainer import Explainer
from pellucid.testing import check_explainer
from pellucid.workbench.registry import metrics

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("adr/*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]+)[^)]*\)")


@pytest.fixture(scope="session")
def cards() -> types.ModuleType:
    """The generator of the pages."""
    spec = importlib.util.spec_from_file_location("cards", ROOT / "docs" / "cards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cards"] = module
    spec.loader.exec_module(module)
    return module


def test_every_card_has_a_page_with_all_it_declares(cards: types.ModuleType, tmp_path: Path) -> None:
    cards.write(tmp_path)
    shelves = cards.shelves()
    assert {s.folder: len(c) for s, c in shelves.items()}.keys() == {"methods", "metrics"}
    for shelf, classes in shelves.items():
        assert len(classes) >= 6
        index = (tmp_path / shelf.folder / "index.md").read_text(encoding="utf-8")
        for name, cls in classes.items():
            page = (tmp_path / shelf.folder / f"{name}.md").read_text(encoding="utf-8")
            for text in (cls.card.equation, cls.card.source, cls.card.cost_note, cls.card.caution[1:]):
                written = (text, text.replace("|", "\\|"), text.replace("'", "''"))
                assert any(w in page for w in written), (name, text)
            assert "<svg" in (tmp_path / shelf.folder / f"{name}.svg").read_text(encoding="utf-8")
            for parameter in cls.parameters():
                assert f"| `{parameter.name}` |" in page, (name, parameter.name)
            assert f"]({name}.md)" in index, name


def test_a_page_of_a_class_that_is_gone_is_removed(cards: types.ModuleType, tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    gone = tmp_path / "methods" / "Phrenology.md"
    gone.write_text("# Phrenology\n", encoding="utf-8")
    cards.write(tmp_path)
    assert not gone.exists()


def test_the_comparison_with_the_review_names_real_classes(cards: types.ModuleType) -> None:
    names = {n for classes in cards.shelves().values() for n in classes}
    notes = cards.review_notes()
    assert set(notes) <= names
    assert names <= set(notes), "say how the review's formula compares in docs/review.toml"


def test_the_explainer_of_contributing_keeps_the_contract() -> None:
    blocks = FENCE.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(blocks) == 2
    declaration, check = blocks
    statements = declaration.partition("@dataclass")[2]
    assert len(statements.strip().splitlines()) <= 20, "it says: in 20 lines"
    module = types.ModuleType("example_of_contributing")
    sys.modules[module.__name__] = module
    try:
        exec(compile(declaration, "CONTRIBUTING.md", "exec"), vars(module))
        assert Explainer.registry["GradientEnergy"] is module.GradientEnergy
        exec(compile(check, "CONTRIBUTING.md", "exec"), vars(module))
        assert vars(module)["check_explainer"] is check_explainer
    finally:
        Explainer.registry.pop("GradientEnergy", None)
        del sys.modules[module.__name__]


def test_the_python_example_of_the_readme_runs() -> None:
    blocks = FENCE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) == 1
    assert len([line for line in blocks[0].splitlines() if line.strip()]) <= 5
    setup = """
import matplotlib
matplotlib.use("agg")
import torch
network = torch.nn.Sequential(
    torch.nn.Conv2d(1, 4, 3, 2), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(16, 5)
)
image = torch.rand(1, 1, 32, 32)
"""
    space: dict[str, object] = {}
    exec(compile(setup + blocks[0], "README.md", "exec"), space)
    assert space["values"].shape == (1, 32, 32)


def test_the_commands_of_the_documents_exist() -> None:
    """Every ``pellucid ...`` in a console block names a command and options that its help names."""
    shown = [
        line.removeprefix("$ ").strip()
        for path in DOCUMENTS
        for block in re.findall(r"^```console\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ pellucid ")
    ]
    assert len(shown) >= 8
    helps: dict[tuple[str, ...], str] = {}
    for line in shown:
        words = line.partition("#")[0].split()[1:]
        nested = words[0] in ("models", "audit", "study", "dicom")
        command = tuple(words[: 2 if nested else 1])
        if command not in helps:
            done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
            assert done.exit_code == 0, (line, done.output)
            helps[command] = done.output
        missing = [w for w in words if w.startswith("--") and w.partition("=")[0] not in helps[command]]
        assert not missing, (line, missing)


def test_links_between_documents_lead_somewhere() -> None:
    dead = []
    for path in DOCUMENTS:
        for target in LINK.findall(path.read_text(encoding="utf-8")):
            if "://" in target or target.startswith(("mailto:", "generated/", "gallery/")):
                continue
            if not (path.parent / target).exists():
                dead.append(f"{path.relative_to(ROOT)}: {target}")
    assert not dead


def test_the_changelog_has_an_open_section_and_names_what_is_new(cards: types.ModuleType) -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[Unreleased\]", text, re.MULTILINE)
    assert not [n for classes in cards.shelves().values() for n in classes if not re.search(rf"\b{n}\b", text)]


def test_decisions_are_numbered_and_shown(cards: types.ModuleType, tmp_path: Path) -> None:
    records = sorted(p.name for p in (ROOT / "adr").glob("*.md"))
    assert len(records) >= 5
    assert [int(n[:4]) for n in records] == list(range(1, len(records) + 1))
    shown = cards.write_decisions(tmp_path / "docs" / "generated", tmp_path / "adr")
    assert "# Decisions" in shown.read_text(encoding="utf-8")
    (tmp_path / "adr").symlink_to(ROOT / "adr")
    text = cards.write_decisions(tmp_path / "docs" / "generated", tmp_path / "adr").read_text(encoding="utf-8")
    assert re.findall(r"\{include\} \.\./\.\./adr/(.*)", text) == records
    for name in records:
        text = (ROOT / "adr" / name).read_text(encoding="utf-8")
        for part in ("**Status**", "**Context.**", "**Decision.**", "**Considered.**", "**Consequences.**"):
            assert part in text, (name, part)


def test_every_target_of_the_makefile_is_explained() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    explained = set(re.findall(r"^([a-z]+):.*## ", text, re.MULTILINE))
    assert explained == set(phony[1].split())
    assert {"demo", "test", "check", "integration", "bench", "docs", "help", "clean"} <= explained
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_page_on_evaluation_names_every_metric_and_no_other() -> None:
    text = (ROOT / "docs" / "evaluation.md").read_text("utf-8")
    named = set(re.findall(r"`([A-Z][A-Za-z]+)(?::[^`]*)?`", text))
    ours = {name for name, cls in metrics().items() if cls.__module__.startswith("pellucid.")}
    assert named == ours
