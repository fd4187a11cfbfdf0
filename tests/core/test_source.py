"""What a plugin does and takes is read from its source, without importing it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from knowgen.core.source import SourceFacts, read_source

PLUGIN = """
raise RuntimeError("imported")


class Duck:
    \"\"\"Paints ducks in ink.

    More words.
    \"\"\"

    def __init__(self, model, style="ink", *, steps: int = 8): ...


def score(prompt, image=None):
    \"\"\"Counts ducks.\"\"\"
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "duck_pond"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("from .inner.ducks import Duck as Painter\nfrom duck_pond.inner import ducks\n")
    (folder / "inner" / "__init__.py").write_text("")
    (folder / "inner" / "ducks.py").write_text(PLUGIN)
    (tmp_path / "broken_duck.py").write_text("class (")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("target", ["duck_pond.inner.ducks:Duck", "duck_pond:Painter"])
def test_a_class_is_described_by_its_docstring_and_constructor(target: str, package: None) -> None:
    assert read_source(target) == SourceFacts("Paints ducks in ink.", ("model", "style='ink'", "steps=8"))
    assert not [name for name in sys.modules if name.startswith("duck_pond")]


def test_a_function_is_described_too(package: None) -> None:
    assert read_source("duck_pond.inner.ducks:score") == SourceFacts("Counts ducks.", ("prompt", "image=None"))


@pytest.mark.parametrize(
    "target", ["no_such_module:X", "broken_duck:X", "duck_pond:Absent", "duck_pond.absent:X", "sys:x"]
)
def test_what_cannot_be_read_has_no_description(target: str, package: None) -> None:
    assert read_source(target) == SourceFacts()


DATACLASSES = """
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar
from duck_pond.inner.ducks import Duck


@dataclass
class Pond:
    \"\"\"A pond.\"\"\"

    kind: ClassVar[str] = "pond"
    depth: float
    _: KW_ONLY
    fish: int = 3
    names: list[str] = field(default_factory=list)
    colour: str = field(default="blue")
    volume: float = field(init=False)


@dataclass(eq=False)
class Lake(Pond):
    \"\"\"A lake.\"\"\"

    island: bool = False
    fish: int = 100


class Sea(Lake): ...


class WoodenDuck(Duck): ...
"""


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("Pond", ("depth", "fish=3", "names=…", "colour='blue'")),
        ("Lake", ("depth", "fish=100", "names=…", "colour='blue'", "island=False")),
        ("Sea", ("depth", "fish=100", "names=…", "colour='blue'", "island=False")),
        ("WoodenDuck", ("model", "style='ink'", "steps=8")),
    ],
)
def test_fields_of_dataclasses_and_parameters_of_bases_are_taken(
    name: str, takes: tuple[str, ...], package: None, tmp_path: Path
) -> None:
    (tmp_path / "duck_pond" / "ponds.py").write_text(DATACLASSES)
    assert read_source(f"duck_pond.ponds:{name}").takes == takes
