"""A generator's revision changes with every local module that its file imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from knowgen.workflows import local_source
from tests.helpers.processes import run_python

FILES = {
    "duck_model.py": "import json\nfrom duck_parts import feather\nimport duck_package.inner\nimport PIL.Image\n"
    "class Duck:\n    def draw(self, prompt, references, seed):\n        from duck_lazy import late\n",
    "duck_parts.py": "from duck_deep import *\nfeather = 1\n",
    "duck_deep.py": "def later():\n    import duck_parts, duck_model\n",
    "duck_lazy.py": "late = 1\n",
    "duck_package/__init__.py": "",
    "duck_package/inner.py": "from . import beside\nfrom .beside import x\n",
    "duck_package/beside.py": "x = 1\n",
    "duck_unused.py": "",
}


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    local_source._located.cache_clear()
    yield tmp_path
    local_source._located.cache_clear()
    for name in [name for name in sys.modules if name.startswith(("duck_", "knowgen_user_duck"))]:
        del sys.modules[name]


def test_the_modules_that_a_file_imports_are_found_through_each_other(folder: Path) -> None:
    found = local_source.local_files(folder / "duck_model.py", "duck_model")
    assert {path.relative_to(folder).as_posix() for path in found.values()} == set(FILES) - {"duck_unused.py"}


@pytest.mark.parametrize("name", [name for name in FILES if name != "duck_unused.py"])
def test_an_edit_of_any_of_them_changes_the_digest(folder: Path, name: str) -> None:
    before = local_source.source_digest(folder / "duck_model.py", "duck_model")
    (folder / "duck_unused.py").write_text("anything = 1\n")
    assert local_source.source_digest(folder / "duck_model.py", "duck_model") == before
    with (folder / name).open("a") as file:
        file.write("# edited\n")
    assert local_source.source_digest(folder / "duck_model.py", "duck_model") != before


def test_the_digest_does_not_depend_on_the_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    alone = "class Duck:\n    def draw(self, prompt, references, seed): ...\n"
    for place in (folder, tmp_path_factory.mktemp("elsewhere")):
        (place / "lonely.py").write_text(alone)
    first, second = (local_source.source_digest(place / "lonely.py", "lonely") for place in (folder, place))
    assert first == second


def test_the_revision_of_a_generator_follows_its_imports(folder: Path) -> None:
    code = (
        "from knowgen.workflows.resolve import resolve_generator\n"
        "print(resolve_generator('duck_model.py:Duck', {}, None).spec.revision)"
    )
    before = run_python("-c", code, cwd=folder).stdout
    (folder / "duck_package" / "beside.py").write_text("x = 2\n")
    after = run_python("-c", code, cwd=folder).stdout
    assert before.startswith("source ") and after.startswith("source ") and before != after
