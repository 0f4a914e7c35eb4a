"""The book of executed notebooks: `python -m supertf.lab.book run`, `smoke` or `save`."""
