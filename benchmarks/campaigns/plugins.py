"""Run hostile plugins, and check that each harms one sample and not the run.

    python -m benchmarks.campaigns.plugins [--only NAME …] [--limit 6] [--deadline 90]

Each plugin of `hostile_plugins.py` misbehaves on one prompt or when it is built, each module of `hostile_imports.py`
when it is imported. `knowgen run` starts it as a user would, from the folder of its file; the time limits of imports
and constructors are shortened. The run must end by itself within the deadline; the run directory must be readable
afterwards; every sample must have a state, with a reason if it is not ok; and no process may be left behind. Where no
sample can be served, the run must end with one line that names the plugin. A plugin that did not misbehave counts as a
fault, because nothing was tried.

Prints one line per plugin, then the counts. Exits with 1 if anything of this does not hold.
"""

from __future__ import annotations

import argparse
import ast
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.campaigns.hostile_imports import IMPORTS, Role, source
from knowgen.core.records import GenerationStatus, ScoreStatus
from knowgen.store.run import RunStore
from knowgen.tasks.load import load_task
from knowgen.workflows.selection import select_samples

PLUGINS = Path(__file__).resolve().parent / "hostile_plugins.py"
BASES = frozenset({"Drawing", "Batching", "Waiting", "Scoring", "Unhandled", "Wordless", "Unreadable"})
ENDS_THE_RUN = frozenset(
    {"ExitsWhenBuilt", "HangsWhenBuilt", "HoldsWhenBuilt", "HangsInSetup"}
    | {name for name, hostile in IMPORTS.items() if hostile.ends}
)
"""Plugins without which no sample can be served: the run ends with a reason."""

LAUNCH = """
from knowgen.cli.main import main
from knowgen.engine import options
from knowgen.workflows import plugin_process

options.BUILD_SECONDS = plugin_process.ANSWER_SECONDS = 8.0
main()
"""
"""The command line with shorter time limits for imports and constructors."""


class Verdict(NamedTuple):
    """What a plugin did to a run.

    Attributes:
        name: The plugin.
        seconds: How long the run took.
        ok: Samples with an image and a score.
        faults: What does not hold; empty if everything does.
        line: The last line that the run printed about a failure.
    """

    name: str
    seconds: float
    ok: int
    faults: list[str]
    line: str


def plugin_names() -> list[str]:
    """Return the names of the hostile classes and modules, in the order of the files."""
    tree = ast.parse(PLUGINS.read_text(encoding="utf-8"))
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.name not in BASES]
    return [*classes, *IMPORTS]


def role_of(name: str) -> Role:
    """Return what a plugin is run as."""
    if name in IMPORTS:
        return IMPORTS[name].role
    return "scorer" if name.startswith(("Scorer", "Judge")) else "generator"


def command(name: str, out: Path, limit: int) -> list[str]:
    """Return the command of a run; what is not hostile is bundled."""
    plugin = f"{name.lower()}.py:Plugin" if name in IMPORTS else f"{PLUGINS.name}:{name}"
    role = role_of(name)
    names = {"task": "knowgen_mini", "generator": "noise", "scorer": "pixels"}
    if name not in IMPORTS:
        names["scorer"] = f"{PLUGINS.name}:constant"
    words = [] if role != "search" else ["-g", f"search={plugin}"]
    names |= {"generator": "open_book"} if role == "search" else {role: plugin}
    if role == "task":
        names["scorer"] = f"{PLUGINS}:constant"
    words += [word for key, value in names.items() for word in (f"--{key}", value)]
    words += ["--limit", str(limit), "--timeout", "2", "--patience", "5", "--out", str(out)]
    return [sys.executable, "-c", LAUNCH, "run", *words]


def left_behind(marker: str) -> list[int]:
    """Return the processes whose environment has a marker."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if marker.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # it has ended, or belongs to another user
    return found


def try_plugin(name: str, folder: Path, limit: int, deadline: float) -> Verdict:
    """Run one plugin and return what it did."""
    out, marker = folder / name, f"KNOWGEN_CAMPAIGN_RUN={folder.name}-{name}"
    samples, _ = select_samples(load_task("knowgen_mini"), limit=limit, ids=None)
    key, value = marker.split("=")
    witness = folder / f"{name}.witness"
    environment = {
        **os.environ,
        "KNOWGEN_CAMPAIGN_PROMPT": samples[min(2, limit - 1)].prompt,
        "KNOWGEN_CAMPAIGN_WITNESS": str(witness),
        key: value,
    }
    if name in IMPORTS:
        (folder / f"{name.lower()}.py").write_text(source(name), encoding="utf-8")
    started = time.monotonic()
    process = subprocess.Popen(
        command(name, out, limit), cwd=folder if name in IMPORTS else PLUGINS.parent, env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", start_new_session=True,
    )  # fmt: skip
    faults = []
    try:
        output, _ = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        faults.append(f"did not end within {deadline:g} s")
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    seconds = time.monotonic() - started
    if process.returncode == 1:
        faults.append("unexpected error")
    if not witness.is_file():
        faults.append("did not misbehave, so nothing was tried")
    time.sleep(0.2)
    if remaining := left_behind(marker):
        faults.append(f"{len(remaining)} processes left behind")
        for pid in remaining:
            os.kill(pid, signal.SIGKILL)
    said = [line for line in output.splitlines() if "failed:" in line or line.startswith("knowgen:")]
    ok, more = examine(name, out, limit, faults, said)
    return Verdict(name, seconds, ok, [*faults, *more], said[-1][:150] if said else "")


def examine(name: str, out: Path, limit: int, faults: list[str], said: list[str]) -> tuple[int, list[str]]:
    """Return the number of samples that are ok, and what does not hold of the run directory."""
    if name in ENDS_THE_RUN:
        named = any(line.startswith("knowgen:") and name.lower() in line.lower() for line in said)
        return 0, [] if named else ["ended without a reason that names the plugin"]
    more = []
    try:
        with RunStore.read(out) as store:
            generations = {generation.sample_id: generation for _, generation in store.generations()}
            scores = {score.sample_id: score for _, score in store.scores()}
    except Exception as error:  # noqa: BLE001 - whatever it is, the directory cannot be read
        return 0, [f"the run directory cannot be read: {error}"]
    failed = [one for one in generations.values() if one.status is not GenerationStatus.OK]
    unscored = [one for one in scores.values() if one.status is not ScoreStatus.OK]
    if len(generations) != limit:
        more.append(f"{limit - len(generations)} samples without a state")
    if any(not one.reason for one in failed) or any(not one.strict.reason for one in unscored):
        more.append("a failure without a reason")
    if len(failed) + len(unscored) > (name not in IMPORTS):
        more.append(f"{len(failed) + len(unscored)} samples harmed")
    good = {one.sample_id for one in generations.values()} - {one.sample_id for one in failed}
    if missing := good - set(scores):
        more.append(f"{len(missing)} images without a score")
    return len(good) - len(unscored), more


def main() -> int:
    """Run the plugins and print what they did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=plugin_names(), metavar="NAME")
    parser.add_argument("--limit", type=int, default=6)
    parser.add_argument("--deadline", type=float, default=90.0)
    options = parser.parse_args()
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="knowgen-campaign-", ignore_cleanup_errors=True) as folder:
        for name in options.only:
            verdict = try_plugin(name, Path(folder), options.limit, options.deadline)
            verdicts.append(verdict)
            state = "; ".join(verdict.faults) or "held"
            print(
                f"{name:<24}{verdict.seconds:6.1f} s  {verdict.ok}/{options.limit} ok  {state}  | {verdict.line}",
                flush=True,
            )
    wrong = [verdict for verdict in verdicts if verdict.faults]
    print(f"{len(verdicts)} hostile plugins: {len(verdicts) - len(wrong)} held, {len(wrong)} did not")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
