"""The decoder: its config, attention scalings, positions, generation, and models of every format on disk.

`gpt.GPT` is the model, to be read from top to bottom; `pretrained` and `hf_model` load and save.
"""
