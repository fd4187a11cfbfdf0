"""The layers of docs/architecture.md, compared with the imports in the source."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from knowgen.core.python_source import parse_python

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {
    "datasets",
    "diffusers",
    "huggingface_hub",
    "matplotlib",
    "mlflow",
    "onnxruntime",
    "open_clip",
    "openai",
    "pandas",
    "rapidocr",
    "ray",
    "sklearn",
    "tensorboard",
    "torch",
    "transformers",
    "trl",
    "wandb",
}
PACKAGE_NAME = "knowgen"


class Source:
    """The modules of a package and what each imports of the package itself.

    Args:
        package: The folder of the package.
    """

    def __init__(self, package: Path) -> None:
        self.package = package
        self.paths = {module_name(package, path): path for path in sorted(package.rglob("*.py"))}
        self.trees = {name: parse_python(path.read_text(encoding="utf-8")) for name, path in self.paths.items()}

    def imports(self, name: str) -> set[str]:
        """Return the modules of the package that a module imports anywhere, inside functions too."""
        modules: set[str] = set()
        for node in ast.walk(self.trees[name]):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.paths[name]}: relative import"
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    modules.add(submodule if submodule in self.paths else str(node.module))
        return {module for module in modules if module in self.paths and module != name}

    def layer_violations(self, layers: dict[str, int]) -> list[str]:
        """Return a line for each import that does not point to a lower layer."""
        imports = []
        for name in self.paths:
            importer = part_of(name)
            for module in sorted(self.imports(name)):
                imported = part_of(module)
                if importer and imported and importer != imported and layers[imported] >= layers[importer]:
                    imports.append(f"{name} (layer {layers[importer]}) imports {module} (layer {layers[imported]})")
        return imports

    def circles(self) -> list[set[str]]:
        """Return the sets of modules that import each other, by Tarjan's algorithm."""
        index: dict[str, int] = {}
        lowest: dict[str, int] = {}
        stack: list[str] = []
        circles: list[set[str]] = []

        def visit(name: str) -> None:
            index[name] = lowest[name] = len(index)
            stack.append(name)
            for module in self.imports(name):
                if module not in index:
                    visit(module)
                    lowest[name] = min(lowest[name], lowest[module])
                elif module in stack:
                    lowest[name] = min(lowest[name], index[module])
            if lowest[name] == index[name]:
                members = set(stack[stack.index(name) :])
                del stack[stack.index(name) :]
                if len(members) > 1:
                    circles.append(members)

        for name in self.paths:
            if name not in index:
                visit(name)
        return circles

    def duplicate_classes(self) -> dict[str, list[str]]:
        """Return the class names that are defined in more than one place."""
        places: dict[str, list[str]] = defaultdict(list)
        for name, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(name)
        return {name: modules for name, modules in places.items() if len(modules) > 1}


def module_name(package: Path, path: Path) -> str:
    """Return the dotted name of a file; a package is named by its folder."""
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def part_of(module: str) -> str:
    """Return the package or top-level module that a module belongs to; empty for `knowgen` itself."""
    return module.split(".")[1] if "." in module else ""


def documented_layers() -> dict[str, int]:
    """Return the layer of each package, read from the table in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    layers: dict[str, int] = {}
    for number, packages in re.findall(r"^\| *(\d+) *\| *([^|]+)\|", text, re.MULTILINE):
        for package in re.findall(r"`(\w+)(?:/|\.py)`", packages):
            assert package not in layers, f"{package} is in the table twice"
            layers[package] = int(number)
    return layers


SOURCE = Source(ROOT / PACKAGE_NAME)
LAYERS = documented_layers()


def test_the_table_lists_every_package_and_nothing_else() -> None:
    assert {part_of(name) for name in SOURCE.paths} - {""} == LAYERS.keys()


def test_every_import_points_to_a_lower_layer() -> None:
    assert SOURCE.layer_violations(LAYERS) == []


def test_no_modules_import_each_other() -> None:
    assert SOURCE.circles() == []


def test_class_names_are_unique() -> None:
    assert SOURCE.duplicate_classes() == {}


def test_no_prefix_of_file_names_is_used_as_a_folder() -> None:
    prefixes: dict[tuple[Path, str], list[str]] = defaultdict(list)
    for path in SOURCE.paths.values():
        prefix, underscore, _ = path.stem.partition("_")
        if underscore and prefix:
            prefixes[path.parent, prefix].append(path.name)
    assert {key: names for key, names in prefixes.items() if len(names) > 2} == {}


def test_every_folder_with_modules_is_a_package_with_a_docstring() -> None:
    for folder in {path.parent for path in SOURCE.paths.values()}:
        init = folder / "__init__.py"
        assert init.is_file() and ast.get_docstring(parse_python(init.read_text(encoding="utf-8"))), folder


def top_imports(name: str) -> set[str]:
    """Return the modules that a module imports when it is loaded."""
    top = [node for node in SOURCE.trees[name].body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    for node in top:
        if isinstance(node, ast.ImportFrom):
            modules |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules


HEAVY_MODULES = {name for name in SOURCE.paths if {each.split(".")[0] for each in top_imports(name)} & HEAVY}
"""Modules that cannot do without a heavy library, such as those with a subclass of one of its classes."""


@pytest.mark.parametrize("name", SOURCE.paths)
def test_heavy_libraries_are_imported_inside_functions(name: str) -> None:
    if name not in HEAVY_MODULES:
        assert not top_imports(name) & HEAVY_MODULES, "a module that imports a heavy library is imported in a function"


def test_only_trainers_import_heavy_libraries_when_they_are_loaded() -> None:
    assert {name.rpartition(".")[0] for name in HEAVY_MODULES} <= {"knowgen.training.grpo", "knowgen.training.sft"}


def test_nothing_but_judge_check_seasons_and_the_command_line_knows_that_worlds_exist() -> None:
    for name in SOURCE.paths:
        if part_of(name) not in {"worlds", "judge_check", "seasons", "cli"}:
            assert not {module for module in SOURCE.imports(name) if part_of(module) == "worlds"}, name


def test_no_path_outside_the_project_is_named() -> None:
    words = ("../sha" + "red", "/wo" + "rk/")
    folders = [ROOT / name for name in ("knowgen", "docs", "tests", "benchmarks", "examples", ".ci", ".github")]
    files = [path for folder in folders if folder.is_dir() for path in folder.rglob("*")]
    files += [
        path
        for path in ROOT.iterdir()
        if path.name != ".git" and path.suffix in {".md", ".toml", ".yml", ".yaml", ".cff", ""}
    ]
    for path in files:
        if path.is_file() and path.suffix in {".py", ".md", ".js", ".html", ".toml", ".yml", ".yaml", ".cff", ""}:
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert not [word for word in words if word in text], path


def planted(tmp_path: Path, files: dict[str, str]) -> Source:
    """Return a small package with the given files."""
    for name, text in files.items():
        path = tmp_path / PACKAGE_NAME / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Source(tmp_path / PACKAGE_NAME)


def test_an_import_against_the_layers_is_detected(tmp_path: Path) -> None:
    source = planted(
        tmp_path,
        {
            "core/a.py": "def f():\n    from knowgen.engine import run\n",
            "engine/run.py": "import knowgen.core.a\n",
        },
    )
    assert source.layer_violations({"core": 1, "engine": 4}) == [
        "knowgen.core.a (layer 1) imports knowgen.engine.run (layer 4)"
    ]
    assert source.circles() == [{"knowgen.core.a", "knowgen.engine.run"}]


def test_an_import_of_a_package_of_the_same_layer_is_detected(tmp_path: Path) -> None:
    source = planted(tmp_path, {"tasks/a.py": "from knowgen.scorers.b import C\n", "scorers/b.py": "C = 1\n"})
    assert source.layer_violations({"tasks": 3, "scorers": 3}) == [
        "knowgen.tasks.a (layer 3) imports knowgen.scorers.b (layer 3)"
    ]


def test_a_circle_within_a_package_is_detected(tmp_path: Path) -> None:
    files = {
        "core/a.py": "from knowgen.core import b\n",
        "core/b.py": "from knowgen.core.c import x\n",
        "core/c.py": "def x():\n    import knowgen.core.a\n",
        "core/d.py": "import knowgen.core.a\n",
    }
    assert planted(tmp_path, files).circles() == [{"knowgen.core.a", "knowgen.core.b", "knowgen.core.c"}]


def test_a_duplicate_class_name_is_detected(tmp_path: Path) -> None:
    source = planted(tmp_path, {"core/a.py": "class Part: ...\n", "core/b.py": "class Part: ...\n"})
    assert source.duplicate_classes() == {"Part": ["knowgen.core.a", "knowgen.core.b"]}
