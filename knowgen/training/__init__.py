"""Training of the agent: rewards, rollouts, fine-tuning, GRPO, and the published training sets."""
