"""Runs a specification: each sample is drawn, stored and scored, with bounded concurrency, retries and a budget."""

from knowgen.engine.components import ComponentRef, GeneratorHandle, ScorerHandle
from knowgen.engine.options import EngineOptions, RunOutcome
from knowgen.engine.run import run

__all__ = ["ComponentRef", "EngineOptions", "GeneratorHandle", "RunOutcome", "ScorerHandle", "run"]
