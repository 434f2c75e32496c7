"""What the tests of the house look at: the sources as text and as trees, the modules, the declared classes."""

import ast
import importlib
import pkgutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import pellucid
from pellucid.core.card import Declared
from pellucid.core.explainer import CohortExplainer, Explainer
from pellucid.core.metric import Metric

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "pellucid"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file of the package."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Where it is in the package, such as ``core/grid.py``."""
        return self.path.relative_to(PACKAGE).as_posix()

    def functions(self) -> list[tuple[str, Function]]:
        """Every function and method with ``file:line Class.name``."""
        found: list[tuple[str, Function]] = []

        def visit(node: ast.AST, inside: str) -> None:
            for child in ast.iter_child_nodes(node):
                named = isinstance(child, Function | ast.ClassDef)
                if isinstance(child, Function):
                    found.append((f"{self.name}:{child.lineno} {inside}{child.name}", child))
                visit(child, f"{inside}{child.name}." if named else inside)

        visit(self.tree, "")
        return found


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    """All Python files of the package."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return [Source(p, text := p.read_text(encoding="utf-8"), ast.parse(text)) for p in paths]


@pytest.fixture(scope="session")
def modules() -> dict[str, ModuleType]:
    """All modules of the package, imported."""
    found = pkgutil.walk_packages(pellucid.__path__, "pellucid.")
    names = [m.name for m in found if not m.name.endswith("__main__")]
    return {"pellucid": pellucid, **{name: importlib.import_module(name) for name in names}}


@pytest.fixture(scope="session")
def declared(modules: dict[str, ModuleType]) -> dict[str, type[Declared]]:
    """Every method and metric of the package by class name (tests may declare others of their own)."""
    every = {**Explainer.registry, **CohortExplainer.registry, **Metric.registry}
    return {name: cls for name, cls in sorted(every.items()) if cls.__module__ in modules}


@pytest.fixture(scope="session")
def committed() -> list[str]:
    """Every file that is or would be committed: what git ignores is left out."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout: what would be committed is not known")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="session")
def tracked(committed: list[str]) -> dict[str, str]:
    """The text of those that are text, by path."""
    contents = {name: (ROOT / name).read_bytes() for name in committed}
    return {n: c.decode("utf-8", errors="replace") for n, c in contents.items() if b"\0" not in c[:8192]}
