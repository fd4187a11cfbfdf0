"""Check whether a judge is fit for use: score perturbed images and measure which perturbations the judge detects.

In records, tables and the page a perturbation (`knowgen.worlds.perturbations`) is called a change.
"""
