"""Run a notebook's setup cell as Colab would: without supertf installed, the wheel uploaded beside it.

cd FOLDER_WITH_THE_WHEEL; python colab_setup.py NOTEBOOK
"""

import importlib.metadata
import importlib.util
import os
import sys
import types

import nbformat
from IPython.core.interactiveshell import InteractiveShell


def setup_cell(path: str) -> str:
    """The source of the cell that installs the package."""
    cells = nbformat.read(path, as_version=4).cells
    return next(cell.source for cell in cells if "google.colab" in cell.source)


def installed() -> dict[str, str]:
    """Versions by name, but for those of supertf and of what its setup cell adds."""
    found = {one.name.lower(): one.version for one in importlib.metadata.distributions()}
    return {name: version for name, version in found.items() if name not in ("supertf", "gguf")}


if __name__ == "__main__":
    before = installed()
    sys.path = [place for place in sys.path if importlib.util.find_spec("supertf", [place]) is None]
    os.environ["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    sys.modules["google.colab"] = types.ModuleType("google.colab")
    InteractiveShell.instance().run_cell(setup_cell(sys.argv[1])).raise_error()
    assert installed() == before, "what Colab has stays as it is"
    print(f"installed from the wheel: {importlib.util.find_spec('supertf').origin}")
