"""``pellucid dicom verify``: whether an object is what its recipe makes of its source."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pellucid.cli import face
from pellucid.cli.choosing import Choice, Index, Resample, SeriesNumber, chosen_cases
from pellucid.core.case import Case
from pellucid.core.errors import BadOption, PellucidError
from pellucid.io.models import load_model
from pellucid.io.objects.reading import OurObject, read_ours
from pellucid.io.reader import Cases, iter_cases, read_only_mask
from pellucid.workbench.attesting import TOLERANCE, Attestation, Means, attest, choose_case, record
from pellucid.workbench.gathering import Wish, background_of
from pellucid.workbench.repeating import request_of

_CODES = {"agrees": face.DONE, "differs": face.FAIL, "not verified": face.INCONCLUSIVE}
_COLORS = {"agrees": "green", "differs": "bold red", "not verified": "yellow"}
_SAYS = {
    "agrees": "agrees: recipe, source and model give what the object holds",
    "differs": "DIFFERS: the object is not what its recipe, this source and this model give",
    "not verified": "not verified: see above what could not be",
}
_NOTHING = "Agreement says nothing about whether the model is right."


def verify(
    object_path: Annotated[Path, typer.Argument(metavar="OBJECT", help="A DICOM object that Pellucid wrote.")],
    source: Annotated[Path, typer.Option("--source", help="The series or image that was explained.")],
    model: Annotated[Path, typer.Option("--model", help="The model.toml that explained it.")],
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Of a map's value, as a share of its largest magnitude.")
    ] = TOLERANCE,
    region: Annotated[
        list[str] | None, typer.Option("--region", help="Mask that the case had; as for explain.")
    ] = None,
    background: Annotated[Path | None, typer.Option("--background", help="Cases it was compared with.")] = None,
    index: Index = None,
    series: SeriesNumber = None,
    resample_geometry: Resample = False,
    device: face.Device = "cpu",
    trust_code: face.Trust = False,
    audit: face.AuditFile = None,
    as_json: face.Json = False,
) -> None:
    """Make the explanation in a DICOM object again, and say what agrees and what differs.

    Exit codes: 0 agrees, 1 differs, 2 bad input, 3 something could not be verified.
    """
    with face.reported(as_json):
        recorder = face.recorder(audit)
        try:
            if not 0 <= tolerance < 1:
                raise BadOption(f"expected a tolerance from 0 to 1, got {tolerance}", "for example 1e-5")
            ours = read_ours(object_path)
            loaded = load_model(model, trust_code, face.check_device(device))
            request = request_of(ours.recipe.scored({}))
            wish = Wish(seed=request.seed, infills=request.infills, override=request.override)
            others = background_of(iter_cases(background), loaded, wish) if background is not None else None
            with face.progress(as_json) as bar:
                step = face.stepper(bar, bar.add_task("verify", total=None), "verify")
                choice = Choice(index, series=series, resample=resample_geometry)
                case = _with_regions(chosen_cases(source, choice, loaded.card), region or [], ours)
                found = attest(ours, Means(case, loaded, tolerance, others, step))
        except PellucidError as error:
            recorder.failed("verify", type(error).__name__)
            raise
        record(recorder, found, case, ours)
        _show(found, as_json)
    raise typer.Exit(_CODES[found.verdict])


def _with_regions(cases: Cases, regions: list[str], ours: OurObject) -> Case:
    """The case that the object speaks of, with the masks it had."""
    if not cases.cases:
        raise cases.failures[0].error
    case = choose_case(cases.cases, ours)
    for reader, mask in face.masks(regions).items():
        region, _ = read_only_mask(replace(cases, cases=(case,)), mask)
        case = replace(case, regions={**case.regions, reader or "expert": replace(region, reader=reader)})
    return case


def _show(found: Attestation, as_json: bool) -> None:
    if as_json:
        face.show_json(found.plain() | {"about": _NOTHING})
        return
    face.out.print(f"{found.kind.value} of {escape(found.recipe.method)} for {escape(found.recipe.target)}")
    for one in found.findings:
        line = f"[{_COLORS[one.state]}]{one.state:12}[/] {one.name}: {escape(one.words)}"
        face.out.print(line, soft_wrap=True, highlight=False)
    face.out.print(f"[{_COLORS[found.verdict]}]{_SAYS[found.verdict]}[/]. {_NOTHING}", soft_wrap=True, highlight=False)
