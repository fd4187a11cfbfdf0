"""Publish a private season: draw its secret, build its world, and write what everybody may see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from knowgen.core.errors import ConfigError, DataError, UsageError
from knowgen.core.spec import canonical
from knowgen.leaderboards.folder import BOARD_FILE, SAMPLES_FILE, Board, read_board
from knowgen.leaderboards.pinning import board_samples
from knowgen.leaderboards.records import BoardFile, BoardScorer, BoardTask
from knowgen.leaderboards.season import (
    SEASON_FILE,
    SECRET_FILE,
    SeasonFile,
    SeasonSecret,
    commitment_of,
    read_season_file,
    read_secret,
    require_secret_of,
    season_of,
    write_season,
    write_secret,
    write_text,
    yaml_text,
)
from knowgen.stats.protocol import get_protocol
from knowgen.tasks.contract import Task
from knowgen.tasks.folder import FolderTask
from knowgen.tasks.private import UnscoredTask
from knowgen.workflows.resolve import resolve_scorer
from knowgen.worlds.build import build_world
from knowgen.worlds.content.difficulty import RECIPE_VERSION
from knowgen.worlds.content.seeds import check_seed, draw_secret
from knowgen.worlds.season import PUBLISHED, publish_world, published_hashes, versions

SCORER = "world_check"
PROTOCOL = "strict"
WORLD = "world"
RUNS = "runs"


@dataclass(frozen=True)
class SeasonPlaces:
    """The folders of a season.

    Attributes:
        public: What participants get.
        board: Folder of the board.
        private: Folder of the maintainer, with secret, ground truths and runs.
    """

    public: Path
    board: Path
    private: Path

    def __post_init__(self) -> None:
        """Raise `UsageError` if one of the folders is inside another."""
        places = {"public": self.public, "board": self.board, "private": self.private}
        for name, path in places.items():
            for other, outer in places.items():
                if name != other and path.resolve().is_relative_to(outer.resolve()):
                    what = f"the {name} folder is inside the {other} folder"
                    raise UsageError(what, where=str(path), fix="give three separate folders")


def publish(
    places: SeasonPlaces,
    name: str,
    samples: int,
    *,
    opens: str = "",
    closes: str = "",
    revisions: int = 3,
    workers: int | None = None,
) -> SeasonFile:
    """Publish a season. A call that was interrupted is completed by the same call.

    Args:
        places: The folders.
        name: Name of the season, also of its task.
        samples: Number of samples.
        opens: Announced first day, ISO 8601; empty for none.
        closes: Announced last day; empty for none.
        revisions: Maximum number of revisions of one system.
        workers: Number of processes that build the world; the number of cores if None.

    Raises:
        UsageError: An argument is wrong, or a folder belongs to another season.
        ConfigError: A folder cannot be written.
    """
    if not (places.private / SECRET_FILE).exists():
        _require_own(places, None)
    secret = _secret(places.private, name, samples)
    _require_own(places, commitment_of(secret))
    world = world_of(places.private, secret, workers)
    task = FolderTask(world)
    season = SeasonFile(
        name=name,
        opens=opens,
        closes=closes,
        samples=samples,
        revisions=revisions,
        world=RECIPE_VERSION,
        task_version=task.version,
        search_version=task.search_version,
        commitment=commitment_of(secret),
        files=published_hashes(world),
        made_with=versions(),
    )
    known = places.board / SEASON_FILE
    if known.exists():
        _require_same(season_of(read_board(places.board)), season, known)
    publish_world(world, places.public, {SEASON_FILE: yaml_text(season.model_dump(mode="json", exclude_none=True))})
    if not known.exists():
        _write_board(places.board, season, task)
    return season


def _secret(private: Path, name: str, samples: int) -> SeasonSecret:
    """Return the secret of the private folder, drawn and written if there is none.

    Raises:
        UsageError: There is one of another season.
    """
    path = private / SECRET_FILE
    if not path.exists():
        try:
            private.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(private.iterdir()):
                raise UsageError("has content that is not a season", where=str(private), fix="name another folder")
            private.chmod(0o700)  # it may have been there
        except OSError as error:
            raise ConfigError(f"cannot be created: {error.strerror}", where=str(private)) from error
        drawn = SeasonSecret(name=name, samples=samples, world=RECIPE_VERSION, seed=draw_secret(), nonce=draw_secret())
        write_secret(path, drawn)
    secret = read_secret(path)
    check_seed(secret.seed, str(path))
    if (secret.name, secret.samples, secret.world) != (name, samples, RECIPE_VERSION):
        what = f"is the secret of season {secret.name} with {secret.samples} samples of recipe {secret.world}"
        raise UsageError(what, where=str(path), fix="name another private folder")
    return secret


def _require_own(places: SeasonPlaces, commitment: str | None) -> None:
    """Raise `UsageError` if the public folder or the board has other content than the season's of a commitment."""
    for folder in (places.public, places.board):
        if not folder.exists():
            continue
        if not folder.is_dir():
            raise UsageError("is a file, not a folder", where=str(folder), fix="name another folder")
        file = folder / SEASON_FILE
        own = commitment is not None and file.is_file() and read_season_file(file).commitment == commitment
        if any(folder.iterdir()) and not own:
            raise UsageError("has content that is not this season's", where=str(folder), fix="name another folder")


def _require_same(known: SeasonFile, season: SeasonFile, where: Path) -> None:
    """Raise `UsageError` if a season was published with other terms, naming the first that differs."""
    before, now = (each.announced.model_dump(mode="json") for each in (known, season))
    for field, value in before.items():
        if now[field] != value:
            what = f"the season was published with {field} {value!r}, not {now[field]!r}"
            raise UsageError(what, where=str(where), fix="give what was announced")


def world_of(private: Path, secret: SeasonSecret, workers: int | None = None) -> Path:
    """Return the folder of the whole world in a private folder, built if it is not there."""
    folder = private / WORLD
    if not folder.is_dir():
        build_season_world(folder, secret, workers)
    return folder


def build_season_world(folder: Path, secret: SeasonSecret, workers: int | None = None) -> None:
    """Build the whole world of a season, with its ground truths.

    Raises:
        ConfigError: It cannot be written.
        UsageError: The secret could be guessed.
    """
    commitment = commitment_of(secret)
    build_world(folder, secret.seed, secret.samples, name=secret.name, workers=workers, commitment=commitment)


def season_task(private: Path, season: SeasonFile, secret: SeasonSecret) -> FolderTask:
    """Return the task of a season with its ground truths, after checking that it is what was published.

    Raises:
        DataError: The secret is not that of the season, or this installation draws another world.
    """
    require_secret_of(season, secret, private / SECRET_FILE)
    world = world_of(private, secret)
    if faults := world_faults(world, season):
        raise DataError(faults[0], where=str(world), fix="use the versions in season.yaml (`made_with`)")
    return FolderTask(world)


def world_faults(world: Path, season: SeasonFile) -> list[str]:
    """Return how a built world differs from what a season published; empty if it does not."""
    found = published_hashes(world)
    differing = [name for name in PUBLISHED if found.get(name) != season.files.get(name)]
    if not differing:
        return []
    here = versions()
    others = [f"{name} {was}, here {here.get(name)}" for name, was in season.made_with.items() if here.get(name) != was]
    return [
        f"{name} differs from what was published" + (f" (made with {'; '.join(others)})" if others else "")
        for name in differing
    ]


def samples_text(task: Task) -> str:
    """Return the text of a board's `samples.jsonl`; without hashes of ground truths for an `UnscoredTask`."""
    return "".join(f"{canonical(each.model_dump(mode='json'))}\n" for each in board_samples(task))


def _write_board(folder: Path, season: SeasonFile, task: FolderTask) -> None:
    """Write the board of a season: its announcement last, which says that all is there."""
    scorer = resolve_scorer(SCORER, {}).spec
    file = BoardFile(
        title=f"Season {season.name}",
        description=f"A private season of {season.samples} samples of a world that stays secret until its end.",
        task=BoardTask(name=season.name, version=season.task_version),
        scorer=BoardScorer(name=scorer.name, versions=(scorer.version,), dimensions=scorer.dimensions),
        protocol=PROTOCOL,
        protocol_version=get_protocol(PROTOCOL).version,
        season=SEASON_FILE,
    )
    write_text(folder / BOARD_FILE, yaml_text(file.model_dump(mode="json", exclude_none=True)))
    write_text(folder / SAMPLES_FILE, samples_text(UnscoredTask(task)))
    write_season(folder / SEASON_FILE, season)


def runs_of(private: Path, slug: str, revision: str) -> Path:
    """Return the folder of the run directories of a revision: one for each set of images that was sent."""
    return private / RUNS / slug / revision


def private_secret(private: Path, board: Board) -> SeasonSecret:
    """Return the secret of a private folder, after checking that it is that of a board's season.

    Raises:
        UsageError: The board has no season, or others may read the secret.
        DataError: A file is missing or not valid, or it is the secret of another season.
    """
    secret = read_secret(private / SECRET_FILE)
    require_secret_of(season_of(board), secret, private / SECRET_FILE)
    return secret
