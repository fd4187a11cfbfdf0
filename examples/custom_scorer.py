"""Score images with a function of your own, beside a bundled scorer.

A scorer is a function of the prompt and the image that returns a number in [0, 1]. Name the file and the function where
a scorer's name is expected: in Python, or as `--scorer examples/custom_scorer.py:colourfulness`.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

import knowgen


def colourfulness(prompt: str, image: Image.Image) -> float:
    """Return how far the colours of an image are from grey: mean saturation, 0 for a grey image, 1 at most."""
    saturation = np.asarray(image.convert("HSV"), dtype=np.float64)[..., 1]
    return float(saturation.mean()) / 255


def main() -> None:
    """Score four images of a baseline system with two scorers, and print a line for each."""
    own = f"{__file__}:colourfulness"
    run = knowgen.evaluate("knowgen_mini", "closed_book", [own, "pixels"], limit=4, out="reports/colours")
    for scorer in run.spec.scorers:
        summary = run.summarise(scorer=scorer.name)
        figure = summary.headline
        print(f"{scorer.name.rpartition('/')[2]:<32} {figure.value:.3f} over {figure.n} samples")


if __name__ == "__main__":
    main()
