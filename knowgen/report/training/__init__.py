"""The page of trainings: curves, evaluations, masked episodes, and the trajectories of two steps side by side."""
