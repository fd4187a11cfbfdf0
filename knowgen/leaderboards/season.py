"""A private season of a board: its announcement, its secret, its states, and the commitment that binds them.

A season is `open`, then `closed`, then `revealed`. Its file `season.yaml` is published when it opens and holds no
secret; closing and revealing it add fields and change none. Until then the secret stays in the maintainer's private
folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from knowgen.core.atomic import draft_of, write_file
from knowgen.core.errors import ConfigError, DataError, UsageError
from knowgen.core.records import Record
from knowgen.core.spec import fingerprint
from knowgen.core.yaml_files import read_yaml
from knowgen.leaderboards.folder import Board, validated
from knowgen.leaderboards.records import HEX64, SLUG

SEASON_FILE = "season.yaml"
SECRET_FILE = "secret.yaml"
DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_ONE_DAY, _DIGEST, _NAME = rf"^{DAY}$", rf"^{HEX64}$", rf"^{SLUG}$"

SeasonState = Literal["open", "closed", "revealed"]


class Revealed(Record):
    """What is published when a season is revealed.

    Attributes:
        date: Day on which it was revealed, ISO 8601.
        seed: Secret seed of the world: 64 hex digits.
        nonce: Random number of the commitment: 64 hex digits.
    """

    date: str = Field(pattern=_ONE_DAY)
    seed: str = Field(pattern=_DIGEST)
    nonce: str = Field(pattern=_DIGEST)


class SeasonFile(Record):
    """The content of `season.yaml`.

    Attributes:
        format: Version of the format.
        name: Name of the season, also of its task.
        opens: Announced day from which on images are accepted, ISO 8601; empty if none is announced.
        closes: Announced last day; empty if none is announced. Only `closed` ends the season.
        samples: Number of samples.
        revisions: Maximum number of revisions of one system, because each score tells its submitter something.
        world: Version of the recipe of the world.
        task_version: Version of the task, the same before and after the reveal.
        search_version: Identity of the search corpus.
        commitment: SHA-256 hex digest that binds seed and nonce; see `commitment_of`.
        files: SHA-256 hex digest of each published file by path; the images of the corpus are bound by their digests in
            `search/pictures.jsonl`.
        made_with: Versions of the libraries that the world was made with, for those who build it again.
        closed: Day on which the season was closed; None while it is open.
        revealed: What was revealed; None before.
    """

    format: Literal[1] = 1
    name: str = Field(pattern=_NAME)
    opens: str = Field(default="", pattern=rf"^(?:{DAY})?$")
    closes: str = Field(default="", pattern=rf"^(?:{DAY})?$")
    samples: int = Field(ge=1)
    revisions: int = Field(ge=1)
    world: int
    task_version: str
    search_version: str
    commitment: str = Field(pattern=_DIGEST)
    files: dict[str, str]
    made_with: dict[str, str]
    closed: str | None = Field(default=None, pattern=_ONE_DAY)
    revealed: Revealed | None = None

    @model_validator(mode="after")
    def _reveal_follows_close(self) -> SeasonFile:
        if self.revealed is not None and self.closed is None:
            raise ValueError("is revealed, but was not closed")
        return self

    @property
    def state(self) -> SeasonState:
        """`open`, `closed` or `revealed`."""
        return "revealed" if self.revealed is not None else "open" if self.closed is None else "closed"

    @property
    def announced(self) -> SeasonFile:
        """The file as it was when the season opened."""
        return self.model_copy(update={"closed": None, "revealed": None})


class SeasonSecret(Record):
    """The content of `secret.yaml` in the maintainer's private folder.

    Attributes:
        format: Version of the format.
        name: Name of the season.
        samples: Number of samples.
        world: Version of the recipe of the world.
        seed: Secret seed of the world: 256 random bits as hex digits.
        nonce: 256 random bits as hex digits.
    """

    format: Literal[1] = 1
    name: str = Field(pattern=_NAME)
    samples: int = Field(ge=1)
    world: int
    seed: str = Field(pattern=_DIGEST, repr=False)
    nonce: str = Field(pattern=_DIGEST, repr=False)


def commitment_of(secret: SeasonSecret) -> str:
    """Return the commitment to a secret: the SHA-256 of its canonical JSON, as 64 hex digits.

    Name, number of samples and recipe are part of it, so that one secret cannot be revealed for another world. The
    seed alone has 256 random bits, too many to try. The nonce, which nothing else is made from, hides the seed even
    from those who could guess it: a guess cannot be compared with the commitment.

    Example:
        >>> secret = SeasonSecret(name="spring", samples=48, world=1, seed="0" * 64, nonce="1" * 64)
        >>> commitment_of(secret)[:16]
        'a0800cea63a9473d'
    """
    fields = ("format", "name", "samples", "world", "seed", "nonce")  # more fields would change every commitment
    return fingerprint({"season": {name: getattr(secret, name) for name in fields}})


def read_season(board: Board) -> SeasonFile | None:
    """Return the season of a board; None for a board of a public task.

    Raises:
        DataError: The file is missing or not valid.
    """
    if board.file.season is None:
        return None
    return read_season_file(board.path / board.file.season)


def read_season_file(path: Path) -> SeasonFile:
    """Return the content of a `season.yaml`.

    Raises:
        DataError: The file is missing or not valid.
    """
    return validated(SeasonFile, read_yaml(path).data, path)


def season_of(board: Board) -> SeasonFile:
    """Return the season of a board that has one.

    Raises:
        UsageError: The board has none.
        DataError: The file is missing or not valid.
    """
    season = read_season(board)
    if season is None:
        fix = "name a board made by `knowgen board season publish`"
        raise UsageError("is not the board of a private season", where=str(board.path), fix=fix)
    return season


def require_open(board: Board) -> None:
    """Raise `UsageError` if a board is that of a season that no longer takes submissions.

    Raises:
        DataError: The season's file is missing or not valid.
    """
    season = read_season(board)
    if season is not None and season.state != "open":
        what = f"the season {season.name} was closed on {season.closed}, and takes no more submissions"
        raise UsageError(what, where=str(board.path), fix="submit to the next season")


def write_season(path: Path, season: SeasonFile) -> None:
    """Write a `season.yaml` in one step.

    Raises:
        ConfigError: It cannot be written.
    """
    write_text(path, yaml_text(season.model_dump(mode="json", exclude_none=True)))


def read_secret(path: Path) -> SeasonSecret:
    """Return the secret of a season. No error repeats it.

    Raises:
        UsageError: Others may read the file or its folder.
        DataError: The file is missing or not valid.
    """
    secret = validated(SeasonSecret, read_yaml(path, fix="name the private folder of the season").data, path)
    for place, mode in ((path, "600"), (path.parent, "700")):
        if place.stat().st_mode & 0o077:
            fix = f"chmod {mode} {place}, and publish another season if others may have read it"
            raise UsageError("others on this machine may read it", where=str(place), fix=fix)
    return secret


def write_secret(path: Path, secret: SeasonSecret) -> None:
    """Write the secret of a season, readable by its owner alone, in one step.

    Raises:
        ConfigError: It cannot be written.
    """
    text = yaml_text(secret.model_dump(mode="json"))
    try:
        with draft_of(path) as draft:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise _unwritten(path, error) from error


def require_secret_of(season: SeasonFile, secret: SeasonSecret, where: Path) -> None:
    """Raise `DataError` if a secret is not the one that a season committed to."""
    if commitment_of(secret) != season.commitment:
        what = f"is not the secret that season {season.name} committed to"
        raise DataError(what, where=str(where), fix="name the private folder with which it was published")


def yaml_text(data: dict[str, Any]) -> str:
    """Return plain data as YAML, in the given order of fields."""
    import yaml

    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
    return text


def write_text(path: Path, text: str) -> None:
    """Write a file in one step.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text)
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot be written: {error.strerror}", where=str(error.filename or path), fix="check the disk")
