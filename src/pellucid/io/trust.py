"""Code that a model brings along runs only when somebody said it may.

``adr/`` says which forms of a model can run code and why; ``safetensors``, ``weights_only`` loads, ONNX and factories
of Pellucid itself cannot, and never come here.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from platformdirs import user_config_path

from pellucid.core.errors import BadOption, Untrusted

ALLOW_LIST_VARIABLE = "PELLUCID_TRUSTED"
Trust = Literal["not needed", "--trust-code", "allow-list"]
_DIGEST = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Gate:
    """Who may pass: everything, or what the allow-list names.

    Args:
        trust_code: the user says that the code of this model may run.
        allowed: digests of code that may run.
        listed: where the allow-list is, for the message.
    """

    trust_code: bool
    allowed: frozenset[str]
    listed: str

    def admit(self, name: str, what: str, code: Mapping[str, str]) -> Trust:
        """Let the code of a model run, or refuse before anything of it is imported or run.

        Args:
            name: of the model.
            what: the code, in words.
            code: SHA-256 by file of the card and of every file that would run.

        Raises:
            Untrusted: neither the flag nor the allow-list lets it pass.
        """
        digest = code_digest(code)
        if digest in self.allowed:
            return "allow-list"
        if self.trust_code:
            return "--trust-code"
        raise Untrusted(
            f"{name} would run code on this computer: {what}",
            f"if you trust its makers, pass --trust-code (Python: trust_code=True), or add the line {digest} "
            f"to the allow-list {self.listed}",
        )


def open_gate(trust_code: bool = False, allow_list: Path | None = None) -> Gate:
    """The gate as the user has set it.

    Args:
        trust_code: let everything pass.
        allow_list: text file with one SHA-256 a line, ``#`` before a comment; None: that of the environment variable
            ``PELLUCID_TRUSTED``, else ``trusted.txt`` in the user's configuration folder.

    Raises:
        BadOption: a list that was named and is absent, or a line that is no digest.
    """
    variable = os.environ.get(ALLOW_LIST_VARIABLE)
    named = allow_list or (Path(variable) if variable else None)
    path = named or user_config_path("pellucid", appauthor=False) / "trusted.txt"
    if not path.is_file():
        if named is not None:
            raise BadOption(f"there is no allow-list {path}", "create the file or unset the option")
        return Gate(trust_code, frozenset(), str(path))
    digests = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip().lower()
        if text and not _DIGEST.match(text):
            raise BadOption(f"line {number} of {path.name} is no SHA-256", "write 64 digits of 0-9 and a-f")
        if text:
            digests.add(text)
    return Gate(trust_code, frozenset(digests), str(path))


def code_digest(code: Mapping[str, str]) -> str:
    """One digest of several files by name; of a single file its own SHA-256, as ``sha256sum`` prints it."""
    if len(code) == 1:
        return next(iter(code.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(code.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
