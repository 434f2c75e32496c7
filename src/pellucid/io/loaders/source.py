"""Code that comes with a model: found without importing it, hashed, and run from the very bytes that were hashed."""

import hashlib
import importlib
import sys
import types
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path

from pellucid.core.errors import BadCard
from pellucid.io.trust import sha256_of

OWN = "pellucid"
_MAX_FILES = 2000  # in a model's folder; more is no folder of a model


@dataclass(frozen=True)
class Source:
    """The code behind a factory.

    Args:
        module: its name as the card writes it.
        kind: ``own`` (of Pellucid), ``folder`` (beside the card) or ``installed``.
        digests: SHA-256 of every file that importing it could run, by name.
        folder: of the card, where the code lies beside it.
        code: the bytes of those files.
    """

    module: str
    kind: str
    digests: Mapping[str, str]
    folder: Path | None = None
    code: Mapping[str, bytes] = field(default_factory=dict)

    def load(self) -> types.ModuleType:
        """Import the module; code beside a card runs from the bytes that were hashed, under a name of its own."""
        if self.folder is None:
            return importlib.import_module(self.module)
        digest = hashlib.sha256("".join(sorted(self.digests.values())).encode() + str(self.folder).encode()).hexdigest()
        root = f"pellucid_model_{digest[:16]}"
        if root not in sys.modules:
            sys.meta_path.insert(0, FolderCode(root, self.folder, self.code))
        return importlib.import_module(f"{root}.{self.module}")


def find_source(module: str, folder: Path) -> Source:
    """Where a module's code is, without importing it or any package it lies in.

    Raises:
        BadCard: there is no such module beside the card or among the installed packages.
    """
    top = module.partition(".")[0]
    if top == OWN:
        return Source(module, "own", _installed(module))
    beside = folder.joinpath(*module.split("."))
    if beside.with_suffix(".py").is_file() or (beside / "__init__.py").is_file():
        code = read_code(folder)
        digests = {k: hashlib.sha256(v).hexdigest() for k, v in code.items()}
        return Source(module, "folder", digests, folder.resolve(), code)
    return Source(module, "installed", _installed(module))


def read_code(folder: Path) -> dict[str, bytes]:
    """Every Python source file of a folder by its path in it, hidden folders left out.

    Raises:
        BadCard: so many that it cannot be a model's own folder.
    """
    found = [p for p in sorted(folder.rglob("*.py")) if p.is_file()]
    paths = [p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    if len(paths) > _MAX_FILES:
        raise BadCard(
            f"the folder {folder.name} holds {len(paths)} Python files", "put the model into a folder of its own"
        )
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def _installed(module: str) -> dict[str, str]:
    """SHA-256 of the files of an installed module's whole package (its dependencies belong to the environment)."""
    search: Sequence[str] | None = None
    parts = module.split(".")
    first: ModuleSpec | None = None
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        spec = _spec(name, search)
        if spec is None:
            raise BadCard(
                f"model.factory: there is no module {name!r} beside the card or among the installed packages",
                "put its file beside the card, or install the package",
            )
        first, search = first or spec, spec.submodule_search_locations
    roots = [Path(p) for p in (first.submodule_search_locations or ())] if first is not None else []
    if not roots:
        origin = first.origin if first is not None else None
        return (
            {f"{parts[0]}.py": sha256_of(Path(origin))} if origin and Path(origin).is_file() else {parts[0]: parts[0]}
        )
    return {
        f"{parts[0]}/{path.relative_to(root).as_posix()}": sha256_of(path)
        for root in roots
        for path in sorted(root.rglob("*.py"))
    }


def _spec(name: str, search: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        spec = None if isinstance(finder, FolderCode) else finder.find_spec(name, search)
        if spec is not None:
            return spec
    return None


class FolderCode(MetaPathFinder, ExecutionLoader):
    """Modules made from bytes in memory: no byte code from disk is ever used, and nothing is written beside the model.

    Args:
        root: package under whose name the folder's modules appear; empty: under their own names.
        folder: for tracebacks.
        code: bytes by path in the folder.
    """

    def __init__(self, root: str, folder: Path, code: Mapping[str, bytes]) -> None:
        self._root, self._folder, self._code = root, folder, code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``."""
        found = self._path(fullname)
        if found is None:
            return None
        return spec_from_loader(
            fullname, self, origin=self.get_filename(fullname), is_package=self.is_package(fullname)
        )

    def is_package(self, fullname: str) -> bool:
        """See ``importlib.abc.InspectLoader``."""
        return not (self._path(fullname) or "").endswith(".py") or self.get_filename(fullname).endswith("__init__.py")

    def get_filename(self, fullname: str) -> str:
        """See ``importlib.abc.ExecutionLoader``."""
        return str(self._folder / (self._path(fullname) or ""))

    def get_source(self, fullname: str) -> str:
        """See ``importlib.abc.InspectLoader``."""
        return self._code.get(self._path(fullname) or "", b"").decode("utf-8")

    def _path(self, fullname: str) -> str | None:
        """Path of a module's file; of a folder without ``__init__.py``, the folder with a slash."""
        if fullname == self._root:
            return "./"
        inside = fullname.removeprefix(f"{self._root}.") if self._root else fullname
        if self._root and inside == fullname:
            return None
        name = inside.replace(".", "/")
        for path in (f"{name}/__init__.py", f"{name}.py"):
            if path in self._code:
                return path
        return f"{name}/" if any(p.startswith(f"{name}/") for p in self._code) else None


@contextmanager
def importable(folder: Path, code: Mapping[str, bytes]) -> Generator[None, None, None]:
    """Make the modules of a bundle's folder importable by their own names, for as long as the bundle is read."""
    names = {p.partition("/")[0].removesuffix(".py") for p in code}
    before = {k: v for k, v in sys.modules.items() if k.partition(".")[0] in names}
    finder = FolderCode("", folder, code)
    sys.meta_path.insert(0, finder)
    for name in before:
        del sys.modules[name]
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [k for k in sys.modules if k.partition(".")[0] in names]:
            del sys.modules[name]
        sys.modules.update(before)
