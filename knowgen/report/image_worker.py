"""A process that writes image files of a report: `python -m knowgen.report.image_worker FOLDER EARLIER LARGE`.

Each line of standard input is a JSON list of images, each as digest, width, height, format and path or null. Each is
answered by one line with a list of the fields of `ShownImage`, or with the `error` that ends the work.
"""

from __future__ import annotations

import json
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

from knowgen.core.records import ImageRef
from knowgen.report.image_files import make_image


def main(arguments: list[str]) -> int:
    """Answer lines until standard input ends, and return 0."""
    folder, earlier, large = Path(arguments[0]), Path(arguments[1]) if arguments[1] else None, arguments[2] == "large"
    for line in sys.stdin:
        try:
            answer: Any = [astuple(_made(entry, folder, earlier, large=large)) for entry in json.loads(line)]
        except OSError as error:
            answer = {"error": [error.errno, error.strerror or str(error), error.filename and str(error.filename)]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


def _made(entry: list[Any], folder: Path, earlier: Path | None, *, large: bool) -> Any:
    digest, width, height, kind, path = entry
    ref = ImageRef(sha256=digest, width=width, height=height, format=kind)
    return make_image(ref, None if path is None else Path(path), folder, earlier, with_large=large)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
