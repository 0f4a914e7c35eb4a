"""A notebook as small as one can be that is run, judged and rendered like the lab's."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from supertf.lab.book.executed import KERNELSPEC

GOOD = """
from supertf.lab.notebook import check, record
{extra}
check("double", double(2), 4, hint="twice as much")
record("{name}", steps=STEPS, ratio=5.123456789)
"""


def a_notebook(name: str, extra: str = "") -> nbformat.NotebookNode:
    """Parameters, one exercise, a widget-free body with `extra` in it, headline figures."""
    cells = [
        new_markdown_cell("# A title\n\nA promise about $n^2$,\non two lines.\n\nMore."),
        new_code_cell("STEPS = 5", metadata={"tags": ["parameters"]}),
        new_code_cell("def double(x): ...", metadata={"tags": ["exercise"]}),
        new_markdown_cell("<details><summary>Hint</summary>\n\nAdd it to itself.\n</details>"),
        new_markdown_cell("<details>\n\n```python\ndef double(x):\n    return 2 * x\n```\n</details>"),
        *[new_code_cell(text.strip()) for text in GOOD.format(name=name, extra=extra).split("\n\n")],
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": KERNELSPEC})
