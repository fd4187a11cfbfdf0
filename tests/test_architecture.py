"""The rooms and what each may import, held by reading the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "knowgen"

ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "records": set(),
    "errors": set(),
    "calls": set(),
    "caches": set(),
    "spec": set(),
    "registry": set(),
    "remote": {"remote"},
    "tasks": {"records", "registry", "calls", "caches", "remote", "scorers", "tasks"},
    "search": {"records", "registry", "search"},
    "generators": {"records", "registry", "calls", "caches", "remote", "search", "generators"},
    "scorers": {"records", "registry", "calls", "caches", "remote", "spec", "scorers"},
    "worlds": {"records", "worlds", "tasks", "search", "generators", "scorers", "registry"},
    "store": {"records", "spec", "store"},
    "stats": {"records", "stats"},
    "engine": {
        "records", "spec", "calls", "caches", "registry", "tasks", "search", "generators", "scorers", "store", "stats",
        "engine",
    },
    "report": {"records", "stats", "store", "report", "spec"},
    "serving": {"records", "registry", "calls", "generators", "engine", "remote", "serving"},
    "scaffold": set(),
}  # fmt: skip
"""By room; `core` and `errors` may be used by all. `api`, `assemble`, `demo` and `cli` may import anything."""

FREE = {
    "api", "runs", "comparing", "assemble", "planning", "dry_run", "repainting", "reproducing", "merging", "outputs",
    "elsewhere", "demo", "suite", "cli", "__init__", "__main__",
}  # fmt: skip
HEAVY = {
    "torch",
    "transformers",
    "diffusers",
    "open_clip",
    "ray",
    "plotly",
    "onnxruntime",
    "rapidocr",
    "pandas",
    "openai",
    "datasets",
    "huggingface_hub",
    "sklearn",
}


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def own_imports(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "knowgen" else [module]
        rooms |= {name.split(".")[1] for name in names if name.startswith("knowgen.")}
    return rooms


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_is_in_the_table() -> None:
    assert {room_of(path) for path in SOURCES} <= ALLOWED.keys() | FREE


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_the_table_allows(path: Path) -> None:
    room = room_of(path)
    if room in FREE:
        return
    forbidden = own_imports(path) - ALLOWED[room] - {"core", "errors", "__version__", room}
    assert not forbidden, f"{path.name} in {room} imports {sorted(forbidden)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name.split(".")[0] for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {(node.module or "").split(".")[0] for node in top if isinstance(node, ast.ImportFrom)}
    assert not names & HEAVY


def test_the_core_does_not_know_worlds_exist() -> None:
    for path in SOURCES:
        if room_of(path) not in FREE | {"worlds"}:
            assert "worlds" not in own_imports(path), path


def test_the_project_speaks_of_itself_alone() -> None:
    words = ("../sha" + "red", "/wo" + "rk/")
    root = PACKAGE.parent
    folders = [PACKAGE, root / "docs", root / "tests", root / "benchmarks", root / ".ci"]
    files = [
        path for folder in folders for path in folder.rglob("*") if path.suffix in {".py", ".md", ".js", ".html", ""}
    ]
    for path in [*files, root / "README.md", root / "Makefile", root / "CHANGELOG.md"]:
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert not [word for word in words if word in text], path


def test_a_forbidden_import_would_be_found(tmp_path: Path) -> None:
    source = tmp_path / "bad.py"
    source.write_text("def f():\n    from knowgen import worlds\n    import knowgen.engine.run\n")
    assert own_imports(source) == {"worlds", "engine"}
