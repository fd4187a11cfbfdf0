"""The worker process that encodes pictures: told a path a line, it answers a line. It imports next to nothing."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from knowgen.clients.chat.image_encoding import ImageEncoding, encode_path
from knowgen.core.errors import UnscorableError


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    longest, quality = question["form"]
    try:
        found = encode_path(
            Path(question["path"]), question["what"], Path(question["folder"]), ImageEncoding(longest, quality)
        )
    except UnscorableError as error:
        return {"unscorable": error.what, "where": error.where}
    except OSError as error:
        return {"unwritable": error.strerror or str(error), "where": question["folder"]}
    facts = {"sha256": found.sha256, "width": found.width, "height": found.height, "size": found.size}
    return facts | ({"data": base64.b64encode(found.data).decode()} if found.path is None else {})


def main() -> None:
    """Serves one judge until its pipe is closed."""
    from PIL import Image

    Image.preinit()
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(json.dumps(_answer(json.loads(line))).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
