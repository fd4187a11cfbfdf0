"""Models on this machine: weights, memory and devices."""
