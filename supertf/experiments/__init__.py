"""Comparisons as data: what is varied, on which seeds, by which measure; the runner; recorded results."""
