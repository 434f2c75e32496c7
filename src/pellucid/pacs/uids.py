"""Unique identifiers from elsewhere."""

import re

from pydicom.uid import RE_VALID_UID

_MOST = 64  # PS3.5 9.1
_VALID = re.compile(RE_VALID_UID)


def is_uid(text: str) -> bool:
    """Whether a text is a UID, without the warning that pydicom writes with what is none.

    Example:
        >>> is_uid("1.2.840"), is_uid("../../etc/passwd"), is_uid("1." + "2" * 63)
        (True, False, False)
    """
    return len(text) <= _MOST and bool(_VALID.fullmatch(text))
