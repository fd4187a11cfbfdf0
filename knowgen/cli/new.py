"""`knowgen new`: a small package for a generator of one's own."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from knowgen.core.errors import ConfigError, UsageError

EPILOG = """\b
Example:
  knowgen new generator my_model
  pip install -e my_model && knowgen check generator my_model
"""

FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "src/{module}/__init__.py": "__init__.py",
    "src/{module}/painter.py": "painter.py",
    "tests/test_{module}.py": "test_painter.py",
}
"""Where each file of the package goes, and its template in `knowgen/scaffold/generator`."""


@click.command("new", epilog=EPILOG)
@click.argument("kind", type=click.Choice(["generator"]))
@click.argument("name")
@click.option("--dir", "folder", type=click.Path(path_type=Path), metavar="D", help="Folder of the package [NAME].")
def command(kind: str, name: str, folder: Path | None) -> int:
    """Write a small package that installs, works, and passes `knowgen check`.

    Nothing that exists is overwritten. docs/adapters.md says what a generator may be.
    """
    _check_name(name)
    target = folder or Path(name)
    written = _write(target, name)
    for path in written:
        click.echo(f"wrote    {path}")
    from knowgen.cli.common import command_line

    click.echo(f"install  {command_line('pip', 'install', '-e', target)}")
    click.echo(f"check    {command_line('knowgen', 'check', 'generator', name)}")
    click.echo(f"run      {command_line('knowgen', 'run', '--task', 'knowgen_mini', '--generator', name)}")
    return 0


def _check_name(name: str) -> None:
    """Holds that a name can stand for a generator, a module and a distribution, and stands for none yet.

    Raises:
        UsageError: It cannot, or it does.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,59}", name) or name.endswith("_") or keyword.iskeyword(name):
        better = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_0123456789")
        usable = 3 <= len(better) <= 60 and not keyword.iskeyword(better)
        hint = f"did you mean {better!r}?" if usable else "such as my_model"
        raise UsageError(f"{name!r} cannot name a module: small letters, digits and _, a letter first", fix=hint)
    from knowgen.core import registry

    taken = registry.entries("generators").get(name)
    if taken is not None:
        raise UsageError(f"there is a generator {name!r} already, from {taken.origin}", fix="choose another name")
    if name in sys.stdlib_module_names or _installed(name):
        raise UsageError(f"there is a module {name!r} already", fix=f"choose another name, such as {name}_painter")


def _installed(name: str) -> bool:
    """Tells whether a module of that name is installed; folders beside the user do not count."""
    from importlib.machinery import PathFinder

    here = str(Path.cwd())
    return PathFinder.find_spec(name, [path for path in sys.path if path not in ("", here)]) is not None


def _write(target: Path, name: str) -> list[Path]:
    """Writes the files of the package and returns their paths; none where one of them exists.

    Raises:
        ConfigError: A file is in the way, or the folder cannot be written.
    """
    values = {
        "name": name,
        "module": name,
        "distribution": name.replace("_", "-"),
        # with a suffix, so that it is none of the names that the module imports
        "class_name": "".join(word.capitalize() for word in name.removesuffix("_painter").split("_")) + "Painter",
    }
    templates = files("knowgen") / "scaffold" / "generator"
    texts = {
        target / place.format(module=name): Template(
            (templates / f"{template}.tmpl").read_text(encoding="utf-8")
        ).substitute(values)
        for place, template in FILES.items()
    }
    if standing := [path for path in texts if path.exists() or path.is_symlink()]:
        raise ConfigError(
            "exists already, and nothing is overwritten", where=str(standing[0]), fix="choose another --dir"
        )
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ConfigError(
            f"cannot be written ({error.strerror})", where=str(target), fix="choose another --dir"
        ) from error
    return list(texts)
