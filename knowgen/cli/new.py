"""`knowgen new`: a small package for a generator, scorer, task or search backend of one's own."""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from knowgen.core import registry
from knowgen.core.errors import ConfigError, UsageError
from knowgen.core.registry import Kind

EPILOG = """\b
Example:
  knowgen new generator my_model
  pip install -e my_model && knowgen check generator my_model
"""


@dataclass(frozen=True)
class PackageKind:
    """A kind of plugin that a package can be written for.

    Attributes:
        group: Kind in the registry, and end of the entry point group.
        next_steps: Commands that try the plugin, with `{name}` for its name; each with the word that is printed first.
        is_function: Whether the entry point names a function instead of a class.
    """

    group: Kind
    next_steps: tuple[tuple[str, str], ...]
    is_function: bool = False


KINDS = {
    "generator": PackageKind(
        "generators",
        (("check", "check generator {name}"), ("run", "run --task knowgen_mini --generator {name}")),
    ),
    "scorer": PackageKind(
        "scorers",
        (
            ("check", "check scorer {name}"),
            ("run", "run --task knowgen_mini --generator open_book --scorer {name}"),
        ),
    ),
    "task": PackageKind(
        "tasks",
        (("check", "check task {name}"), ("run", "run --task {name} --generator noise")),
        is_function=True,
    ),
    "search": PackageKind(
        "search",
        (
            ("list", "list search"),
            ("run", "run --task knowgen_mini --generator open_book -g search={name}"),
        ),
    ),
}

FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "{kind}/README.md",
    "src/{module}/__init__.py": "__init__.py",
    "src/{module}/{kind}.py": "{kind}/code.py",
    "tests/test_{module}.py": "{kind}/test.py",
}
"""Where each file of the package goes, and its template in `knowgen/scaffold`."""

DATA_FOLDER = "truth"
"""Folder of a kind's images, which are copied into the package as they are."""


@click.command("new", epilog=EPILOG)
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.argument("name")
@click.option("--dir", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the package [NAME].")
def command(kind: str, name: str, folder: Path | None) -> int:
    """Create a small package with a plugin that works and passes `knowgen check`.

    Existing files are never overwritten. docs/guides/ describes each kind of plugin.
    """
    _check_name(name, kind)
    target = folder or Path(name)
    written = _write(target, name, kind)
    for path in written:
        click.echo(f"wrote    {path}")
    from knowgen.cli.common import command_line, pip_line

    click.echo(f"install  {pip_line('install', '-e', target)}")
    for word, command_text in KINDS[kind].next_steps:
        click.echo(f"{word:<9}{command_line(*command_text.format(name=name).split())}")
    return 0


def _check_name(name: str, kind: str) -> None:
    """Check that a name can be a plugin's, a module's and a distribution's, and is not one yet.

    Raises:
        UsageError: It cannot, or it is.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,59}", name) or name.endswith("_") or keyword.iskeyword(name):
        better = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_0123456789")
        usable = 3 <= len(better) <= 60 and not keyword.iskeyword(better)
        hint = f"did you mean {better!r}?" if usable else "such as my_model"
        raise UsageError(f"{name!r} cannot name a module: small letters, digits and _, a letter first", fix=hint)
    group = KINDS[kind].group
    taken = registry.entries(group).get(name)
    if taken is not None:
        what = f"there is a {registry.SINGULAR[group]} {name!r} already, from {taken.origin}"
        raise UsageError(what, fix="choose another name")
    if name in sys.stdlib_module_names or _installed(name):
        raise UsageError(f"there is a module {name!r} already", fix=f"choose another name, such as {name}_{kind}")


def _installed(name: str) -> bool:
    """Tells whether a module of that name is installed; folders beside the user do not count."""
    from importlib.machinery import PathFinder

    here = str(Path.cwd())
    return PathFinder.find_spec(name, [path for path in sys.path if path not in ("", here)]) is not None


def _write(target: Path, name: str, kind: str) -> list[Path]:
    """Write the files of the package and return their paths; write none where one of them exists.

    Raises:
        ConfigError: A file is in the way, or the folder cannot be written.
    """
    values = {
        "name": name,
        "module": name,
        "distribution": name.replace("_", "-"),
        "kind": kind,
        "what": registry.SINGULAR[KINDS[kind].group],
        "group": KINDS[kind].group,
        "target": _target_name(name, kind),
    }
    templates = files("knowgen") / "scaffold"
    contents = {
        target / place.format(module=name, kind=kind): Template(
            (templates / f"{template.format(kind=kind)}.tmpl").read_text(encoding="utf-8")
        )
        .substitute(values)
        .encode()
        for place, template in FILES.items()
    }
    if (data := templates / kind / DATA_FOLDER).is_dir():
        for image in sorted(data.iterdir(), key=lambda each: each.name):
            contents[target / "src" / name / DATA_FOLDER / image.name] = image.read_bytes()
    if standing := [path for path in contents if path.exists() or path.is_symlink()]:
        raise ConfigError(
            "exists already, and nothing is overwritten", where=str(standing[0]), fix="choose another --dir"
        )
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(content)
    except OSError as error:
        raise ConfigError(
            f"cannot be written ({error.strerror})", where=str(target), fix="choose another --dir"
        ) from error
    return list(contents)


def _target_name(name: str, kind: str) -> str:
    """Return the name of the class or function: with a suffix, so that it is none that the module imports."""
    stem = name.removesuffix(f"_{kind}")
    if KINDS[kind].is_function:
        return f"{stem}_{kind}"
    return "".join(word.capitalize() for word in stem.split("_")) + kind.capitalize()
