"""Agents that search before an image is generated, and the bundled one, Gen-Searcher.

Read `records` (what a trajectory consists of), `loop` (the agent), `policies/contract` (what decides) and
`tools/contract` (what it can do). The same code serves generation, evaluation and training.
"""
