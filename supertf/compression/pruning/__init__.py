"""Weights go: single ones, channels and heads, or other inputs for every token; and what makes up for it."""
