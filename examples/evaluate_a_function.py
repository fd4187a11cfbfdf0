"""Evaluate a plain function as a generator, and read its scores in Python.

The function ignores most of the prompt, so `world_check`, which looks for the true subjects and texts, gives it almost
nothing. Put a call of your model in its place.
"""

from __future__ import annotations

import random

from PIL import Image

import knowgen


def gradient(prompt: str, seed: int) -> Image.Image:
    """Return a grey gradient at an angle that depends on prompt and seed."""
    degrees = random.Random(f"{seed} {prompt}").uniform(0, 360)
    return Image.linear_gradient("L").rotate(degrees).convert("RGB")


def main() -> None:
    """Generate and score four samples, then print the result and one line per sample."""
    run = knowgen.evaluate("knowgen_mini", gradient, limit=4, out="reports/gradient")
    headline = run.summary.headline
    print(f"K-Score {headline.value} over {headline.n} samples {headline.note}")
    table = run.to_pandas()
    print(
        table[["sample_id", "faithfulness", "visual_correctness", "text_accuracy", "aesthetics"]].to_string(index=False)
    )
    print("report:", run.path / "report" / "index.html")


if __name__ == "__main__":  # worker processes import this file
    main()
