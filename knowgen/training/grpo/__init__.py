"""GRPO on the agent's trajectories: rows for the trainer, the trainer, and policies over the trained weights."""
