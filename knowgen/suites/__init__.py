"""Suites: several systems on several tasks from one file, in one table.

Example:
    >>> result = run_suite("example", "reports/example")
    >>> result.to_pandas()[["system", "value"]]
"""

from knowgen.suites.plan import prepare
from knowgen.suites.result import SuiteResult, SuiteRun
from knowgen.suites.run import carry_out, run_suite
from knowgen.suites.schema import SuiteFile, read_suite

__all__ = ["SuiteFile", "SuiteResult", "SuiteRun", "carry_out", "prepare", "read_suite", "run_suite"]
