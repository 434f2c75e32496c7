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
from pellucid.core.explainer import Explainer
from pellucid.core.metric import Metric

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "pellucid"


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

    def functions(self) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        """Every function and method with ``file:line name``."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        return [(f"{self.name}:{n.lineno} {n.name}", n) for n in ast.walk(self.tree) if isinstance(n, kinds)]


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
    every = {**Explainer.registry, **Metric.registry}
    return {name: cls for name, cls in sorted(every.items()) if cls.__module__ in modules}


@pytest.fixture(scope="session")
def tracked() -> dict[str, str]:
    """Every text file that is or would be committed, by path: what git ignores is left out."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout: what would be committed is not known")
    texts: dict[str, str] = {}
    for name in filter(None, done.stdout.split("\0")):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        if b"\0" not in content[:8192]:
            texts[name] = content.decode("utf-8", errors="replace")
    return texts
