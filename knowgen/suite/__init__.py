"""Suites: several systems on several tasks from one file, in one table.

Example:
    >>> result = run_suite("example", "reports/example")
    >>> result.to_pandas()[["system", "value"]]
"""

from knowgen.suite.file import SuiteFile, read_suite
from knowgen.suite.prepare import prepare
from knowgen.suite.result import SuiteResult, SuiteRun
from knowgen.suite.run import carry_out, run_suite

__all__ = ["SuiteFile", "SuiteResult", "SuiteRun", "carry_out", "prepare", "read_suite", "run_suite"]
