"""Weights and activations in few bits, read back: what rounding costs."""
