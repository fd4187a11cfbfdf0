"""Rewards of episodes and the published training sets."""
