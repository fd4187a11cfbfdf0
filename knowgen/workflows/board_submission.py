"""Change a board: pin its task, add a run to it, withdraw a submission."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from knowgen.core.atomic import folder_draft, write_file
from knowgen.core.errors import DataError, KnowgenError, UsageError
from knowgen.core.secrets import refuse_secrets
from knowgen.core.spec import RunSpec, canonical
from knowgen.core.text import count, one_line
from knowgen.core.yaml_files import read_yaml
from knowgen.core.yaml_schema import yaml_errors, yaml_record
from knowgen.leaderboards.eligibility import (
    earlier_reasons,
    result_reasons,
    sample_reasons,
    spec_reasons,
    system_reasons,
)
from knowgen.leaderboards.figures import current
from knowgen.leaderboards.folder import (
    IMAGES,
    REPLIES_FILE,
    RESULT_FILE,
    SYSTEM_FILE,
    WITHDRAWN_FILE,
    Board,
    Submission,
    read_board,
    read_boards,
    result_text,
    validated,
)
from knowgen.leaderboards.images import KeptImages, SubmissionImages
from knowgen.leaderboards.pinning import write_pin
from knowgen.leaderboards.records import SubmissionResult, SystemFile, Withdrawal
from knowgen.leaderboards.season import require_open
from knowgen.leaderboards.submission import replies_of, result_of, with_images
from knowgen.leaderboards.template import look_of, next_revision, slug_of, system_template
from knowgen.stats.summary import Summary
from knowgen.store.files import explain_os_error
from knowgen.store.run import RunStore
from knowgen.workflows.described import open_task
from knowgen.workflows.located import locate
from knowgen.workflows.plugin_process import is_foreign
from knowgen.workflows.run import Run, load_run
from knowgen.workflows.verify import verify

ROOT = Path("leaderboards")
"""Folder of the boards."""

MAX_FINDINGS = 5
"""Maximum number of findings of `knowgen verify` among the reasons."""


def find_board(root: Path, name: str) -> Board:
    """Return a board by its name, or by the path of its folder.

    Raises:
        UsageError: There is none.
        DataError: Its `board.yaml` is not valid.
    """
    for folder in (root / name, Path(name)):
        if (folder / "board.yaml").is_file():
            return read_board(folder)
    known = ", ".join(board.name for board in read_boards(root))
    raise UsageError(f"no board {name!r}", where=str(root), fix=f"it has {known}")


def board_of_run(root: Path, spec: RunSpec) -> Board:
    """Return the board of a run's task and scorer.

    Raises:
        UsageError: There is none, or more than one.
    """
    boards = read_boards(root)
    named = [board for board in boards if _is_task(board, spec)]
    scored = [board for board in named if board.file.scorer.name in {each.name for each in spec.scorers}]
    exact = [board for board in scored if not _other_arguments(board, spec)]
    found = exact or scored
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(board.name for board in found)
        raise UsageError("several boards have this task and scorer", where=str(root), fix=f"give --board: {names}")
    known = "; ".join(f"{each.name} ({each.file.task.name}, {each.file.scorer.name})" for each in boards)
    scorers = ", ".join(each.name for each in spec.scorers) or "no scorer"
    raise UsageError(f"no board for {spec.task} and {scorers}", where=str(root), fix=f"give --board: {known}")


def _is_task(board: Board, spec: RunSpec) -> bool:
    task = board.file.task
    return spec.task_version == task.version or spec.task == task.name


def _other_arguments(board: Board, spec: RunSpec) -> bool:
    scorer = next(each for each in spec.scorers if each.name == board.file.scorer.name)
    defaults = scorer_defaults(scorer.name)
    own, wanted = ({**defaults, **args} for args in (scorer.args, board.file.scorer.args))
    return canonical(own) != canonical(wanted)


def scorer_defaults(name: str) -> dict[str, Any]:
    """Return the default values of a bundled scorer's arguments; none of one that is not bundled or not known."""
    try:
        if is_foreign("scorers", name):
            return {}
        parameters = inspect.signature(locate("scorers", name).target).parameters
    except (KnowgenError, ImportError, TypeError, ValueError):
        return {}
    plain = (str, int, float, bool, type(None))
    return {key: each.default for key, each in parameters.items() if isinstance(each.default, plain)}


# -- pin ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pinned:
    """What `pin_board` did.

    Attributes:
        board: The board.
        version: The version that it is pinned to now.
        before: The version before; None if it was not pinned.
        samples: Number of samples.
        outdated: Submissions that are of another version.
    """

    board: Board
    version: str
    before: str | None
    samples: int
    outdated: tuple[str, ...]


def pin_board(board: Board, version: str = "", *, force: bool = False) -> Pinned:
    """Pin the task of a board to the version on this machine.

    Args:
        board: The board.
        version: The version that the task must have; any if empty.
        force: Move a board that has submissions of another version. They are no longer shown.

    Raises:
        UsageError: The task has another version, the board is of a season, or it has submissions.
        DataError: The task is missing or broken.
    """
    if board.file.season is not None:
        raise UsageError("its samples are those of a season", where=board.name, fix="use `knowgen board season`")
    task = open_task(board.beside(board.file.task.name), in_worker=True)
    if version and task.version != version:
        raise UsageError(
            f"the task on this machine has version {task.version}, not {version}",
            where=f"task {board.file.task.name}",
            fix="prepare that version, or leave --task-version out",
        )
    outdated = tuple(each.key for each in board.submissions() if each.read_result().spec.task_version != task.version)
    if outdated and not force:
        raise UsageError(
            f"{count(len(outdated), 'submission')} of the board would be of another version of the task "
            f"({board.file.task.version}, the task has {task.version})",
            where=board.name,
            fix="give --force to move the board, which then no longer shows them",
        )
    before = board.file.task.version
    samples = write_pin(board, task)
    return Pinned(read_board(board.path), task.version, before, samples, outdated)


# -- add ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Added:
    """What `add_submission` found and did.

    Attributes:
        board: The board.
        reasons: Why the run is not eligible, one line each; nothing was written if there are any.
        path: Folder of the submission; None without one.
        summary: Figures of the run under the board's protocol; None if it has no scores of the board's scorer.
    """

    board: Board
    reasons: tuple[str, ...] = ()
    path: Path | None = None
    summary: Summary | None = None


def write_template(run: Path, board: Board) -> tuple[Path, bool]:
    """Write the template of a `system.yaml` into a run directory, unless it has one.

    Args:
        run: The run directory.
        board: The board, for the number of the revision.

    Returns:
        The file, and whether it was written.

    Raises:
        DataError: The path is not a run directory.
        ConfigError: The file cannot be written.
    """
    target = run / SYSTEM_FILE
    with RunStore.read(run) as store:
        if target.exists():
            return target, False
        slug = slug_of(store.spec.system)
        taken = [each.revision for each in board.submissions() if each.slug == slug]
        text = system_template(store.manifest, next_revision(taken))
    try:
        write_file(target, text)
    except OSError as error:
        raise explain_os_error(error, target.parent) from error
    return target, True


def add_submission(
    path: Path,
    board: Board,
    system: Path | None,
    *,
    images: KeptImages = "none",
    replies: bool = False,
    dry_run: bool = False,
    season_form: Callable[[SubmissionResult], SubmissionResult] | None = None,
) -> Added:
    """Check a run against a board, and write it as a submission.

    Args:
        path: The run directory. It is only read.
        board: The board.
        system: The `system.yaml`; None to check the run alone.
        images: What to keep of the images.
        replies: Whether to keep the raw replies of the judge.
        dry_run: Check everything, and write nothing.
        season_form: For the board of a season: returns a result as it may be published while the season is open.

    Returns:
        Why the run is not eligible, or the folder that was written.

    Raises:
        UsageError: The board is that of a season, without a `season_form`, or the season is closed.
        DataError: It is not a run directory.
        ConfigError: The board cannot be written.
    """
    require_open(board)
    if board.file.season is not None and season_form is None:
        fix = "send the run to those who hold the season: `knowgen board season score`"
        raise UsageError(
            "is the board of a private season, whose ground truths a run does not have", where=board.name, fix=fix
        )
    run = load_run(path)
    adding = _Adding(run, board, season_form)
    reasons = list(adding.run_reasons())
    record = None
    if system is not None:
        record, wrong = _read_system(system)
        reasons += [*wrong, *(adding.system_reasons(record) if record is not None else ())]
    if reasons or record is None or dry_run:
        return Added(board, tuple(reasons), None, adding.summary)
    assert system is not None
    target = adding.folder(record)
    is_new = not target.parent.exists()
    try:
        with folder_draft(target, replace=False) as draft:
            adding.write(draft, record, read_yaml(system).text, images, replies=replies)
    except OSError as error:
        if target.exists():
            return Added(board, (f"the revision {target.parent.name}/{target.name} exists already",))
        raise explain_os_error(error, board.path) from error
    finally:
        if is_new:
            with suppress(OSError):  # there is a submission in it
                target.parent.rmdir()
    return Added(board, (), target, adding.summary and adding.summary.model_copy(update={"system": record.name}))


def _read_system(path: Path) -> tuple[SystemFile | None, list[str]]:
    try:
        file = read_yaml(path, fix="leave --system out for a template")
    except DataError as error:
        return None, [str(error)]
    errors = yaml_errors(SystemFile, file)
    if errors:
        return None, [str(error) for error in errors]
    return yaml_record(SystemFile, file), []


@dataclass
class _Adding:
    """A run on its way to a board.

    Attributes:
        run: The run.
        board: The board.
        season_form: As in `add_submission`.
        summary: Its figures under the board's protocol; None without scores of the board's scorer.
        result: Its result without images; None if it could not be made.
    """

    run: Run
    board: Board
    season_form: Callable[[SubmissionResult], SubmissionResult] | None = None
    summary: Summary | None = None
    result: SubmissionResult | None = None

    def run_reasons(self) -> Iterator[str]:
        """Yield what keeps the run off the board, whatever its system is."""
        file, spec = self.board.file, self.run.spec
        findings = verify(self.run.path).findings
        for finding in findings[:MAX_FINDINGS]:
            yield f"does not verify: {finding}"
        if (rest := len(findings) - MAX_FINDINGS) > 0:
            yield f"does not verify: {rest} more findings, see `knowgen verify {self.run.path}`"
        yield from spec_reasons(file, spec, name=self.board.name, scorer_defaults=scorer_defaults(file.scorer.name))
        if file.scorer.name not in {each.name for each in spec.scorers}:
            return
        try:
            self.summary = self.run.summarise(file.protocol, file.scorer.name)
            with RunStore.read(self.run.path) as store:
                result = result_of(store, self.summary)
            self.result = result if self.season_form is None else self.season_form(result)
        except DataError as error:
            yield str(error)
            return
        yield from result_reasons(file, self.result, self.run.rows(file.scorer.name))
        if file.task.version == spec.task_version and spec.selection.kind == "all":
            yield from sample_reasons(self.result, self.board.samples)

    def system_reasons(self, system: SystemFile) -> Iterator[str]:
        """Yield what keeps this revision of the system off the board."""
        yield from system_reasons(system, self.run.spec if self.result is None else self.result.spec)
        slug = slug_of(system.name)
        if not slug:
            yield f"system.yaml: name {system.name!r} has no letter or digit from which a folder could be named"
            return
        folder = self.board.path / slug
        if folder.exists() and folder.resolve() != self.board.path.resolve() / slug:
            yield f"{folder} is a link, which submissions must not follow"
            return
        others = [each for each in self.board.submissions() if each.slug == slug]
        names = {each.system.name for each in others}
        if names and system.name not in names:
            yield f"system.yaml: the folder {slug} is that of the system {min(names)!r}: choose another name"
        every = (each.system.name for each in self.board.submissions() if each.slug != slug)
        if same := [name for name in every if look_of(name) == look_of(system.name)]:
            yield f"system.yaml: name {system.name!r} reads like that of the system {same[0]!r}: choose another name"
        if (folder / system.revision).exists():
            taken = ", ".join(each.revision for each in others)
            yield f"the revision {slug}/{system.revision} exists already: give it another one (taken: {taken})"
        if self.result is not None:
            earlier = {each.revision: each.read_result() for each in others if each.withdrawal is None}
            yield from earlier_reasons(self.result, earlier)

    def folder(self, system: SystemFile) -> Path:
        """Return the folder of the submission."""
        return self.board.path / slug_of(system.name) / system.revision

    def write(self, draft: Path, system: SystemFile, text: str, images: KeptImages, *, replies: bool) -> None:
        """Write the files of the submission into an empty folder."""
        assert self.summary is not None
        assert self.result is not None
        with RunStore.read(self.run.path) as store:
            result = with_images(store, self.result, SubmissionImages(draft / IMAGES, images))
            (draft / RESULT_FILE).write_text(result_text(result), encoding="utf-8")
            if replies:
                with (draft / REPLIES_FILE).open("w", encoding="utf-8") as file:
                    for reply in replies_of(store, self.summary.scorer):
                        file.write(canonical(reply.model_dump(mode="json", exclude_defaults=True)) + "\n")
        (draft / SYSTEM_FILE).write_text(text, encoding="utf-8")


# -- withdraw ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Withdrawn:
    """What `withdraw` did.

    Attributes:
        submission: The submission.
        shown: The revision of the system that the board shows now; None if it shows none.
    """

    submission: Submission
    shown: str | None


def withdraw(board: Board, key: str, reason: str, date: str = "") -> Withdrawn:
    """Withdraw a submission. Its files stay.

    Args:
        board: The board.
        key: `system/revision`, or `system` if it has a single revision that is not withdrawn.
        reason: Why, for readers of the board.
        date: Day of the withdrawal, ISO 8601; today in UTC if empty.

    Raises:
        UsageError: The board has no such submission, it is withdrawn already, or the reason is empty.
        ConfigError: The reason contains what looks like a key, or the file cannot be written.
    """
    import yaml

    refuse_secrets({"reason": reason})
    submission = _to_withdraw(board, key)
    if (before := submission.withdrawal) is not None:
        raise UsageError(
            f"{submission.key} is withdrawn since {before.date}: {one_line(before.reason, 100)}", where=board.name
        )
    data: Mapping[str, str] = {"date": date or datetime.now(UTC).date().isoformat(), "reason": reason.strip()}
    try:
        datetime.strptime(data["date"], "%Y-%m-%d")
        validated(Withdrawal, dict(data), "withdrawal")
    except (ValueError, DataError) as error:
        fix = "give --reason, and --date as YYYY-MM-DD"
        raise UsageError(one_line(error), fix=fix) from error
    try:
        write_file(submission.path / WITHDRAWN_FILE, yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise explain_os_error(error, submission.path) from error
    board = read_board(board.path)
    own = [each for each in board.submissions() if each.slug == submission.slug]
    shown = [each.revision for each in current(own, board.file.task.version)]
    return Withdrawn(board.submission(submission.key), shown[0] if shown else None)


def _to_withdraw(board: Board, key: str) -> Submission:
    if "/" not in key:
        open_ones = [each for each in board.submissions() if each.slug == key and each.withdrawal is None]
        if len(open_ones) == 1:
            return open_ones[0]
    return board.submission(key)
