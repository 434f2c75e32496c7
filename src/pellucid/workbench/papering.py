"""Results for a paper: figures at column width, captions, tables, sources, and what makes them again."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.core.atomic import make_folder, write_bytes
from pellucid.core.errors import UnreadableImage
from pellucid.core.explanation import Explanation, Provenance
from pellucid.io.archive import FORMAT, load_explanation
from pellucid.io.guard import reading
from pellucid.show.figure import sketch
from pellucid.show.plate import DOUBLE, SINGLE, draw_plate, plate_bytes
from pellucid.show.scenery import burned
from pellucid.statistics.bootstrap import interval
from pellucid.statistics.interval import Interval
from pellucid.workbench.manuscript import (
    Score,
    bibliography,
    caption,
    claim_table,
    methods_paragraph,
    scores_csv,
    scores_tex,
    study_paragraph,
    text_warning,
)

_RESULTS, _BUNDLE = "results.json", "reproduction.json"
_HEAD = 200  # characters in which a saved explanation says what it is
_MOST_JSON = 64_000_000
_FEWEST = 2


@dataclass(frozen=True)
class Paper:
    """What was written.

    Args:
        files: by name in the folder.
        figures: number of figures.
        warnings: what to look at before it is published.
    """

    files: Mapping[str, Path]
    figures: int
    warnings: tuple[str, ...]

    def plain(self) -> dict[str, object]:
        """As JSON types."""
        files = {name: str(path) for name, path in self.files.items()}
        return {"figures": self.figures, "files": files, "warnings": list(self.warnings)}


def write_paper(
    source: Path,
    folder: Path,
    scores: Sequence[Score] = (),
    study: Mapping[str, object] | None = None,
    allow_text: bool = False,
) -> Paper:
    """Write figures, words and tables of saved results; no name, pseudonym or file name of a case is in any of them.

    Args:
        source: folder of ``pellucid explain`` or ``evaluate``, or of one of its cases; of a study, with ``scores``.
        folder: made where missing.
        scores: of a study; empty: those of ``results.json``.
        study: what it was made from, as JSON types; None: it is no study.
        allow_text: also figures of images whose file says that text is burned into the pixels: somebody has looked.

    Raises:
        UnreadableImage: there is nothing to write.
        UnwritableOutput: the folder cannot be written.
    """
    scores = tuple(scores) or saved_scores(source)
    folder = make_folder(folder)
    made: list[Provenance] = []
    contents: dict[str, bytes] = {}
    captions: list[str] = []
    warned: list[str] = []
    for explanation in _saved(source):
        p = explanation.provenance
        made.append(p)
        case = list(dict.fromkeys(m.case for m in made)).index(p.case) + 1
        figures, words, doubts = _figure(explanation, len(made), case, allow_text)
        contents |= figures
        captions += [words] if words else []
        warned += [f"case {case}: {doubt}" for doubt in doubts]
    if not made and not scores:
        raise UnreadableImage(
            "the folder holds neither saved explanations nor scores",
            "give the --out of pellucid explain, evaluate or study run",
        )
    contents |= _texts(made, captions, scores)
    contents[_BUNDLE] = _bundle(made, contents, study)
    contents["claim.md"] = claim_table([*contents, "claim.md"]).encode()
    stale = _stale(folder, contents)
    files = {name: write_bytes(folder / name, content) for name, content in contents.items()}
    for path in stale:
        path.unlink(missing_ok=True)
    return Paper(files, len(captions), tuple(dict.fromkeys(warned)))


def _stale(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Files of an earlier paper in the folder that this one does not have; what somebody edited since is kept."""
    try:
        before = json.loads((folder / _BUNDLE).read_text(encoding="utf-8"))["files_sha256"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # no paper of ours is there
    named = [(folder / name, digest) for name, digest in before if Path(name).name == name and name not in contents]
    return [p for p, digest in named if p.is_file() and hashlib.sha256(p.read_bytes()).hexdigest() == digest]


def saved_scores(source: Path) -> tuple[Score, ...]:
    """The scores of ``results.json``, each over the cases; a single case has no interval."""
    path = source / _RESULTS
    if not path.is_file():
        return ()
    with reading("the results.json of pellucid evaluate", "run pellucid evaluate again"):
        cases = json.loads(path.read_text("utf-8"))["cases"]
        rows = [row for case in cases for row in case["scores"]]
        groups: dict[tuple[str, ...], list[float]] = {}
        for row in rows:
            key = tuple(str(row[k]) for k in ("target", "method", "metric", "unit", "direction"))
            groups.setdefault((*key, json.dumps(row["settings"], sort_keys=True)), []).append(
                math.nan if row["value"] is None else float(row["value"])
            )
        model = next((e["model"] for case in cases for e in case["explanations"]), "")
    return tuple(
        Score(model, target, method, _spelled(metric, settings, groups), unit, direction, _mean(values))
        for (target, method, metric, unit, direction, settings), values in groups.items()
    )


def _spelled(metric: str, settings: str, groups: Mapping[tuple[str, ...], object]) -> str:
    """The metric's name, with its settings where it was measured in several ways."""
    ways = {key[5] for key in groups if key[2] == metric}
    if len(ways) < _FEWEST:
        return metric
    found = json.loads(settings).items()
    return f"{metric}:{','.join(f'{k}={v}' for k, v in found if v is not None)}"


def _mean(values: Sequence[float]) -> Interval:
    known = [v for v in values if not math.isnan(v)]
    if len(known) >= _FEWEST:
        return interval(list(values))
    value = known[0] if known else math.nan
    gone = len(values) - len(known)
    return Interval(value, math.nan, math.nan, 0.95, len(known), len(known), gone, "", "one case: no interval")


def _saved(source: Path) -> Iterator[Explanation]:
    """Every saved explanation of a folder and of the folders of its cases, one at a time: volumes are large."""
    found = sorted([*source.glob("*.json"), *source.glob("*/*.json")])
    for path in found:
        if path.stat().st_size < _MOST_JSON and f'"format": "{FORMAT}"' in path.read_text("utf-8", "replace")[:_HEAD]:
            yield load_explanation(path)


def _figure(
    explanation: Explanation, count: int, case: int, allow_text: bool
) -> tuple[dict[str, bytes], str, tuple[str, ...]]:
    """Files of one figure, its caption, and what to look at before it is published."""
    image = explanation.image
    if image is None:
        return {}, "", ("a map was saved without its image, so it has no figure",)
    doubt = text_warning(image)
    if image.traits.get("burned_in") == "YES" and not allow_text:
        return {}, "", (f"no figure of {explanation.provenance.method}: {doubt}; then pass --allow-burned-in",)
    one = sketch(explanation)
    marks = burned(explanation.provenance.warnings)
    name = "".join(c for c in explanation.provenance.method if c.isalnum())
    files: dict[str, bytes] = {}
    for width in (SINGLE, DOUBLE):
        figure = draw_plate(one, image, width, marks)
        files |= {f"figure-{count}-{name}-{width:.0f}mm.{end}": b for end, b in plate_bytes(figure).items()}
    return files, caption(count, one, image, case), (doubt,) if doubt else ()


def _texts(made: Sequence[Provenance], captions: Sequence[str], scores: Sequence[Score]) -> dict[str, bytes]:
    texts = {"references.bib": bibliography(made, scores)}
    texts["methods.md"] = (methods_paragraph(made, scores) if made else study_paragraph(scores)) + "\n"
    if made:
        texts["captions.md"] = "\n\n".join(captions) + "\n"
    if scores:
        texts |= {"scores.csv": scores_csv(scores), "scores.tex": scores_tex(scores)}
    return {name: text.encode() for name, text in texts.items()}


def _bundle(made: Sequence[Provenance], contents: Mapping[str, bytes], study: Mapping[str, object] | None) -> bytes:
    """What makes the maps again, and digests of what was made of them."""
    order = list(dict.fromkeys(p.case for p in made))
    plain: dict[str, Any] = {
        "about": "IMAGE is the image with this digest, MODEL the model with these; run it with these versions",
        "maps": [
            {
                "case": order.index(p.case) + 1,
                "command": command(p),
                "image_sha256": p.input_digest,
                "model": p.model,
                "weights_sha256": p.model_digest,
                "card_sha256": p.card_digest,
                "target": p.target,
                "method": p.method,
                "settings": p.plain()["settings"],
                "layer": p.layer,
                "infill": p.infill,
                "seed": p.seed,
                "precision": p.precision,
                "engine": p.engine,
                "device": p.device,
                "versions": dict(p.versions),
            }
            for p in made
        ],
        "files_sha256": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())},
    }
    if study is not None:
        plain["study"] = {"command": "pellucid study run STUDY.toml --out OUT"} | dict(study)
    return (json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def command(p: Provenance) -> str:
    """The command that makes a map again, seed included; the digests beside it say of which image and model."""
    plain = {k: v for k, v in p.plain()["settings"].items() if isinstance(v, int | float | str)}
    settings = ",".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in plain.items())
    method = f"{p.method}:{settings}" if settings else p.method
    target = p.target.removesuffix(" where predicted")
    words = [
        "pellucid explain IMAGE --model MODEL --out OUT",
        f"--target {_quoted(target)}",
        f"--method {_quoted(method)}",
    ]
    words += [f"--seed {p.seed} --precision {p.precision}"] + ([f"--engine {p.engine}"] if p.engine != "eager" else [])
    return " ".join(words)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
