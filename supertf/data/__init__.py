"""Text becomes tokens: corpora, tokenizers, token files and their windows, tasks with known answers.

What is fetched once and kept for offline use is fetched here, too.
"""
