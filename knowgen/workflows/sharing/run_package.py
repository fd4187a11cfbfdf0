"""A run directory as a package: a consistent copy without anything of this machine, with rows for the hub's viewer."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from knowgen.core.errors import ConfigError, DataError
from knowgen.core.spec import fingerprint
from knowgen.core.steps import counted
from knowgen.core.text import count
from knowgen.interchange.table_export import export_rows
from knowgen.leaderboards.season import SECRET_FILE
from knowgen.store.files import explain_os_error, write_text
from knowgen.store.folder import DATABASE_FILE, IMAGE_FOLDER, SOURCE_FILE
from knowgen.store.lock import RunLock
from knowgen.store.manifest import MANIFEST_FILE, Manifest, read_manifest
from knowgen.store.run import RunStore
from knowgen.workflows.artifacts import SUMMARY_FILE, TABLES, slug
from knowgen.workflows.run import Run, load_run
from knowgen.workflows.sharing.card import run_card
from knowgen.workflows.sharing.listing import DATA_FOLDER, listed
from knowgen.workflows.sharing.package import Package, packed, refuse_private
from knowgen.workflows.sharing.private_text import PrivateText, scrub_database
from knowgen.workflows.verify import Verification, verify

RUN_FOLDER = "run"

_IMAGE_FILE = re.compile(r"[0-9a-f]{64}\.[a-z0-9]{1,5}")

LEFT_OUT = (
    "logs, the report page and records of experiment trackers",
    "the host name of the machine, and paths of its folders",
    "ground-truth images, which belong to the task",
)
"""What every copy of a run lacks."""


def run_package(
    path: Path, stage: Path, repo: str, *, images: bool = True, licence: str = "unknown", keep_paths: bool = False
) -> Package:
    """Prepare and check a copy of a run.

    Args:
        path: The run directory.
        stage: Empty folder on this machine for the copy.
        repo: Repository that it is for, named in the card.
        images: Whether images are sent.
        licence: Licence of the images and scores, as the hub names it.
        keep_paths: Whether folders of this machine may be in what decides the result, such as a model's path.

    Raises:
        ConfigError: A run is in progress, belongs to a private season, or there is a key or a folder of this machine in
            it.
        DataError: It is not a run directory, or its figures do not follow from its results.
    """
    _refuse_season(path)
    private = PrivateText.of_this_machine(path)
    with _locked(path):
        run = load_run(path)
        folder = stage / RUN_FOLDER
        folder.mkdir()
        _copy(path, folder, private)
        (folder / IMAGE_FOLDER).symlink_to(
            (path / IMAGE_FOLDER).resolve()
        )  # for the check; each file is sent by itself
        _verified(verify(folder), path)
        files = {f"{RUN_FOLDER}/{name}": file for name, file in _content(folder)}
        if images:
            files |= {f"{RUN_FOLDER}/{IMAGE_FOLDER}/{name}": file for name, file in _images(path)}
    copied = Run(folder, run.spec, run.protocol)
    files |= {f"{DATA_FOLDER}/{file.name}": file for file in _rows(copied, stage)}
    refuse_private(files, private, path, keep_paths=keep_paths)
    left_out = LEFT_OUT if images else (*LEFT_OUT, "the images")
    card = run_card(copied, repo, data=sorted(files), licence=licence, images=images, left_out=left_out)
    return packed(
        stage,
        "run",
        name=run.spec.system,
        identity=fingerprint(run.spec.directory_identity()),
        files=files,
        card=card,
        images=images,
        left_out=left_out,
    )


def _refuse_season(path: Path) -> None:
    """Check that a run is not in a maintainer's folder of a private season: it has the ground truths.

    Raises:
        ConfigError: It is.
    """
    for folder in path.absolute().parents:
        if (folder / SECRET_FILE).is_file():
            fix = "wait until the season is revealed, and push a copy of the run in another folder"
            raise ConfigError(f"belongs to the private season in {folder.name!r}", where=str(path), fix=fix)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from a run directory while it is copied; one that cannot be written needs no lock."""
    if not os.access(path, os.W_OK):
        yield
        return
    lock = RunLock(path)
    try:
        yield
    finally:
        lock.release()


def _copy(path: Path, folder: Path, private: PrivateText) -> None:
    """Copy the files of a run without images, and take out what is of this machine."""
    manifest = read_manifest(path)
    assert manifest is not None
    try:
        scrub_database(path / DATABASE_FILE, folder / DATABASE_FILE, private)
        write_text(folder / MANIFEST_FILE, _without_host(manifest, private))
        (folder / TABLES).mkdir()
        for source in (path / SUMMARY_FILE, path / SOURCE_FILE, *sorted((path / TABLES).glob("*"))):
            if source.is_file() and not source.is_symlink():
                shutil.copyfile(source, folder / source.relative_to(path))
    except OSError as error:
        raise explain_os_error(error, folder) from error


def _without_host(manifest: Manifest, private: PrivateText) -> str:
    machine = {name: value for name, value in manifest.machine.items() if name != "host"}
    plain = manifest.model_copy(update={"machine": machine}).model_dump(mode="json")
    # what decides the result stays as it is: keys are made from it
    rest = {name: json.loads(private.replaced(json.dumps(value))) for name, value in plain.items() if name != "spec"}
    return json.dumps({**plain, **rest}, indent=2, ensure_ascii=False) + "\n"


def _verified(verification: Verification, path: Path) -> None:
    if not verification.ok:
        first = verification.findings[0]
        number = count(len(verification.findings), "finding")
        fix = f"look at all with `knowgen verify {path}`, and make or score the run again"
        raise DataError(f"{number}: {first}", where=str(path), fix=fix)


def _content(folder: Path) -> Iterator[tuple[str, Path]]:
    for file in sorted(folder.rglob("*")):
        relative = file.relative_to(folder)
        if relative.parts[0] != IMAGE_FOLDER and file.is_file():
            yield relative.as_posix(), file


def _images(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the image files of a run whose names are the hashes of their content."""
    for file in counted(sorted((path / IMAGE_FOLDER).glob("*/*")), "checking images"):
        if file.is_symlink() or not file.is_file() or not _IMAGE_FILE.fullmatch(file.name):
            continue
        if listed(file).sha256 != file.stem:
            fix = "remove it, and run the same command again"
            raise DataError("the content of an image is not that of its name", where=str(file), fix=fix)
        yield f"{file.parent.name}/{file.name}", file


def _rows(run: Run, stage: Path) -> Iterator[Path]:
    """Write one Parquet file for each scorer, with a row for each sample, and yield the files."""
    (stage / DATA_FOLDER).mkdir()
    with RunStore.read(run.path) as store:
        for number, scorer in enumerate(run.spec.scorers):
            name = slug(scorer.name.replace("/", "-"))
            target = stage / DATA_FOLDER / f"{name}.parquet"
            if target.exists():
                target = stage / DATA_FOLDER / f"{name}-{number}.parquet"
            export_rows(store, "parquet", target, scorer.name)
            yield target
