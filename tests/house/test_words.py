"""Words that mislead a reader, and traces of the machine this was written on."""

import ast
import re
from pathlib import Path
from typing import Any

# The display contract on words: a model score is no probability until calibrated, a check of arithmetic is no proof.
MISLEADING = re.compile(
    r"probabili(ty|ties|st)|\bconfiden(ce|t)\b(?! interval)|heat ?map"
    r"|\bcertif|\bproofs?\b|\bproves?\b|\btrustworth|\btrusted\b",
    re.IGNORECASE,
)
# said of what it is not, or as the unit that a model card gives to a head which already is one
DENIED = re.compile(r"\b(no|not|never|neither|nor|without|instead of|unit)\b", re.IGNORECASE)

# Spelled in pieces, so that this file is not its own offender.
MACHINE = [re.escape(f"/{folder}/") for folder in ("work", "root", "home", "opt", "var", "mnt", "Users")]
MACHINE += [re.escape("/" + "tmp" + "/"), r"[A-Z]:\\\\(?:Users|Temp)"]
REGISTRIES = [re.escape(".".join(p)) for p in (("pypi", "org"), ("pythonhosted", "org"), ("download", "pytorch"))]
REGISTRIES += [re.escape(w) for w in ("index" + "-url", "find" + "-links", "artifact" + "ory", "trusted" + "-host")]
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + r")\b")


def strings(tree: ast.Module) -> list[tuple[int, str]]:
    """String constants that are no docstrings."""
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(n.body[0].value)
        for n in ast.walk(tree)
        if isinstance(n, scopes) and n.body and isinstance(n.body[0], ast.Expr)
    }
    constants = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docstrings]
    return [(n.lineno, n.value) for n in constants if isinstance(n.value, str)]


def test_the_package_says_no_misleading_word(sources: list[Any]) -> None:
    # one word alone is an identifier (the unit "probability" of a head that has one), a sentence is for a reader
    sentences = [(f"{s.name}:{line}", t) for s in sources for line, t in strings(s.tree) if " " in t.strip()]
    assert len(sentences) > 200
    assert not [(where, t) for where, t in sentences if MISLEADING.search(t) and not DENIED.search(t)]


def test_the_templates_and_data_say_no_misleading_word(root: Path) -> None:
    kinds = ("*.html", "*.css", "*.js", "*.toml", "*.jinja", "*.j2")
    files = [p for kind in kinds for p in sorted((root / "src").rglob(kind))]
    assert files
    found = [
        f"{p.relative_to(root)}:{i} {line.strip()}"
        for p in files
        for i, line in enumerate(p.read_text(encoding="utf-8").splitlines(), 1)
        if MISLEADING.search(line) and not DENIED.search(line) and " " in line.strip()
    ]
    assert not found


def test_the_check_of_words_bites() -> None:
    assert MISLEADING.search("a probability of 0.9")
    assert MISLEADING.search("high confidence")
    assert not MISLEADING.search("95% confidence interval")
    assert DENIED.search("never a probability")


def offenders(tracked: dict[str, str], patterns: list[str]) -> list[str]:
    """Lines that match one of the patterns."""
    wanted = re.compile("|".join(patterns))
    return [
        f"{name}:{i} {line.strip()[:100]}"
        for name, text in tracked.items()
        for i, line in enumerate(text.splitlines(), 1)
        if wanted.search(line)
    ]


def test_the_search_bites() -> None:
    folder, host = "/" + "work" + "/x", ".".join(("pypi", "org"))
    assert offenders({"a.py": f"open('{folder}')"}, MACHINE) == [f"a.py:1 open('{folder}')"]
    assert offenders({"a.txt": f"\nhttps://{host}/simple"}, REGISTRIES)
    assert offenders({"a.md": "# TO" + "DO later"}, [UNFINISHED.pattern])
    assert not offenders({"a.py": "src/pellucid/workbench/x"}, [*MACHINE, *REGISTRIES, UNFINISHED.pattern])


def test_nothing_names_a_machine(tracked: dict[str, str]) -> None:
    assert len(tracked) > 40
    found = offenders(tracked, MACHINE)
    assert not [f for f in found if not f.startswith(("LICENSE", ".ci/run")) and "#!/usr" not in f]


def test_nothing_names_a_registry(tracked: dict[str, str]) -> None:
    assert not offenders(tracked, REGISTRIES)


def test_nothing_is_left_unfinished(tracked: dict[str, str]) -> None:
    assert not offenders(tracked, [UNFINISHED.pattern])


def test_weights_are_never_unpickled(tracked: dict[str, str]) -> None:
    assert not offenders(tracked, [r"weights_only\s*=\s*" + "False"])
    # a test may show that a payload is one
    ours = {n: text for n, text in tracked.items() if not n.startswith("tests/")}
    assert not offenders(ours, [r"\bpickle\." + "loads?\\("])


def test_shared_data_is_only_pointed_at(committed: list[str], root: Path) -> None:
    """Real images of other people are read beside the clone, and never from inside it; a golden vector is our own."""
    formats = (".dcm", ".nii", ".nii.gz", ".ima", ".tif", ".tiff", ".jpg", ".jpeg", ".png", ".npy", ".npz")
    images = [n for n in committed if n.lower().endswith(formats) and not n.startswith("docs/images/")]
    assert not [n for n in images if not (n.startswith("src/pellucid/demo/models/") and "/golden." in n)]
    heavy = {n: (root / n).stat().st_size for n in committed}
    assert not {n: size for n, size in heavy.items() if size > 2_000_000}
