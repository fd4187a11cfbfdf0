"""The worker process that encodes images: one JSON request and one JSON answer per line. Keep its imports light."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from knowgen.clients.chat.image_encoding import ImageEncoding, encode_path
from knowgen.core.errors import UnscorableError


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    encoding = ImageEncoding(request["max_side"], request["quality"], request["max_bytes"])
    try:
        encoded = encode_path(Path(request["path"]), request["what"], Path(request["folder"]), encoding)
    except UnscorableError as error:
        return {"unscorable": error.what, "where": error.where}
    except OSError as error:
        return {"unwritable": error.strerror or str(error), "where": request["folder"]}
    answer = {"sha256": encoded.sha256, "width": encoded.width, "height": encoded.height, "size": encoded.size}
    return answer | ({"data": base64.b64encode(encoded.data).decode()} if encoded.path is None else {})


def main() -> None:
    """Answer requests from standard input until it is closed."""
    from PIL import Image

    Image.preinit()
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(json.dumps(_answer(json.loads(line))).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
