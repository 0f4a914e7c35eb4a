"""Trainings with a name, each a file: what is trained, on what, for how long; and smaller ones like them."""
