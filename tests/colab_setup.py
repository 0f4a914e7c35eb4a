"""Run a notebook's setup cell as Colab would: without supertf installed, the wheel uploaded beside it.

cd FOLDER_WITH_THE_WHEEL; python colab_setup.py NOTEBOOK
"""

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


if __name__ == "__main__":
    sys.path = [place for place in sys.path if importlib.util.find_spec("supertf", [place]) is None]
    os.environ["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    sys.modules["google.colab"] = types.ModuleType("google.colab")
    InteractiveShell.instance().run_cell(setup_cell(sys.argv[1])).raise_error()
    print(f"installed from the wheel: {importlib.util.find_spec('supertf').origin}")
