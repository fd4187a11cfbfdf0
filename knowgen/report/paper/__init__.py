"""Figures and tables of runs for a paper: SVG, PNG, PDF, LaTeX and Markdown."""
