"""What a server says in its headers."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds an endpoint asks to wait, written as seconds, milliseconds or a date."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            seconds = float(milliseconds) / 1000
        elif not (wait := headers.get("retry-after")):
            return None
        elif re.fullmatch(r"[\d.]+", wait.strip()):
            seconds = float(wait)
        else:
            seconds = parsedate_to_datetime(wait).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
