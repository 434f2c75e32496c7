"""``pellucid gate``: exit codes, JSON and JUnit; what cannot be judged is refused with the mend."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from pellucid.study.folder import MANIFEST, SCORES

Command = Callable[..., object]


@pytest.fixture(scope="session")
def simulated() -> ModuleType:
    """How to write a study with known scores."""
    place = Path(__file__).parents[1] / "study" / "simulated.py"
    spec = importlib.util.spec_from_file_location("simulated_study", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(simulated: ModuleType, folder: Path, mean: float, **criterion: object) -> tuple[Path, Path]:
    """A study with a mean, and a protocol that asks for more than 0.7."""
    study = simulated.write_study(folder / "study", simulated.rows(simulated.spread(mean, 0.2, 80)))
    (folder / "own.toml").write_text(simulated.protocol(criterion))
    return study, folder / "own.toml"


@pytest.mark.parametrize(
    ("mean", "criterion", "verdict", "code"),
    [
        (0.9, {}, "PASS", 0),
        (0.9, {"status": "unverified"}, "INDICATIVE", 0),
        (0.5, {}, "FAIL", 1),
        (0.71, {}, "INCONCLUSIVE", 3),
        (0.9, {"metric": "Dice"}, "NOT MEASURED", 3),
    ],
)
def test_exit_codes(
    pellucid: Command,
    simulated: ModuleType,
    tmp_path: Path,
    mean: float,
    criterion: dict[str, object],
    verdict: str,
    code: int,
) -> None:
    study, protocol = written(simulated, tmp_path, mean, **criterion)
    done = pellucid("gate", study, "--protocol", protocol, "--json")
    assert (done.code, done.json["exit_code"], done.json["verdicts"][0]["verdict"]) == (code, code, verdict)
    shown = pellucid("gate", study, "--protocol", protocol)
    assert shown.code == code
    assert verdict in shown.out
    assert "says nothing about use on patients" in shown.out


def test_junit_and_an_earlier_study(pellucid: Command, simulated: ModuleType, tmp_path: Path) -> None:
    study, protocol = written(simulated, tmp_path, 0.71)
    before, _ = written(simulated, tmp_path / "before", 0.9)
    out = tmp_path / "gate.xml"
    done = pellucid("gate", study, "--protocol", protocol, "--against", before, "--junit", out, "--json")
    (criterion,) = done.json["verdicts"][0]["criteria"]
    assert criterion["change"]["side"] == "no clear change", "every pair differs by the same: no width, no claim"
    assert criterion["patients_still_needed"] > 0
    (suite,) = ElementTree.parse(out).getroot()
    assert suite.get("errors") == "1"
    shown = pellucid("gate", study, "--protocol", protocol, "--against", before)
    assert "c0, change" in shown.out
    assert "to settle it, as PASS if the estimate stays" in " ".join(shown.out.split())


def test_a_table_that_was_edited_is_refused(pellucid: Command, simulated: ModuleType, tmp_path: Path) -> None:
    study, protocol = written(simulated, tmp_path, 0.5)
    table = study / SCORES
    table.write_text(table.read_text().replace("0.3,", "0.9,"))
    done = pellucid("gate", study, "--protocol", protocol, "--json")
    assert done.code == 2
    assert "changed since the study ended" in done.json["problem"]


def test_bad_input_is_refused_with_the_mend(pellucid: Command, simulated: ModuleType, tmp_path: Path) -> None:
    study, protocol = written(simulated, tmp_path, 0.9)
    assert "no output folder of a study" in pellucid("gate", tmp_path, "--protocol", protocol, "--json").json["problem"]
    assert "screening-mammography" in pellucid("gate", study, "--protocol", "mammo", "--json").json["mend"]
    done = pellucid("gate", study, "--protocol", protocol, "--method", "RISE", "--json")
    assert (done.code, done.json["error"]) == (2, "UnknownName")
    manifest = json.loads((study / MANIFEST).read_text())
    (study / MANIFEST).write_text(json.dumps(manifest | {"scores": ""}))
    assert "not finished" in pellucid("gate", study, "--protocol", protocol, "--json").json["problem"]
    (study / MANIFEST).write_text("{")
    assert pellucid("gate", study, "--protocol", protocol, "--json").code == 2
