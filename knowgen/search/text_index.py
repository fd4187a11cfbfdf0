"""BM25 over texts: built in memory, or written to a folder and read from disk."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class TextIndex:
    """BM25 over texts. English stop words are removed and words are stemmed.

    The texts are read once and not kept. Building takes about 40 bytes of memory per word of the texts at its peak.

    Args:
        texts: Texts to index.

    Example:
        >>> TextIndex(["a red robot", "a blue vase"]).find("robots", k=5)
        [0]
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        import bm25s

        self._tokenizer = _tokenizer()
        self._lock = threading.Lock()
        self._index: Any = bm25s.BM25()
        # arrays, because lists of Python integers take twice the memory
        documents = [array("i", ids) for ids in self._tokenizer.streaming_tokenize(texts, allow_empty=False)]
        self._size = len(documents)
        self._vocabulary: dict[str, int] = dict(self._tokenizer.stem_to_sid)
        if self._vocabulary:
            self._index.index((documents, dict(self._vocabulary)), show_progress=False)

    @classmethod
    def load(cls, folder: Path) -> TextIndex:
        """Open an index that `save` wrote. Its scores stay on disk, and are read where a query needs them.

        Raises:
            OSError: A file is missing or cannot be read.
            ValueError: A file is damaged.
        """
        import bm25s

        index = cls()
        if (folder / "params.index.json").is_file():
            index._index = bm25s.BM25.load(folder, mmap=True, show_progress=False)
            index._vocabulary = {word: number for word, number in index._index.vocab_dict.items() if word}
            index._size = int(index._index.scores["num_docs"])
        return index

    def save(self, folder: Path) -> None:
        """Write the index into a folder. One without words writes nothing, and `load` returns an empty index for it."""
        folder.mkdir(parents=True, exist_ok=True)
        if self._vocabulary:
            self._index.save(folder, show_progress=False)

    def find(self, query: str, k: int) -> list[int]:
        """Return the positions of at most `k` texts that share a word with the query, best first."""
        stems = [stem for word in self.words(query) if (stem := self._stem(word)) in self._vocabulary]
        if not stems or k < 1:
            return []
        with self._lock:
            positions, scores = self._index.retrieve([stems], k=min(k, self._size), show_progress=False)
        return [int(position) for position, score in zip(positions[0], scores[0], strict=True) if score > 0]

    def words(self, text: str) -> list[str]:
        """Return the words of a text as they are indexed, before stemming."""
        return [word for word in self._tokenizer.splitter(text.lower()) if word not in self._tokenizer.stopwords]

    def best_passage(self, text: str, query: str, length: int) -> str:
        """Return the passage of a text that has most words of a query, on one line.

        Args:
            text: The text.
            query: The query.
            length: Maximum number of characters.
        """
        flat = " ".join(text.split())
        if len(flat) <= length:
            return flat
        wanted = {self._stem(word) for word in self.words(query)}
        starts = [0, *(place + 2 for place in _all_places(flat, ". ") if place + 2 < len(flat))]

        def common(start: int) -> int:
            return len(wanted & set(map(self._stem, self.words(flat[start : start + length]))))

        best = max(starts, key=lambda start: (common(start), -start))
        for start in starts:  # leave out the sentences before the first that has one of the words
            if best < start < best + length and common(start) == common(best):
                best = start
        return flat[best : best + length]

    def _stem(self, word: str) -> str:
        with self._lock:  # a stemmer of PyStemmer must not be used by two threads at once
            return str(self._tokenizer.stemmer(word))


def _all_places(text: str, part: str) -> list[int]:
    places, start = [], text.find(part)
    while start >= 0:
        places.append(start)
        start = text.find(part, start + 1)
    return places


def _tokenizer() -> Any:
    import Stemmer
    from bm25s.tokenization import Tokenizer

    return Tokenizer(stopwords="en", stemmer=Stemmer.Stemmer("english"))
