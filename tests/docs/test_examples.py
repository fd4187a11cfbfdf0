"""The examples run and print the expected lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.processes import python_environment, run_python

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"

PRINTED = {
    "evaluate_a_function.py": ["K-Score 0.0", "over 4 samples", "reports/gradient/report/index.html"],
    "compare_two_generators.py": ["over 12 paired samples", "difference  +0.", "no interval: n too small", "p = 0."],
    "custom_scorer.py": ["custom_scorer.py:colourfulness", "pixels", "over 4 samples"],
    "search_backend.py": ["generator searched with search_backend.py:MemorySearch@1"],
    "score_a_folder.py": ["sample_id", "visual_correctness"],
}
"""Some of the lines that each example prints."""

TESTED_ELSEWHERE = {"train_demo.py"}
"""Examples that take minutes: `tests/training/test_train_demo.py`."""


def output_of(folder: Path, *words: str) -> str:
    """Run Python in a folder with this checkout's package and return its output."""
    done = run_python(*words, cwd=folder, timeout=600, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == PRINTED.keys() | TESTED_ELSEWHERE


SLOW = {"compare_two_generators.py"}
"""Examples that render a world and score it twice."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in sorted(PRINTED)]
)
def test_an_example_runs_and_prints_its_result(name: str, tmp_path: Path) -> None:
    printed = output_of(tmp_path, str(EXAMPLES / name))
    assert [words for words in PRINTED[name] if words not in printed] == []
    assert list((tmp_path / "reports").glob("*/report/index.html"))


def test_the_list_of_examples_is_complete() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in EXAMPLES.iterdir() if path.suffix in {".py", ".ipynb"}}
    assert {name for name in names if f"]({name})" not in listed} == set()


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", python_environment()["PYTHONPATH"])
    text = (EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    stored = [cell for cell in notebook.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]
    assert not stored, "clear the outputs of the notebook before you commit it"
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    last = next(cell for cell in reversed(notebook.cells) if cell.cell_type == "code")
    assert "report/index.html" in last.outputs[0]["data"]["text/plain"]
    assert (tmp_path / "reports" / "notebook_open_book" / "run.json").is_file()
