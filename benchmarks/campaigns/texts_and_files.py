"""Give the commands hostile texts and files: each must end in one clear line or in the right result, within a deadline.

    python benchmarks/campaigns/texts_and_files.py [--every 1] [--deadline 60] [--verbose]

The files are in encodings, separators and forms of other machines, broken, ambiguous, nested too deeply, larger than
they look, or name what they must not name. Every command runs in this process, as on the command line.

A violation is an exit code of 1, a traceback, no or several lines of error, a control character in what is printed, a
case that runs past the deadline or gives another result than expected, or a file outside its folder that is used.
Prints the number of cases by kind and end, and every violation. The exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from knowgen import api
from knowgen.cli.main import run

N = 3
"""Number of samples of the task of a case."""

GENERATOR = """
from PIL import Image

class Draw:
    references = True
    revision = "1"
    def draw(self, prompt, references, seed):
        return Image.new("RGB", (32, 32), (7, 7, 7))
"""


@dataclass(frozen=True)
class Case:
    """One hostile file.

    Attributes:
        kind: Kind of the case, for the counts.
        name: Name of the case.
        build: Writes the files into an empty folder and returns the arguments of the command.
        error: Expression that the only line of error must match; empty where the result must be right.
        right: Checks the result where there must be one.
    """

    kind: str
    name: str
    build: Callable[[Path], list[str]]
    error: str = ""
    right: Callable[[Path, str], bool] = lambda folder, printed: True


class DeadlineError(BaseException):
    """A case ran past its deadline; no base class that a command could catch."""


# --- files of the cases -----------------------------------------------------------------------------------------------


def write_task(folder: Path) -> None:
    """Write a task of `N` samples, a generator, and the images of a results file."""
    (folder / "task" / "truth").mkdir(parents=True)
    (folder / "out").mkdir()
    samples, truths = [], []
    for number in range(N):
        image = folder / "task" / "truth" / f"s{number}.png"
        Image.new("RGB", (32, 32), (60 * number, 0, 0)).save(image)
        shutil.copyfile(image, folder / "out" / f"s{number}.png")
        ref = {"sha256": hashlib.sha256(image.read_bytes()).hexdigest(), "width": 32, "height": 32, "format": "PNG"}
        samples.append(
            {"id": f"s{number}", "prompt": f"\u00e9\u2028 {number}", "category": ("art", "film")[number % 2]}
        )
        truths.append({"sample_id": f"s{number}", "image": ref, "image_file": f"truth/s{number}.png"})
    (folder / "task" / "task.yaml").write_text("name: hostile\ndefault_scorers: [pixels]\n")
    for name, rows in (("samples", samples), ("truth", truths)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "task" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (folder / "generator.py").write_text(GENERATOR)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a results file of the images that `write_task` wrote."""
    return [
        {"id": f"s{number}", "success": True, "prompt": "p", "meta": {"category": ("art", "film")[number % 2]},
         "output_path": f"out/s{number}.png", "gt_image": f"task/truth/s{number}.png"}
        for number in range(N)
    ]  # fmt: skip


def generate(folder: Path, *more: str) -> list[str]:
    """Return the arguments of a run of the task."""
    words = ["run", "--task", str(folder / "task"), "--generator", f"{folder}/generator.py:Draw", "--scorer", "pixels"]
    return [*words, "--workers", "0", "--out", str(folder / "run"), *more]


def score(folder: Path, *more: str) -> list[str]:
    """Return the arguments to score the results file."""
    return ["score", str(folder / "results.json"), "--scorer", "pixels", "--out", str(folder / "run"), *more]


def scored(folder: Path, count: int = N) -> bool:
    """Return whether the run has so many scores that are ok, and no others."""
    rows = api.load_run(folder / "run").rows()
    return [row.strict.status.value for row in rows] == ["ok"] * count


def perfect(folder: Path, _: str = "") -> bool:
    """Return whether every image of the results file was compared with its own ground truth."""
    return scored(folder) and api.load_run(folder / "run").summary.headline.value == 1.0


READERS: dict[str, tuple[str, Callable[[Path], str], Callable[[Path], list[str]], Callable[[Path, str], bool]]] = {
    "samples": ("task/samples.jsonl", lambda folder: "", generate, lambda folder, _: scored(folder)),
    "truth": ("task/truth.jsonl", lambda folder: "", generate, lambda folder, _: scored(folder)),
    "task file": ("task/task.yaml", lambda folder: "", generate, lambda folder, _: scored(folder)),
    "ids": (
        "ids.txt", lambda folder: "s0\ns2\n",
        lambda folder: generate(folder, "--ids", f"@{folder}/ids.txt"), lambda folder, _: scored(folder, 2),
    ),
    "results": ("results.json", lambda folder: json.dumps(rows_of(folder)), score, perfect),
    "answers": (
        "answers.jsonl",
        lambda folder: "".join(
            json.dumps({"id": f"s{n}", "gen_prompt": "x\u2028y", "reference_images": [{"path": f"out/s{n}.png"}]},
                       ensure_ascii=False) + "\n" for n in range(N)
        ),
        lambda folder: generate(folder, "--requests", f"{folder}/answers.jsonl"),
        lambda folder, _: scored(folder),
    ),
    "labels": (
        "labels.csv", lambda folder: "sample_id,ssim\ns0,0.5\ns1,1\ns2,0\n",
        lambda folder: [*agree(folder)], lambda folder, printed: "pixels and human" in printed,
    ),
    "suite": (
        "suite.yaml",
        lambda folder: f"systems: ['{folder}/generator.py:Draw']\ntasks: ['{folder}/task']\nscorers: [pixels]\n",
        lambda folder: ["suite", str(folder / "suite.yaml"), "--out", str(folder / "suite"), "--dry-run"],
        lambda folder, _: True,
    ),
}  # fmt: skip
"""What reads text of a user: the file, its content, the command, and the check of the result."""


def agree(folder: Path) -> list[str]:
    """Score the images, and return the arguments to compare the scores with labels."""
    (folder / "results.json").write_text(json.dumps(rows_of(folder)))
    outcome = carry_out(score(folder), deadline=120)
    if outcome.code != 0:
        raise RuntimeError(f"the images could not be scored (exit code {outcome.code}): {outcome.err}{outcome.out}")
    return ["agree", str(folder / "run"), "--labels", str(folder / "labels.csv")]


def rewritten(reader: str, change: Callable[[str], bytes]) -> Callable[[Path], list[str]]:
    """Return a builder that changes the text of one reader."""
    file, content, command, _ = READERS[reader]

    def build(folder: Path) -> list[str]:
        words = command(folder)
        text = content(folder) or (folder / file).read_text(encoding="utf-8")
        (folder / file).write_bytes(change(text))
        return words

    return build


def always(text: str) -> Callable[[str], bytes]:
    """Return a change that gives a fixed text."""
    return lambda _: text.encode()


# --- the cases --------------------------------------------------------------------------------------------------------


def encodings() -> Iterator[Case]:
    """Yield every reader with text in other encodings, and with bytes that are no text."""
    good: dict[str, Callable[[str], bytes]] = {
        "a mark": lambda text: text.encode("utf-8-sig"),
        "UTF-16": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
        "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
        "CR": lambda text: text.replace("\n", "\r").encode(),
    }
    bad: dict[str, tuple[Callable[[str], bytes], str]] = {
        "UTF-16 without a mark": (lambda text: text.encode("utf-16-le"), "NUL byte"),
        "Latin-1": (lambda text: text.encode().replace(b"s", b"\xe9", 1), r":\d+: byte \d+ of the file \(0xe9\)"),
        "gzip": (lambda text: gzip.compress(text.encode()), "compressed with gzip|not a source of images"),
        "an image": (lambda text: b"\x89PNG\r\n\x1a\n" + bytes(40), "it is an image|not a source of images"),
        "nothing": (
            lambda text: b"",
            "empty|no samples|no ground truth|contains no|Expecting value|not a source|must|no",
        ),
    }
    for reader, (_, _, _, right) in READERS.items():
        for name, change in good.items():
            yield Case("encoding", f"{reader} in {name}", rewritten(reader, change), right=right)
        for name, (change, error) in bad.items():
            yield Case("encoding", f"{reader} as {name}", rewritten(reader, change), error)


BROKEN = {
    "cut": ('{"id": "s0", "pro', "invalid JSON"),
    "nested": ("[" * 100_000, "nested too deeply|must be"),
    "nested field": (
        '{"id": "s0", "prompt": "p", "meta": {"x": ' + "[" * 50_000 + "]" * 50_000 + "}}",
        "nested too deep",
    ),
    "huge number": ('{"id": ' + "9" * 5000 + "}", "Exceeds the limit"),
    "not a number": ('{"id": "s0", "prompt": "p", "meta": {"x": NaN}}', "NaN|no images|no record|has no|none"),
    "twice": ('{"id": "s0", "id": "s1", "prompt": "p"}', "'id' is there twice"),
    "control character": ('{"id": "s0", "prompt": "\x01\x1b[31m"}', "control character"),
    "two values": ('{"id": "s0"} {"id": "s1"}', "Extra data|Expecting"),
    "a string": ('"text"', "must be|no records|not an object"),
    "single quotes": ("{'id': 's0'}", "invalid JSON"),
}


def broken_json() -> Iterator[Case]:
    """Yield JSON that is broken or ambiguous."""
    for name, (text, error) in BROKEN.items():
        for reader in ("samples", "results", "answers"):
            if (reader, name) in {("answers", "not a number"), ("results", "not a number")}:
                continue
            whole = f"[{text}]" if reader == "results" else text + "\n"
            yield Case("JSON", f"{reader}: {name}", rewritten(reader, always(whole)), error)


def ids() -> Iterator[Case]:
    """Yield ids that are none, and ids that are equal."""
    for value in ("null", "true", "1.5", '""', '" "', "[1]", '"\\ud800"'):
        for reader in ("samples", "results", "answers"):
            change = lambda text, value=value: text.replace('"s1"', value, 1).encode()  # noqa: E731
            yield Case("ids", f"{reader}: {value}", rewritten(reader, change), "the id ")
    twice = lambda text: text.replace('"s0"', '"\u00e9"', 1).replace('"s1"', '"e\u0301"', 1).encode()  # noqa: E731
    for reader in ("samples", "results", "answers"):
        yield Case("ids", f"{reader}: two Unicode forms", rewritten(reader, twice), "duplicate id")


def changed_rows(change: Callable[[list[dict[str, Any]], Path], None], *more: str) -> Callable[[Path], list[str]]:
    """Return a builder of a results file whose rows are changed."""

    def build(folder: Path) -> list[str]:
        rows = rows_of(folder)
        change(rows, folder)
        (folder / "results.json").write_text(json.dumps(rows))
        return score(folder, *(word.format(folder=folder) for word in more))

    return build


def renamed(form: str, field: str = "output_path") -> Callable[[list[dict[str, Any]], Path], None]:
    def change(rows: list[dict[str, Any]], folder: Path) -> None:
        for number, row in enumerate(rows):
            row[field] = form.format(number=number, folder=folder)

    return change


def paths() -> Iterator[Case]:
    """Yield paths of other machines, and paths to what must not be used."""
    found = (
        "out\\s{number}.png", "/home/you/out/s{number}.png", "C:\\you\\out\\s{number}.png", "out/s{number}.PNG",
        "file:///you/out/s{number}.png", "file:///you/out/%73{number}.png", "./out/../out/s{number}.png",
        "~/out/s{number}.png", "../../../out/s{number}.png",
    )  # fmt: skip
    for form in found:
        yield Case("paths", form, changed_rows(renamed(form)), right=perfect)
    lost = (
        "/nowhere/x{number}.png", "/etc/passwd", "../secret/s{number}.png", "link/s{number}.png", "out", ".", "/",
        "x" * 5000, "https://example.com/s{number}.png", "\0",
        "out/s{number}.png\0.png",
        "\ud800", "/dev/zero", "/dev/stdin",
        "%2e%2e/secret/s{number}.png", "..\\secret\\s{number}.png", "file://host/secret/s{number}.png",
    )  # fmt: skip
    for form in lost:
        yield Case("paths", repr(form[:40]), secret_beside(renamed(form)), "none of its|.*", unused)
    truths = changed_rows(renamed("/cluster/truth/s{number}.png", "gt_image"), "--images", "{folder}/out")
    yield Case("paths", "ground truths like the images", truths, "none of its 3 ground truths")


def secret_beside(change: Callable[[list[dict[str, Any]], Path], None]) -> Callable[[Path], list[str]]:
    """Return a builder of a case with images in a folder beside it, and with a link to them inside."""
    build = changed_rows(change)

    def with_secret(folder: Path) -> list[str]:
        inner = folder / "inner"
        inner.mkdir()
        for name in ("out", "task", "generator.py"):
            (folder / name).rename(inner / name)
        shutil.copytree(inner / "out", folder / "secret")
        shutil.copytree(inner / "out", folder / "elsewhere")
        (inner / "out" / "link").symlink_to(folder / "elsewhere")
        words = build(inner)
        return [word.replace(str(inner / "run"), str(folder / "run")) for word in words]

    return with_secret


def unused(folder: Path, _: str) -> bool:
    """Return whether no image got a score, except one that is there under the recorded path itself."""
    if not (folder / "run").exists():
        return True
    rows = api.load_run(folder / "run").rows()
    recorded = json.loads((folder / "inner" / "results.json").read_text())
    written = [row for row in recorded if _is_file(folder / "inner" / row["output_path"])]
    return sum(row.strict.status.value == "ok" for row in rows) <= len(written)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def tables() -> Iterator[Case]:
    """Yield label files with other separators and with ambiguous numbers."""
    text = "sample_id,ssim\ns0,0.5\ns1,1\ns2,0\n"
    right = READERS["labels"][3]
    for name, table in {
        "semicolons": text.replace(",", ";"), "tabs": text.replace(",", "\t"), "bars": text.replace(",", "|"),
        "decimal commas": text.replace(",", ";").replace("0.5", "0,5"),
        "a named separator": "sep=;\n" + text.replace(",", ";"), "quotes": text.replace("s0", '"s0"'),
        "a NUL character": text.replace("s2", "s\x002"),
    }.items():  # fmt: skip
        yield Case("labels", name, rewritten("labels", always(table)), right=right)
    for name, (table, error) in {
        "a decimal comma between commas": (text.replace("0.5", "0,5"), "3 cells for 2 columns"),
        "a quoted decimal comma": (text.replace("0.5", '"0,5"'), "decimal comma"),
        "no column of ids": (text.replace("sample_id", "name"), "column sample_id is missing; separated by a comma"),
        "an open quote": (text + 's3,"0.5\n', "not valid CSV|no"),
        "infinity": (text.replace("0.5", "inf"), "from 0 to 1"),
        "a formula": (text.replace("0.5", "=1+1"), "from 0 to 1"),
        "a huge cell": (text.replace("0.5", "9" * 200_000), "not valid CSV|from 0 to 1"),
    }.items():
        yield Case("labels", name, rewritten("labels", always(table)), error)


def yaml_files() -> Iterator[Case]:
    """Yield YAML that explodes, does not end, or builds objects."""
    laughs = "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 12))
    for name, (text, error) in {
        "aliases": (f"a0: &a0 [1]\n{laughs}", "more than"),
        "a circle": ("a: &a [*a]\n", "more than"),
        "nested": ("a: " + "[" * 5000 + "\n", "nested too deeply"),
        "an object": ("a: !!python/object:x.Y {}\n", "construct"),
        "a wrong date": ("a: 2026-99-99\n", "month"),
        "tabs": ("a:\n\t- b\n", "broken YAML"),
        "text": ("hello\n", "fields"),
    }.items():
        for reader in ("task file", "suite"):
            yield Case("YAML", f"{reader}: {name}", rewritten(reader, always(text)), error)


def special_files() -> Iterator[Case]:
    """Yield what cannot be read as a file."""
    places = {"ids": "ids.txt", "results": "results.json", "labels": "labels.csv", "suite": "suite.yaml"}
    errors = {"a folder": "folder", "a device": "device", "a pipe": "pipe to which nobody writes", "none": "missing"}
    for reader, file in places.items():
        for name, error in errors.items():
            words = "unknown suite" if reader == "suite" else error
            yield Case("special", f"{reader}: {name}", special(reader, file, name), words)


def special(reader: str, file: str, kind: str) -> Callable[[Path], list[str]]:
    def build(folder: Path) -> list[str]:
        words = READERS[reader][2](folder)
        place = folder / file
        place.unlink(missing_ok=True)
        if kind == "a folder":
            place.mkdir()
        elif kind == "a device":
            place.symlink_to("/dev/zero")
        elif kind == "a pipe":
            os.mkfifo(place)
        return words

    return build


def archives() -> Iterator[Case]:
    """Yield archives of a published data set that are hostile."""
    for name, (file, data, error) in {
        "zip bomb": ("a.zip", lambda: zipped({"x.png": bytes(40 << 20)}), "unpacks to more than"),
        "zip path": ("a.zip", lambda: zipped({"../x.png": b"1"}), "leaves its folder"),
        "zip absolute": ("a.zip", lambda: zipped({"/tmp/x.png": b"1"}), "absolute path"),
        "not a zip": ("a.zip", lambda: b"<html>", "cannot be read as an archive"),
        "tar bomb": ("a.tar.gz", lambda: tarred(size=40 << 20), "unpacks to more than"),
        "tar path": ("a.tar.gz", lambda: tarred("../x.png"), "leaves its folder"),
        "tar link": ("a.tar", lambda: tarred(kind=tarfile.SYMTYPE, mode="w"), "link or a device"),
        "tar device": ("a.tar", lambda: tarred(kind=tarfile.CHRTYPE, mode="w"), "link or a device"),
        "tar header": ("a.tar.gz", lambda: gzip.compress(large_header(tarfile.XHDTYPE)), "extended headers"),
        "tar global header": ("a.tar", lambda: large_header(tarfile.XGLTYPE), "extended headers"),
        "tar name": ("a.tar", lambda: large_header(tarfile.GNUTYPE_LONGNAME), "extended headers"),
        "cut tar": ("a.tar.gz", lambda: tarred(size=9999)[:60], "archive|damaged"),
        "no images": ("a.zip", lambda: zipped({}), "no usable row|is not among"),
    }.items():
        yield Case("archives", name, prepared(file, data), error)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(name: str = "x.png", size: int = 0, kind: bytes = tarfile.REGTYPE, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        info = tarfile.TarInfo(name)
        info.size, info.type, info.linkname = size, kind, "/etc/passwd"
        archive.addfile(info, io.BytesIO(bytes(size)))
    return buffer.getvalue()


def large_header(kind: bytes) -> bytes:
    """Return a tar archive that starts with a header of 13 MB."""
    content = b"".join(b"12 %06x=1\n" % number for number in range(1_100_000))
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, len(content)
    return (
        info.tobuf(tarfile.USTAR_FORMAT)
        + content
        + bytes(-len(content) % 512)
        + tarfile.TarInfo("x").tobuf()
        + bytes(1024)
    )


def prepared(file: str, data: Callable[[], bytes]) -> Callable[[Path], list[str]]:
    def build(folder: Path) -> list[str]:
        (folder / "data").mkdir()
        rows = [{"id": 1, "prompt": "p", "meta": {"category": "art"}, "gt_image": "images/x.png"}]
        (folder / "data" / "KnowGen-Bench.json").write_text(json.dumps(rows))
        (folder / "data" / file).write_bytes(data())
        return ["task", "prepare", "knowgen", "--data-dir", str(folder / "data")]

    return build


def every_case() -> list[Case]:
    """Return all cases."""
    kinds = (encodings, broken_json, ids, paths, tables, yaml_files, special_files, archives)
    return [case for kind in kinds for case in kind()]


# --- running them -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        code: Exit code of the command; None if it did not end within the deadline.
        out: What it printed.
        err: What it printed to the error output.
        seconds: How long it took.
    """

    code: int | None
    out: str
    err: str
    seconds: float


def carry_out(words: Sequence[str], deadline: float) -> Outcome:
    """Run a command in this process."""

    def ring(*_: Any) -> None:
        raise DeadlineError

    out, err, code = io.StringIO(), io.StringIO(), None
    earlier = signal.signal(signal.SIGALRM, ring)
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, deadline)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(list(words))
    except DeadlineError:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    return Outcome(code, out.getvalue(), err.getvalue(), time.monotonic() - started)


def violation(case: Case, folder: Path, outcome: Outcome) -> str:
    """Return what is wrong with the end of a case; empty if nothing is."""
    lines = [line for line in outcome.err.splitlines() if line.startswith("knowgen: ")]
    if outcome.code is None:
        return "ran past the deadline"
    if outcome.code == 1 or "Traceback" in outcome.err or "run it again with --debug" in outcome.err:
        return f"unexpected error: {outcome.err[-300:]}"
    if re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", (outcome.out + "".join(lines)).replace("\r", "")):
        return "a control character is printed"
    failed = outcome.code in (2, 3)
    if failed and len(lines) != 1:
        return f"{len(lines)} lines of error"
    if failed and not (case.error and re.search(case.error, lines[0])):
        return f"refused with: {lines[0][:300]}"
    if not failed and case.error and case.right is Case.__dataclass_fields__["right"].default:
        return f"not refused; printed: {outcome.out[-300:]}"
    if not failed and not case.right(folder, outcome.out):
        return f"a wrong result; exit code {outcome.code}; {outcome.out[-300:]}"
    return ""


def campaign(
    every: int = 1, deadline: float = 60.0, *, verbose: bool = False
) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Run every nth case.

    Returns:
        Number of cases by kind and end, and the violations.
    """
    counts: Counter[tuple[str, str]] = Counter()
    violations: list[str] = []
    for case in every_case()[::every]:
        place = tempfile.mkdtemp(prefix="knowgen-files-")
        folder = Path(place) / "case"  # a fixed name, because the name of a folder becomes that of a system
        folder.mkdir()
        try:
            os.environ["KNOWGEN_DATA"] = str(folder / "home")
            write_task(folder)
            outcome = carry_out(case.build(folder), deadline)
            wrong = violation(case, folder, outcome)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        end = "violation" if wrong else "refused in one line" if outcome.code in (2, 3) else "right result"
        counts[case.kind, end] += 1
        if wrong:
            violations.append(f"{case.kind}, {case.name}: {wrong}")
        if verbose:
            print(
                f"{outcome.seconds:5.1f} s  {end}: {case.kind}, {case.name}: {outcome.err.strip()[-200:]!r}", flush=True
            )
    return counts, violations


def main() -> int:
    """Run the campaign and print its counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="run every nth case")
    parser.add_argument("--deadline", type=float, default=60.0, help="seconds for one case")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    options = parser.parse_args()
    counts, violations = campaign(options.every, options.deadline, verbose=options.verbose)
    ends = ("refused in one line", "right result", "violation")
    for kind in dict.fromkeys(kind for kind, _ in counts):
        print(f"{kind:10}", *(f"{counts[kind, end]:4} {end}" for end in ends))
    totals = {end: sum(number for (_, its), number in counts.items() if its == end) for end in ends}
    print(f"{'all':10}", *(f"{number:4} {end}" for end, number in totals.items()))
    for line in violations:
        print(f"violation: {line}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
