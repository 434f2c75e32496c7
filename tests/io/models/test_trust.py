"""The allow-list, the digests on it, and the ban on unpickling anywhere in the source."""

import hashlib
import re
from pathlib import Path

import pytest

from pellucid.core.errors import BadOption, Untrusted
from pellucid.io.trust import Gate, code_digest, open_gate

ROOT = Path(__file__).resolve().parents[3]
A, B = "a" * 64, "b" * 64


def test_no_unpickling_in_the_source_tree() -> None:
    files = [p for folder in ("src", "training", "examples", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    assert len(files) > 30
    banned = re.compile(r"weights_only\s*=\s*False|\bpickle\.loads?\(|joblib\.load|allow_pickle\s*=\s*True|dill\.")
    assert not [f"{p.relative_to(ROOT)}: {m[0]}" for p in files if (m := banned.search(p.read_text(encoding="utf-8")))]


def test_every_torch_load_says_weights_only() -> None:
    calls = [
        (p.name, call)
        for p in (ROOT / "src").rglob("*.py")
        for call in re.findall(r"torch\.load\([^)]*\)", re.sub(r"``[^`]*``", "", p.read_text(encoding="utf-8")))
    ]
    assert calls
    assert not [c for c in calls if "weights_only=True" not in c[1]]


def test_the_digest_of_one_file_is_what_sha256sum_prints() -> None:
    assert code_digest({"model.pt": A}) == A


def test_the_digest_of_several_files_knows_their_names_and_not_their_order() -> None:
    both = code_digest({"x": A, "y": B})
    assert both == code_digest({"y": B, "x": A}) == hashlib.sha256(f"{A}  x\n{B}  y\n".encode()).hexdigest()
    assert both != code_digest({"x": B, "y": A})
    assert both != code_digest({"x": A, "z": B})


def test_the_gate() -> None:
    closed = Gate(False, frozenset({A}), "list.txt")
    assert closed.admit("m", "x", {"m": A}) == "allow-list"
    with pytest.raises(Untrusted, match=f"pass --trust-code .*add the line {B} to the allow-list list.txt"):
        closed.admit("m", "x", {"m": B})
    assert Gate(True, frozenset(), "").admit("m", "x", {"m": B}) == "--trust-code"


def test_where_the_allow_list_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PELLUCID_TRUSTED", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    gate = open_gate()
    assert gate.allowed == frozenset()
    assert gate.listed.endswith("trusted.txt")
    Path(gate.listed).parent.mkdir(parents=True, exist_ok=True)
    Path(gate.listed).write_text(f"# ours\n\n  {A.upper()}  # model\n")
    assert open_gate().allowed == {A}
    named = tmp_path / "named.txt"
    named.write_text(B)
    monkeypatch.setenv("PELLUCID_TRUSTED", str(named))
    assert open_gate().allowed == {B}
    assert open_gate(allow_list=Path(gate.listed)).allowed == {A}
    assert not open_gate().trust_code


def test_a_list_that_is_absent_or_malformed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELLUCID_TRUSTED", str(tmp_path / "absent"))
    with pytest.raises(BadOption, match="there is no allow-list"):
        open_gate()
    (tmp_path / "absent").write_text(f"{A}\nmodel.pt\n")
    with pytest.raises(BadOption, match="line 2 of absent is no SHA-256"):
        open_gate()
