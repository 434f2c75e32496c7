"""Our own storage provider: there only while a C-MOVE runs, and for one archive only."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

from pydicom.uid import (
    JPEG2000,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from pellucid.core.errors import BadOption
from pellucid.pacs.extra import optional, quiet
from pellucid.pacs.inbox import MIB
from pellucid.pacs.settings import Limits, Listener

# Deflated is not among them: it inflates to anything before its first element is read.
SYNTAXES = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless,
    JPEG2000Lossless, JPEG2000, RLELossless,
)  # fmt: skip
_MOST_LINKS = 4


@final
class Meter:
    """Ends an association that sends more for one object than the limit, before it is all in memory.

    Args:
        limits: of what is taken.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = limits.object_mib * MIB + MIB  # what else belongs to a message is far below this
        self._counted = 0

    def count(self, event: Any) -> None:
        """Bytes came."""
        self._counted += len(event.data)
        if self._counted > self._most:
            self._counted = 0
            event.assoc.abort(block=False)

    def whole(self) -> None:
        """An object is complete."""
        self._counted = 0


def handlers(keep: Callable[[bytes], int], limits: Limits) -> list[tuple[Any, Any]]:
    """What pynetdicom calls when objects come: each is handed to ``keep`` as a file of PS3.10.

    Args:
        keep: returns the status to answer with.
        limits: of what is taken.
    """
    with optional():
        from pynetdicom import evt
    meter = Meter(limits)

    def take(event: Any) -> int:
        meter.whole()
        return keep(event.encoded_dataset())

    return [(evt.EVT_C_STORE, take), (evt.EVT_DATA_RECV, meter.count)]


@contextmanager
def listening(
    where: Listener, title: str, caller: str, kinds: Sequence[str], watching: list[tuple[Any, Any]]
) -> Iterator[int]:
    """Listen while the block runs, to one AE title, for these kinds of objects; the port is given.

    Args:
        where: to listen.
        title: ours; a caller that names another is refused.
        caller: the only AE title that may call.
        kinds: SOP classes that are taken.
        watching: see ``handlers``.

    Raises:
        BadOption: nobody can listen there.
    """
    with optional():
        from pynetdicom.ae import ApplicationEntity
    entity = ApplicationEntity(ae_title=title)
    entity.require_called_aet, entity.require_calling_aet = True, [caller]
    entity.maximum_associations = _MOST_LINKS
    entity.network_timeout = entity.acse_timeout = entity.dimse_timeout = 60
    for kind in kinds:
        entity.add_supported_context(kind, list(SYNTAXES))
    with quiet():
        try:
            server = entity.start_server((where.host, where.port), block=False, evt_handlers=watching)
        except OSError as error:
            raise BadOption(
                f"nobody can listen on port {where.port} ({error.strerror})", "give another [listener] port or host"
            ) from None
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
