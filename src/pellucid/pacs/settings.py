"""``pellucid.pacs.toml``: who we are, and the only archives that are spoken to."""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pellucid.core.errors import BadOption, UnknownName

FILE_NAME = "pellucid.pacs.toml"
PAGE = "docs/archives.md lists every key"
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_NAME = re.compile(r"[a-z][a-z-]{0,30}[a-z0-9]?")  # it stands in the audit record, which takes no long digits
_TITLE = re.compile(r"[A-Za-z0-9_. -]{1,16}")  # PS3.5 6.2: an AE has at most 16 characters
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Tls:
    """Encryption of a DIMSE connection.

    Args:
        ca: file with the certificates that are believed; None: those of the system.
        certificate: file with our own, where the archive wants one; ``key`` is its private key.
        key: file with the private key; None: it stands in ``certificate``.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Pace:
    """How long is waited, and how often is tried.

    Args:
        connect_s: for a connection, in seconds.
        answer_s: for each answer.
        attempts: in all, for what may pass: no connection, no answer, out of resources.
        wait_s: before the second attempt; it doubles from then on, up to ``longest_wait_s``.
        longest_wait_s: between two attempts.
        settle_s: until an accepted object must be found in the archive.
        objects: most that go over one association, or with one request.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    connect_s: Annotated[float, Field(gt=0, le=600)] = 5.0
    answer_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    attempts: Annotated[int, Field(ge=1, le=20)] = 4
    wait_s: Annotated[float, Field(ge=0, le=600)] = 1.0
    longest_wait_s: Annotated[float, Field(ge=0, le=3600)] = 30.0
    settle_s: Annotated[float, Field(ge=0, le=600)] = 10.0
    objects: Annotated[int, Field(ge=1, le=1000)] = 64


@dataclass(frozen=True)
class Dimse:
    """An archive that speaks DIMSE.

    Args:
        kind: ``dimse``.
        host: name or address; ``port`` likewise.
        ae: its AE title, up to 16 characters.
        retrieve: ``get`` over the same connection, or ``move`` to our own ``[listener]``.
        tls: where the connection is encrypted.
        pace: timeouts and retries.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    kind: Literal["dimse"]
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    ae: str
    retrieve: Literal["get", "move"] = "get"
    tls: Tls | None = None
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True)
class Login:
    """Where the secret for a web archive is found; it never stands in the file or on the command line.

    Args:
        netrc: take user and password for this host from the file ``.netrc``.
        user_variable: environment variable with the user; ``password_variable`` the one with the password.
        token_variable: environment variable with a bearer token.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    netrc: bool = False
    user_variable: str | None = None
    password_variable: str | None = None
    token_variable: str | None = None


@dataclass(frozen=True)
class Web:
    """An archive that speaks DICOMweb.

    Args:
        kind: ``web``.
        url: of the service, without user or password.
        login: where the secret is found; None: there is none.
        ca: file with the certificates that are believed; None: those that ``requests`` brings.
        certificate: file with our own certificate and its key, where the archive wants one.
        plain_http: a login may go over http to another machine.
        pace: timeouts and retries.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    kind: Literal["web"]
    url: str
    login: Login | None = None
    ca: str | None = None
    certificate: str | None = None
    plain_http: bool = False
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True)
class Listener:
    """Where an archive delivers what C-MOVE asked for.

    Args:
        host: address to listen on.
        port: to listen on; the archive must know our AE title with it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 11112


@dataclass(frozen=True)
class Limits:
    """The most that is taken in.

    Args:
        object_mib: size of one object.
        fetch_mib: size of all that one fetch brings.
        objects: number of objects that one fetch brings.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    object_mib: Annotated[int, Field(ge=1, le=4096)] = 1024
    fetch_mib: Annotated[int, Field(ge=1, le=1_048_576)] = 16384
    objects: Annotated[int, Field(ge=1, le=1_000_000)] = 20000


Place = Annotated[Dimse | Web, Field(discriminator="kind")]


@dataclass(frozen=True)
class Settings:
    """The whole file.

    Args:
        ae_title: ours.
        sending: whether anything may be sent at all.
        archives: by name; nothing else is spoken to.
        listener: for C-MOVE.
        limits: of what is taken in.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    ae_title: str = "PELLUCID"
    sending: bool = False
    archives: Mapping[str, Place] = field(default_factory=dict)
    listener: Listener = field(default_factory=Listener)
    limits: Limits = field(default_factory=Limits)

    def archive(self, name: str) -> Dimse | Web:
        """The archive of this name.

        Raises:
            UnknownName: it is not on the list.
        """
        if name not in self.archives:
            known = ", ".join(sorted(self.archives)) or "none"
            raise UnknownName(
                f"expected an archive of the list in {FILE_NAME}, got {name!r}",
                f"archives there: {known}; add a table [archives.NAME] for another",
            )
        return self.archives[name]


_SCHEMA = TypeAdapter(Settings)


def read_settings(path: Path) -> Settings:
    """Read and check the file.

    Raises:
        BadOption: it is absent, not TOML, or has a key that is missing, unknown or of another type; values are not
            quoted, since a password may stand where none belongs.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadOption(f"there is no file {path}", "write one, or give it with --config; docs/archives.md") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise BadOption(f"{path.name} is not TOML", "text stands in quotes; tables stand last") from None
    except OSError as error:
        raise BadOption(f"{path.name} cannot be read: {error.strerror}", "change its permissions") from None
    try:
        found = _SCHEMA.validate_json(json.dumps(raw, default=str))  # strict python wants instances
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(p) for p in first["loc"] if p not in ("dimse", "web"))
        raise BadOption(f"{path.name}, key {place!r}: {first['msg']}", PAGE) from None
    _check_title(found.ae_title, "ae_title")
    for name, archive in found.archives.items():
        _check_archive(name, archive)
    return found


def identity(archive: Dimse | Web) -> str:
    """A digest of where an archive is, so that a name that is given to another does not inherit what was sent."""
    told = asdict(archive)
    kept = {key: told[key] for key in ("kind", "host", "port", "ae", "url") if key in told}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _check_archive(name: str, archive: Dimse | Web) -> None:
    if not _NAME.fullmatch(name):
        raise BadOption(
            f"expected a name of small letters and hyphens for an archive, at most one digit at its end, got {name!r}",
            "rename the table, for example [archives.main]",
        )
    if isinstance(archive, Dimse):
        _check_title(archive.ae, f"archives.{name}.ae")
    else:
        _check_web(name, archive)


def _check_title(title: str, key: str) -> None:
    if not _TITLE.fullmatch(title) or not title.strip():
        raise BadOption(f"{key} must have 1 to 16 letters, digits and _. -", f"correct {key}; PS3.5 6.2 has the rule")


def _check_web(name: str, archive: Web) -> None:
    parts = urlsplit(archive.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise BadOption(
            f"archives.{name}.url must be an http or https address", "for example https://pacs.example/dicom-web"
        )
    if parts.username or parts.password:
        raise BadOption(
            f"archives.{name}.url holds a user or a password",
            f"remove it; name environment variables in [archives.{name}.login], or netrc = true",
        )
    if archive.login is None:
        return
    _check_login(name, archive.login)
    if parts.scheme == "http" and not archive.plain_http and not _local(parts.hostname):
        raise BadOption(
            f"archives.{name} would send its login unencrypted to another machine",
            "use https, or say plain_http = true where the line is safe",
        )


def _check_login(name: str, login: Login) -> None:
    pair = (login.user_variable, login.password_variable)
    ways = [login.netrc, any(pair), login.token_variable is not None]
    if sum(ways) != 1 or (any(pair) and not all(pair)):
        raise BadOption(
            f"archives.{name}.login must name one way",
            "netrc = true, or user_variable and password_variable, or token_variable",
        )
    for variable in (*pair, login.token_variable):
        if variable is not None and not _VARIABLE.fullmatch(variable):
            raise BadOption(
                f"archives.{name}.login must name environment variables, not hold a secret",
                "write the name of a variable: letters, digits and _",
            )


def _local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
