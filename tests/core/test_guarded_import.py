"""Importing code that ends the process or takes long."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from knowgen.core import guarded_import, registry
from knowgen.core.errors import ConfigError


def test_an_import_that_ends_the_process_is_one_line_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("import os\n\nos._exit(3)\n")
    with pytest.raises(ConfigError, match=r"os\._exit\(3\) \(leaves\.py:3\)"):
        registry.load(registry.resolve("generators", f"{tmp_path / 'leaves.py'}:Gen"))


def test_the_function_is_itself_again_after_the_import() -> None:
    before = os._exit
    with guarded_import.guarded_import("generator 'x'"):
        assert os._exit is not before
    assert os._exit is before


def test_a_process_that_the_import_forks_ends_as_it_means_to() -> None:
    with guarded_import.guarded_import("generator 'x'"):
        child = os.fork()
        if child == 0:
            os._exit(11)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 11


def test_an_import_that_takes_long_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reported = threading.Event()
    monkeypatch.setattr(guarded_import, "NOTICE_SECONDS", 0.01)
    monkeypatch.setattr(guarded_import, "reported", reported, raising=False)

    class Waker(logging.Handler):
        """Keeps the warning, and lets the import go on."""

        text = ""

        def emit(self, record: logging.LogRecord) -> None:
            """Keep the warning and wake the import."""
            self.text = record.getMessage()
            reported.set()

    waker = Waker()
    logging.getLogger("knowgen.plugins").addHandler(waker)
    (tmp_path / "slow.py").write_text(
        "from knowgen.core import guarded_import\n\nguarded_import.reported.wait(60)\n\nclass Gen:\n    pass\n"
    )
    try:
        loaded = registry.load(registry.resolve("generators", f"{tmp_path / 'slow.py'}:Gen"))
    finally:
        logging.getLogger("knowgen.plugins").removeHandler(waker)
    assert loaded.__name__ == "Gen"
    assert "slow.py:Gen' has not been imported after" in waker.text
    assert "slow.py:3" in waker.text


def test_a_module_that_kept_the_exit_of_its_import_ends_the_process_later(tmp_path: Path) -> None:
    (tmp_path / "keeps.py").write_text("import os\n\ndef leave(exit=os._exit):\n    exit(70)\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from knowgen.core.guarded_import import guarded_import\n"
        "with guarded_import('keeps'):\n    import keeps\n"
        "keeps.leave()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (70, "")
