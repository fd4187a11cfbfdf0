"""Image files as text in a service's answer: base64 in every form that services send, and data URLs."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

_LABEL = re.compile(r"\s*data:(?P<type>[^,]{0,200}),", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/")


def image_bytes_of(text: str) -> bytes:
    """Return the bytes of a base64 text or of a data URL.

    Line ends and other white space are ignored, padding may be missing, and the alphabet may be the URL-safe one
    (RFC 4648, section 5).

    Raises:
        ValueError: It is not valid base64.

    Example:
        >>> image_bytes_of("data:image/png;base64,iVBO\\nRw")
        b'\\x89PNG'
    """
    label = _LABEL.match(text)
    if label is not None:
        text = text[label.end() :]
        if not label["type"].lower().rstrip().endswith("base64"):
            return unquote_to_bytes(text)
    compact = "".join(text.split()).rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the image in the response is not valid base64") from error
