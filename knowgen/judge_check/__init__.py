"""Check whether a judge is fit for use: score images with known changes and measure what the judge detects."""
