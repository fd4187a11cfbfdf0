"""Experiment trackers: Weights & Biases, MLflow and TensorBoard behind one contract."""
