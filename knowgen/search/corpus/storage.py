"""The files of a corpus: records as JSON lines, with their offsets, the places of their addresses, and a text index.

    corpus.json           what the corpus holds, and its version
    pages.jsonl           one page per line; images.jsonl likewise
    pages.offsets.npy     offset of each line in bytes
    pages.addresses.npy   64-bit digests of the URLs in ascending order, and the number of the page of each
    pages.index/          BM25 over titles and texts; images.index/ over titles
    images/ab/…           image files by the hash of their content

Only what a query needs is read, so that a million pages can stay on disk.
"""

from __future__ import annotations

import hashlib
import json
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from knowgen.core.errors import DataError

FACTS_FILE = "corpus.json"
FORMAT = 1
"""Version of the files."""

REBUILD = "build it again with `knowgen corpus build`"


def url_digest(url: str) -> int:
    """Return the first 63 bits of a URL's SHA-256."""
    return int.from_bytes(hashlib.sha256(url.encode()).digest()[:8], "big") >> 1


class RecordWriter:
    """Writes records as JSON lines, and where each line begins and which URL it has.

    Args:
        folder: Folder of the corpus.
        name: `pages` or `images`.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._file: IO[bytes] = (folder / f"{name}.jsonl").open("wb")
        self._offsets, self._digests = array("q"), array("q")
        self._position = 0
        self.hash = hashlib.sha256()

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._offsets)

    def add(self, record: dict[str, Any], url: str) -> None:
        """Write a record."""
        line = json.dumps(record, ensure_ascii=False, sort_keys=True).encode() + b"\n"
        self._offsets.append(self._position)
        self._digests.append(url_digest(url))
        self._position += len(line)
        self._file.write(line)
        self.hash.update(line)

    def close(self) -> None:
        """Write the offsets and addresses."""
        import numpy as np

        self._file.close()
        digests = np.frombuffer(self._digests, dtype=np.int64) if self._digests else np.zeros(0, np.int64)
        order = np.argsort(digests, kind="stable")
        np.save(self._folder / f"{self._name}.addresses.npy", np.stack([digests[order], order.astype(np.int64)]))
        np.save(self._folder / f"{self._name}.offsets.npy", np.asarray(self._offsets, dtype=np.int64))


class RecordReader:
    """Reads records by number or URL.

    Args:
        folder: Folder of the corpus.
        name: `pages` or `images`.

    Raises:
        DataError: A file is missing or damaged.
    """

    def __init__(self, folder: Path, name: str) -> None:
        import numpy as np

        self._path = folder / f"{name}.jsonl"
        self._lock = threading.Lock()
        try:
            self._file = self._path.open("rb")
            self._offsets = np.load(folder / f"{name}.offsets.npy", mmap_mode="r", allow_pickle=False)
            self._addresses = np.load(folder / f"{name}.addresses.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"the corpus is damaged: {error}", where=str(folder), fix=REBUILD) from error

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._offsets)

    def get(self, number: int) -> dict[str, Any]:
        """Return a record.

        Raises:
            DataError: The line is damaged.
        """
        with self._lock:
            self._file.seek(int(self._offsets[number]))
            line = self._file.readline()
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError("is damaged", where=f"{self._path}:{number + 1}", fix=REBUILD) from error
        if not isinstance(record, dict):
            raise DataError("is damaged", where=f"{self._path}:{number + 1}", fix=REBUILD)
        return record

    def find(self, url: str) -> dict[str, Any] | None:
        """Return the record with a URL, None if there is none."""
        import numpy as np

        digest = url_digest(url)
        place = int(np.searchsorted(self._addresses[0], digest))
        while place < len(self) and int(self._addresses[0][place]) == digest:
            record = self.get(int(self._addresses[1][place]))
            if record.get("url") == url:
                return record
            place += 1
        return None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file that `RecordWriter` wrote, in order."""
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what a corpus says of itself.

    Raises:
        DataError: The folder has no corpus, or one of another format.
    """
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"not a corpus ({FACTS_FILE} is missing)", where=str(folder), fix=f"knowgen corpus build {folder}"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{FACTS_FILE} is damaged: {error}", where=str(folder), fix=REBUILD) from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT or not isinstance(facts.get("version"), str):
        raise DataError(f"a corpus of another format than {FORMAT}", where=str(folder), fix=REBUILD)
    return facts
