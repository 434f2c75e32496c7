"""Every event into the audit record, with nothing about who the patient is."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pellucid.audit.entry import Entry, Event, Outcome, Scalar
from pellucid.audit.log import AuditLog
from pellucid.core.case import Case
from pellucid.core.explanation import Explanation
from pellucid.core.model import Model
from pellucid.explain.byhand import Reply

_LAYER = re.compile(r"[A-Za-z_][A-Za-z_.#\[\]]*(\d{1,4}[A-Za-z_.#\[\]]*)*")  # no long digits: they may name a patient


@dataclass(frozen=True)
class Origin:
    """What an answer was made from.

    Args:
        case: pseudonym.
        seed: of everything random.
        input_digest: of the images.
        model_digest: of the weights.
        card_digest: of the model card; empty: there is none.
    """

    case: str
    seed: int
    input_digest: str
    model_digest: str
    card_digest: str


@dataclass(frozen=True)
class Recorder:
    """Writes what happened to an audit log.

    Args:
        log: append-only and hash-chained.
    """

    log: AuditLog

    def created(self, explanation: Explanation) -> None:
        """An explanation was made."""
        made = explanation.provenance
        self.log.record(
            Entry(
                "create",
                model_hash=made.model_digest or None,
                config_hash=made.card_digest or None,
                output_hash=output_hash(explanation),
                method=made.method,
                parameters={k: _scalar(v) for k, v in made.settings.items()} | {"seed": made.seed},
                subject=made.case,
                input_digest=made.input_digest,
            )
        )

    def asked(self, reply: Reply, origin: Origin) -> None:
        """A question about a region was answered."""
        told = json.dumps(reply.plain(), sort_keys=True).encode()
        self.log.record(
            Entry(
                "create",
                model_hash=origin.model_digest or None,
                config_hash=origin.card_digest or None,
                output_hash=hashlib.sha256(told).hexdigest(),
                method="AskByHand",
                parameters={"do": reply.do, "shams": reply.shams, "seed": origin.seed},
                subject=origin.case,
                input_digest=origin.input_digest,
            )
        )

    def chose(self, case: Case) -> None:
        """A series was chosen among those of its study: by its number, or by the model card."""
        found = case.series
        if found is not None:
            told = {"number": found.number, "of": found.of, "rejected": len(found.rejected), "by": found.by}
            self.log.record(Entry("config", subject=case.name, method="series", parameters=told))

    def exported(self, case: str, what: str, digest: str, uids: tuple[str, ...] = ()) -> None:
        """Files were written for a reader: a report, a map, a DICOM object.

        Args:
            case: pseudonym.
            what: was written.
            digest: SHA-256 of the file.
            uids: of DICOM objects; the record keeps keyed hashes of them.
        """
        self.log.record(Entry("export", subject=case, method=what, output_hash=digest, object_uids=uids))

    def overridden(self, case: str, what: str) -> None:
        """Somebody asked to see what the display rules hide, or to run what the card excludes."""
        self.log.record(Entry("override", subject=case, method=what))

    def configured(self, model: Model, parameters: Mapping[str, object]) -> None:
        """A run began with this model and these settings."""
        self.log.record(
            Entry(
                "config",
                model_hash=model.digest or None,
                config_hash=model.identity.card or None,
                parameters={k: _scalar(v) for k, v in parameters.items()},
            )
        )

    def failed(self, what: str, kind: str, outcome: Outcome = "serious_failure", event: Event = "failure") -> None:
        """Something could not be done; only the ``kind`` of error is written, never its text.

        Args:
            what: was tried, such as ``explain``.
            kind: class name of the error.
            outcome: how bad.
            event: ``failure``, or ``failed_access``.
        """
        self.log.record(Entry(event, outcome=outcome, method=what, parameters={"error": kind}))


def output_hash(explanation: Explanation) -> str:
    """SHA-256 of the map's values, or of the provenance for answers that are no map."""
    total = hashlib.sha256()
    if explanation.answer.kind == "attribution":
        for name, values in sorted(explanation.attribution.maps.items()):
            total.update(name.encode() + values.detach().cpu().float().contiguous().numpy().tobytes())
    else:
        total.update(json.dumps(explanation.provenance.plain(), sort_keys=True).encode())
    return total.hexdigest()


def _scalar(value: object) -> Scalar:
    """A parameter as the record takes it: numbers and layer names as they are, everything else by its type's name."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str) and _LAYER.fullmatch(value):
        return value
    return type(value).__name__
