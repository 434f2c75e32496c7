"""What an event says before it is written down, checked so that no patient data can be part of it by accident."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, final, get_args

from pellucid.core.errors import AuditError

Event = Literal[
    "create",
    "view",
    "export",
    "send",
    "override",
    "config",
    "model_change",
    "threshold_change",
    "delete",
    "failure",
    "failed_access",
]
Purpose = Literal["treatment", "research", "quality", "teaching", "operations", "test"]
Outcome = Literal["success", "minor_failure", "serious_failure", "major_failure"]  # DICOM PS3.15 A.5: 0, 4, 8, 12
Scalar = str | int | float | bool | None

MAX_OBJECTS = 1024
MAX_PARAMETERS = 64
_LARGEST = 1e300
DIGEST = re.compile(r"[0-9a-f]{64}")
TOKEN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,79}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,79}")
_NAME_WORDS = "1 to 80 letters, digits, _ and ., not a digit first"
_TEXT = re.compile(r"[\w .:+*=<>#%()\[\]-]{0,80}")
_LEAKS = (
    (re.compile(r"[0-2](\.\d+){5,}"), "a DICOM UID"),
    (re.compile(r".*\.(dcm|nii|gz|png|jpe?g|tiff?|csv|json|toml)", re.IGNORECASE), "a file name"),
    (re.compile(r"(?=.*\d)[0-9a-f]{8,}", re.IGNORECASE), "a hash or an identifier"),
    (re.compile(r".*\d{6}.*"), "an identifier or a date"),
)


def check_form(name: str, value: str, pattern: re.Pattern[str], expected: str) -> None:
    """Refuse text of another form, without repeating it: it may be the very thing that must not be written down.

    Args:
        name: of the field, for the message.
        value: what was given.
        pattern: what it must match as a whole.
        expected: the pattern in words.
    """
    if not pattern.fullmatch(value):
        raise AuditError(f"{name} must be {expected}", f"Give {name} in that form, without patient data")


def _check_text(name: str, value: str, mend: str) -> None:
    check_form(f"parameter {name!r}", value, _TEXT, "at most 80 letters, digits, spaces and _.:+*=<>#%()[]-")
    for pattern, what in _LEAKS:
        if pattern.fullmatch(value):
            raise AuditError(f"parameter {name!r} looks like {what}", mend)


def _check_parameters(parameters: Mapping[str, Scalar]) -> None:
    if len(parameters) > MAX_PARAMETERS:
        raise AuditError(f"at most {MAX_PARAMETERS} parameters, not {len(parameters)}", "Record the method's own only")
    for name, value in parameters.items():
        check_form("the name of a parameter", name, _NAME, _NAME_WORDS)
        mend = f"Record {name!r} as the method declares it; Entry has fields of their own for patients and objects"
        if isinstance(value, str):
            _check_text(name, value, mend)
        elif not isinstance(value, int | float | None):
            raise AuditError(f"parameter {name!r} must be a JSON scalar, not {type(value).__name__}", mend)
        elif value is not None and not abs(value) < _LARGEST:  # so written that not-a-number fails too
            raise AuditError(f"parameter {name!r} must be finite", "Record None for infinity or not-a-number")


@final
@dataclass(frozen=True)
class Entry:
    """What happened, as the caller knows it; ``AuditLog.record`` makes a line without patient data of it.

    There is no free text. ``subject``, ``input_digest`` and ``object_uids`` are given raw, and written as keyed hashes.
    The checks catch paths, UIDs, file names and long digits, not every name: take parameters from the method's fields.

    Args:
        event: one of ``Event``; ``purpose`` and ``outcome`` likewise.
        model_hash, config_hash, output_hash: sha256 of the weights, the configuration and the result, 64 hex digits.
        method: name of the explainer, metric or command; ``parameters`` are its fields, JSON scalars.
        subject: patient or study identifier. ``input_digest``: raw hash of the input. ``object_uids``: at most 1024.

    Raises:
        AuditError: a value of another form; the value itself is not repeated.
    """

    event: Event
    purpose: Purpose = field(default="research", kw_only=True)
    outcome: Outcome = field(default="success", kw_only=True)
    model_hash: str | None = field(default=None, kw_only=True)
    config_hash: str | None = field(default=None, kw_only=True)
    output_hash: str | None = field(default=None, kw_only=True)
    method: str | None = field(default=None, kw_only=True)
    parameters: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar], kw_only=True)
    subject: str | None = field(default=None, kw_only=True, repr=False)
    input_digest: str | None = field(default=None, kw_only=True, repr=False)
    object_uids: tuple[str, ...] = field(default=(), kw_only=True, repr=False)

    def __post_init__(self) -> None:
        words = {"event": get_args(Event), "purpose": get_args(Purpose), "outcome": get_args(Outcome)}
        for name, allowed in words.items():
            if getattr(self, name) not in allowed:
                raise AuditError(f"{name} must be one of {', '.join(allowed)}", "Give one of these")
        for name in ("model_hash", "config_hash", "output_hash"):
            if (value := getattr(self, name)) is not None:
                check_form(name, value, DIGEST, "a sha256 as 64 hex digits in lower case")
        if self.method is not None:
            check_form("method", self.method, _NAME, _NAME_WORDS)
        if len(self.object_uids) > MAX_OBJECTS:
            raise AuditError(f"at most {MAX_OBJECTS} object UIDs, not {len(self.object_uids)}", "Give the series UID")
        copy = dict(self.parameters)  # a later change of the caller's own mapping must not pass by the check
        _check_parameters(copy)
        object.__setattr__(self, "parameters", copy)
