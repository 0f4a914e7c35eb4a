"""A notebook as small as one can be that is run, judged and rendered like the lab's."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from supertf.lab.book.executed import KERNELSPEC

SOLUTION = """<details>

```python
def visible(T, past):
    return [past + i + 1 for i in range(T)]
```
</details>"""
GOOD = """
from supertf.lab import check, record
{extra}
check("visible keys", visible)
record("{name}", steps=STEPS, ratio=5.123456789)
"""


def a_notebook(name: str, extra: str = "") -> nbformat.NotebookNode:
    """Parameters, one exercise, a widget-free body with `extra` in it, headline figures."""
    cells = [
        new_markdown_cell("# A title\n\nA promise about $n^2$,\non two lines.\n\nMore."),
        new_code_cell("STEPS = 5", metadata={"tags": ["parameters"]}),
        new_code_cell("def visible(T, past): ...", metadata={"tags": ["exercise"]}),
        new_markdown_cell("<details><summary>Hint</summary>\n\nItself, too.\n</details>"),
        new_markdown_cell(SOLUTION),
        *[new_code_cell(text.strip()) for text in GOOD.format(name=name, extra=extra).split("\n\n")],
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": KERNELSPEC})
