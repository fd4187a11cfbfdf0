"""Runs a specification: each sample is drawn, stored and scored, with bounded concurrency, retries and a budget."""

from knowgen.engine.handles import GeneratorHandle, Remake, ScorerHandle
from knowgen.engine.options import Options, Outcome
from knowgen.engine.run import run

__all__ = ["GeneratorHandle", "Options", "Outcome", "Remake", "ScorerHandle", "run"]
