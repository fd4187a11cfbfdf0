"""Check the submissions of boards: one line for everything that is wrong with each.

Only files are read. No code of a submission runs, nothing is called, and no image is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from knowgen.core.errors import DataError, KnowgenError, UsageError
from knowgen.core.steps import counted
from knowgen.core.text import error_message, one_line
from knowgen.leaderboards.checks.arithmetic import check_figures, recompute
from knowgen.leaderboards.checks.content import check_facts, check_ids, check_states
from knowgen.leaderboards.checks.copies import check_repeated, check_shared, check_truths
from knowgen.leaderboards.checks.files import check_files, find_submissions, is_safe, linked
from knowgen.leaderboards.checks.findings import BoardFinding, CheckedSubmission, CheckReport, error, warning
from knowgen.leaderboards.checks.history import (
    Facts,
    check_drift,
    check_history,
    check_owner,
    earlier_revision,
    facts_of,
)
from knowgen.leaderboards.checks.pictures import check_images
from knowgen.leaderboards.checks.replies import check_replies, parser_of
from knowgen.leaderboards.checks.schemas import checked_json, checked_yaml
from knowgen.leaderboards.checks.unchanged import Changes, changes
from knowgen.leaderboards.eligibility import earlier_reasons, result_reasons, spec_reasons, system_reasons
from knowgen.leaderboards.folder import (
    BOARD_FILE,
    REPLIES_FILE,
    RESULT_FILE,
    SAMPLES_FILE,
    SYSTEM_FILE,
    WITHDRAWN_FILE,
    Board,
    Submission,
    read_board,
)
from knowgen.leaderboards.records import SubmissionResult, SystemFile, Withdrawal
from knowgen.leaderboards.rows import rows_of


def check_boards(
    root: Path,
    names: Sequence[str] = (),
    *,
    against: Path | None = None,
    now: datetime | None = None,
    scorer_defaults: Callable[[str], Mapping[str, Any]] = lambda name: {},
) -> CheckReport:
    """Check submissions of the boards of a folder.

    Args:
        root: Folder of boards.
        names: `BOARD`, `BOARD/SYSTEM` or `BOARD/SYSTEM/REVISION` each; all submissions when empty, or with `against`
            those that are new or changed.
        against: An earlier state of `root`, in which no revision may have been changed.
        now: The current time; that of this machine's clock when None.
        scorer_defaults: Returns the default values of a scorer's arguments, where they are known.

    Raises:
        DataError: `root` has no board.
        UsageError: A name is none of a board, system or revision.
    """
    boards = sorted(path.parent for path in root.glob(f"*/{BOARD_FILE}"))
    if not boards:
        raise DataError("has no board", where=str(root), fix=f"name a folder of boards, each with a {BOARD_FILE}")
    changed = changes(root, against) if against is not None else None
    wanted = _Wanted(tuple(name.strip("/") for name in names), changed)
    submissions: list[CheckedSubmission] = []
    findings: list[BoardFinding] = list(changed.findings) if changed is not None else []
    notes: list[str] = list(changed.notes) if changed is not None else []
    for path in boards:
        if not wanted.board(path.name):
            continue
        board = _open(path, findings, notes)
        if board is not None:
            checker = _BoardChecker(board, now or datetime.now(UTC), scorer_defaults(board.file.scorer.name))
            submissions += checker.submissions(wanted)
            findings += [each.inside(path.name) for each in checker.other_findings(wanted)]
            notes += checker.notes
    wanted.refuse_unknown()
    return CheckReport(tuple(submissions), tuple(findings), tuple(dict.fromkeys(notes)))


class _Wanted:
    """The submissions to check; it remembers which of the names it has seen."""

    def __init__(self, names: tuple[str, ...], changed: Changes | None) -> None:
        self.names, self.changed = names, changed
        self._seen: set[str] = set()
        self._known: list[str] = []

    def board(self, name: str) -> bool:
        """Return whether a board has anything to check."""
        self._known.append(name)
        self._seen.add(name)
        return not self.names or any(each.split("/")[0] == name for each in self.names)

    def submission(self, name: str) -> bool:
        """Return whether to check a submission, given as `board/system/revision`."""
        parts = name.split("/")
        self._known.append(name)
        self._seen |= {"/".join(parts[:number]) for number in (2, 3)}
        if self.names:
            return any(name == each or name.startswith(f"{each}/") for each in self.names)
        return self.changed is None or name in self.changed.revisions

    def refuse_unknown(self) -> None:
        """Raise an error for a name that is none.

        Raises:
            UsageError: A name is none of a board, system or revision.
        """
        if unknown := [name for name in self.names if name not in self._seen]:
            known = ", ".join(self._known[:20])
            raise UsageError(f"no board or submission {unknown[0]!r}", where="board check", fix=f"there are {known}")


def _open(path: Path, findings: list[BoardFinding], notes: list[str]) -> Board | None:
    """Return a board, or None where its own files are links or not valid, with a finding for that."""
    if links := [each for each in (path, path / BOARD_FILE, path / SAMPLES_FILE) if each.is_symlink()]:
        findings += [linked(each.relative_to(path.parent).as_posix()) for each in links]
        return None
    try:
        board = read_board(path)
        if board.file.task.version is None and not find_submissions(path).submissions:
            notes.append(f"{path.name}: its task is not pinned, and it has no submission")
            return None
        samples = board.samples
    except KnowgenError as fault:
        where = fault.where.replace(f"{path.parent}/", "") or path.name
        findings.append(error("board", where, fault.what, fault.fix or "correct the board's own files"))
        return None
    if not samples:
        findings.append(error("board", path.name, "has no samples", "pin its task: `knowgen board pin`"))
        return None
    return board


@dataclass(frozen=True)
class _Read:
    """A submission as far as it could be read, with what is wrong with its files."""

    system: SystemFile | None
    result: SubmissionResult | None
    findings: tuple[BoardFinding, ...]
    withdrawn: bool


class _BoardChecker:
    """Checks the submissions of one board. Results are read one at a time; only hashes and versions are kept."""

    def __init__(self, board: Board, now: datetime, scorer_defaults: Mapping[str, Any]) -> None:
        self.board, self.now, self.scorer_defaults = board, now, scorer_defaults
        self.folders = find_submissions(board.path)
        self.parser = parser_of(board)
        self.notes: list[str] = []

    def other_findings(self, wanted: _Wanted) -> Iterator[BoardFinding]:
        """Yield what is wrong with entries of the board's folder that are no submission."""
        if not any("/" in name for name in wanted.names):
            yield from self.folders.findings

    def submissions(self, wanted: _Wanted) -> Iterator[CheckedSubmission]:
        """Yield the checked submissions, by key."""
        chosen = [each for each in self.folders.submissions if wanted.submission(f"{each.board}/{each.key}")]
        if not chosen:
            return
        keys = {each.key for each in chosen}
        facts: dict[str, Facts] = {}
        own: dict[str, list[BoardFinding]] = {}
        withdrawn: set[str] = set()
        for submission in counted(self.folders.submissions, f"checking submissions of {self.board.name}"):
            read = self._read(submission)
            if read.withdrawn:
                withdrawn.add(submission.key)
            elif read.result is not None:
                facts[submission.key] = facts_of(submission, read.system, read.result)
            if submission.key in keys:
                own[submission.key] = [*read.findings]
                if read.result is not None and not read.withdrawn:
                    own[submission.key] += _all_of(self._content(submission, read.result))
        for submission in counted(chosen, f"comparing submissions of {self.board.name}"):
            found = own[submission.key]
            if submission.key in facts:
                found += _all_of(self._beside_others(submission, facts))
            place = f"{submission.board}/{submission.key}"
            findings = tuple(each.inside(place) for each in found)
            yield CheckedSubmission(submission.board, submission.key, findings, submission.key in withdrawn)

    def _read(self, submission: Submission) -> _Read:
        """Read a submission. A file that is a link or no regular file is not opened."""
        folder = submission.path
        findings = list(check_files(folder))
        withdrawn = (folder / WITHDRAWN_FILE).exists() or (folder / WITHDRAWN_FILE).is_symlink()
        if withdrawn and is_safe(folder, WITHDRAWN_FILE):
            findings += checked_yaml(Withdrawal, folder / WITHDRAWN_FILE)[1]
        system, result = None, None
        for name in (SYSTEM_FILE, RESULT_FILE):
            if not is_safe(folder, name) and not any(each.where == name for each in findings):
                findings.append(error("files", name, "is missing", "make the submission with `knowgen board add`"))
        if withdrawn:
            return _Read(None, None, tuple(findings), withdrawn=True)
        broken = {each.where for each in findings}
        if SYSTEM_FILE not in broken:
            system, faults = checked_yaml(SystemFile, folder / SYSTEM_FILE)
            findings += faults
        if RESULT_FILE not in broken:
            result, faults = checked_json(SubmissionResult, folder / RESULT_FILE)
            findings += faults
        if system is not None and system.revision != submission.revision:
            what = f"revision is {one_line(system.revision, 80)!r}, the folder is {submission.revision!r}"
            findings.append(error("schema", SYSTEM_FILE, what, "give both the same name"))
        if system is not None and result is not None:
            for reason in system_reasons(system, result.spec):
                where, _, what = reason.partition(": ")
                findings.append(error("eligibility", where, what, "correct it, or make the submission again"))
        return _Read(system, result, tuple(findings), withdrawn=False)

    def _content(self, submission: Submission, result: SubmissionResult) -> Iterator[BoardFinding]:
        """Yield what is wrong with a result by itself."""
        for reason in spec_reasons(
            self.board.file, result.spec, name=self.board.name, scorer_defaults=self.scorer_defaults
        ):
            yield error("eligibility", RESULT_FILE, reason)
        if result.scorer not in result.spec.scorers or result.scorer.name != self.board.file.scorer.name:
            what = f"scorer is {one_line(result.scorer.name, 80)}, and not the board's scorer as in its spec"
            yield error("eligibility", RESULT_FILE, what, "make the file again with `knowgen board add`")
        broken = [*check_ids(result, self.board), *check_states(result, self.board)]
        yield from broken
        yield from check_facts(result, self.now)
        if not broken:  # figures of broken samples would differ for the same reason
            try:
                yield from check_figures(result, recompute(result, self.board))
            except DataError as fault:
                yield error("figures", RESULT_FILE, f"{fault.where}: {fault.what}", fault.fix)
            for reason in result_reasons(self.board.file, result, rows_of(result, self.board.samples)):
                yield error("eligibility", RESULT_FILE, reason)
        if all(len(one.image.perceptual) == 64 for each in result.samples for one in each.generations if one.image):
            yield from check_images(result, submission.path)
        if is_safe(submission.path, REPLIES_FILE):
            if isinstance(self.parser, str):
                self.notes.append(f"{self.board.name}: replies were not parsed again: {self.parser}")
            else:
                yield from check_replies(result, submission.path, self.board, self.parser)

    def _beside_others(self, submission: Submission, facts: Mapping[str, Facts]) -> Iterator[BoardFinding]:
        """Yield what follows from comparing a submission with the board's truths, systems and earlier revisions."""
        own = facts[submission.key]
        others = [each for key, each in facts.items() if key != submission.key]
        by_system: dict[str, list[Facts]] = {}
        for each in others:
            if each.submission.slug != submission.slug:
                by_system.setdefault(each.submission.slug, []).append(each)
        yield from check_truths(own.images, self.board)
        yield from check_shared(
            own.images, {slug: [each.images for each in found] for slug, found in by_system.items()}
        )
        yield from check_repeated(own.images)
        yield from check_drift(own, others)
        yield from check_owner(own, others)
        earlier = earlier_revision(own, others)
        if earlier is not None:
            try:
                yield from self._beside_earlier(submission, earlier.submission)
            except KnowgenError as fault:  # one of them is broken, which its own findings say
                what = f"not compared with revision {earlier.submission.revision}: {fault.what}"
                yield warning("history", RESULT_FILE, what, "correct both first")

    def _beside_earlier(self, submission: Submission, earlier: Submission) -> Iterator[BoardFinding]:
        before, now = earlier.read_result(), submission.read_result()
        for reason in earlier_reasons(now, {earlier.revision: before}):
            yield error("history", RESULT_FILE, reason)
        yield from check_history(now, before, earlier.revision, self.board)


def _all_of(findings: Iterator[BoardFinding]) -> list[BoardFinding]:
    """Return all findings; a check that fails is one, so that other submissions are checked all the same."""
    found: list[BoardFinding] = []
    try:
        for each in findings:
            found.append(each)
    except Exception as fault:  # noqa: BLE001 - the files of a submission may be anything
        what = f"cannot be checked: {type(fault).__name__}: {error_message(fault)}"
        found.append(error("check", RESULT_FILE, what, "correct the other faults; without one, report this"))
    return found
