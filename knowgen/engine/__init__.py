"""Run a specification: generate, store and score every sample, with bounded concurrency, retries and a budget.

`run` is the entry point. From there, read `pipeline` (the way of a sample), `work_plan` (what is still to do),
`answering`, `generation` and `scoring` (the steps), `dispatcher` (queue, batches, timeouts) and `executors` (where
plugins run).
"""

from knowgen.engine.components import AgentHandle, ComponentRef, GeneratorHandle, ScorerHandle
from knowgen.engine.options import EngineOptions, RunOutcome
from knowgen.engine.run import run

__all__ = ["AgentHandle", "ComponentRef", "EngineOptions", "GeneratorHandle", "RunOutcome", "ScorerHandle", "run"]
