"""The lists, the help and the audit record through the command."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pellucid.workbench.registry import cohort_methods, explainers, metrics

Command = Callable[..., object]
FIELDS = {"name", "family", "scope", "tasks", "spatial_ranks", "cost", "source", "caution"}


def methods() -> dict[str, type]:
    """Of one case and of a cohort."""
    assert not set(explainers()) & set(cohort_methods())
    return {**explainers(), **cohort_methods()}


def test_methods_for_cohorts_say_so(pellucid: Command) -> None:
    scopes = {row["name"]: row["scope"] for row in pellucid("methods", "--json").json}
    assert {name for name, scope in scopes.items() if scope == "global"} == set(cohort_methods())
    assert {"PermutationImportance"} <= set(cohort_methods())


@pytest.mark.parametrize(("command", "registry"), [("methods", methods), ("metrics", metrics)])
def test_every_card_is_listed(pellucid: Command, command: str, registry: Callable[[], dict[str, type]]) -> None:
    done = pellucid(command, "--json")
    assert done.code == 0
    assert [row["name"] for row in done.json] == sorted(registry())
    for row in done.json:
        assert set(row) >= FIELDS
        assert all(row[field] for field in FIELDS - {"spatial_ranks"}), row
        assert row["spatial_ranks"] == [2, 3]
    table = pellucid(command)
    assert table.code == 0
    assert all(name[:8] in table.out for name in registry())


@pytest.mark.parametrize(
    "command", ["demo", "explain", "evaluate", "ask", "cohort", "methods", "metrics", "models", "audit", "verify"]
)
def test_help_says_what_a_command_does(pellucid: Command, command: str) -> None:
    done = pellucid(command, "--help")
    assert done.code == 0
    assert "Usage" in done.out


def test_version(pellucid: Command) -> None:
    assert pellucid("--version").out.startswith("pellucid 0.")


def test_audit_record_of_a_run_verifies_and_shows_a_change(pellucid: Command, classifier: Path, tmp_path: Path) -> None:
    from PIL import Image as Picture

    picture = tmp_path / "Doe^Jane.png"
    Picture.radial_gradient("L").save(picture)
    run = pellucid(
        "explain", picture, "--model", classifier, "--trust-code", "--out", tmp_path / "o", "--method", "Saliency"
    )
    assert run.code == 0, run.err
    log = tmp_path / "audit" / "audit.jsonl"
    head = tmp_path / "audit" / "audit-anchor" / "audit.head"
    events = log.read_text()
    assert '"event":"create"' in events
    assert '"event":"config"' in events
    assert '"event":"export"' in events
    assert "Doe" not in events
    assert pellucid("audit", "verify", log, "--anchor", head).code == 0
    assert "tail not provable" in pellucid("audit", "verify", log).out
    log.write_text(events.replace('"event":"create"', '"event":"delete"', 1))
    changed = pellucid("audit", "verify", log, "--anchor", head, "--json")
    assert changed.code == 1
    assert changed.json["ok"] is False
    log.write_text("".join(events.splitlines(keepends=True)[:-1]))
    assert pellucid("audit", "verify", log, "--anchor", head).code == 1, "a cut tail must show against the anchor"


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "pellucid", "metrics", "--json"], capture_output=True, check=True)
    assert {row["name"] for row in json.loads(done.stdout)} == set(metrics())
