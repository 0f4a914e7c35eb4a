"""Weights are learned: settings, the training loop, its run folders, training on tasks."""
