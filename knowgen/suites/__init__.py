"""Suites: run several systems on several tasks from one file, and compare them in one table.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> text = "systems: [noise, oracle]\\ntasks: [{task: knowgen_mini, limit: 2}]\\nscorers: [pixels]"
    >>> _ = (folder / "suite.yaml").write_text(text)
    >>> result = run_suite(folder / "suite.yaml", folder / "out")
    >>> [(run.system, run.status) for run in result.runs]
    [('noise', 'done'), ('oracle', 'done')]
"""

from knowgen.suites.plan import plan_suite
from knowgen.suites.result import SuiteResult, SuiteRun
from knowgen.suites.run import execute_suite, run_suite
from knowgen.suites.schema import SuiteFile, read_suite

__all__ = ["SuiteFile", "SuiteResult", "SuiteRun", "execute_suite", "plan_suite", "read_suite", "run_suite"]
