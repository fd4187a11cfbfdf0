"""Fine-tuning of the policy on conversations."""
