"""The backend `verl`: GRPO on many GPUs and machines by verl, which samples and trains on a Ray cluster.

The agent, the renderer of its conversations and the rewards are those of every other backend. They run in verl's
agent-loop workers, close to the engines that sample.
"""

from knowgen.training.backends.verl.backend import VerlBackend

__all__ = ["VerlBackend"]
