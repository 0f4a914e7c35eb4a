"""`python -m supertf`, which is `python -m supertf.cli`."""

import runpy

runpy.run_module("supertf.cli", run_name="__main__", alter_sys=True)
