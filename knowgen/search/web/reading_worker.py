"""The worker process that reads documents as text: a JSON line and the document in, a JSON line out.

Hostile HTML can keep a parser busy for hours or make it use all memory. A request names the processor time that its
document may take, after which the system ends the process, and the process may use `MEMORY` bytes.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from typing import Any

from knowgen.core.errors import DataError
from knowgen.search.web.html_text import read_page

MEMORY = 4 << 30
"""Maximum size of the address space, in bytes."""


def _answer(request: dict[str, Any], data: bytes) -> dict[str, Any]:
    try:
        page = read_page(data, request["content_type"], request["charset"], request["url"])
    except DataError as error:
        return {"error": error.what, "fix": error.fix}
    except MemoryError:
        return {"error": "the page needs too much memory to be read"}
    except Exception as error:  # noqa: BLE001 - a parser may raise anything for a broken document
        return {"error": f"the page cannot be read ({type(error).__name__})"}
    return {"page": page.model_dump(mode="json")}


def main() -> None:
    """Answer requests from standard input until it is closed."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        request = json.loads(line)
        data = sys.stdin.buffer.read(request["size"])
        signal.setitimer(signal.ITIMER_VIRTUAL, request["cpu_seconds"])  # its signal ends the process
        answer = json.dumps(_answer(request, data)).encode()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
