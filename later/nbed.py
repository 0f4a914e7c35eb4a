import nbformat, os, re
from ex_blocks import B
ROOT=os.environ.get("NBROOT",".")
class NB:
    def __init__(self, name):
        import glob
        [self.path] = glob.glob(f"{ROOT}/notebooks/{name}*.ipynb")
        self.nb = nbformat.read(self.path, 4)
        self.cells = list(self.nb.cells)
        self.after = {}
        self.rest = {}
        self.dropped = set()
    def sub(self, i, *pairs):
        c = self.cells[i]
        for a, b in pairs:
            assert c.source.count(a) == 1, (self.path, i, c.source.count(a), a)
            c.source = c.source.replace(a, b)
        self.touch(c)
    def set(self, i, source):
        self.cells[i].source = source.strip("\n"); self.touch(self.cells[i])
    def touch(self, c):
        if c.cell_type == "code": c.outputs = []; c.execution_count = None
    def add(self, i, source, kind="code", tags=None):
        new = nbformat.v4.new_code_cell(source.strip("\n")) if kind == "code" else nbformat.v4.new_markdown_cell(source.strip("\n"))
        if tags: new.metadata["tags"] = tags
        self.after.setdefault(i, []).append(new)
    def drop(self, *indices): self.dropped |= set(indices)
    def save(self):
        out = list(self.after.get(-1, []))
        for i, c in enumerate(self.cells):
            if i not in self.dropped: out.append(c)
            out += self.after.get(i, []) + self.rest.get(i, [])
        self.nb.cells = out
        nbformat.write(self.nb, self.path)

    def exercise(self, i, *names):
        from supertf.lab.exercises.catalogue import exercise
        for name in names:
            title, statement, stub, given, hint, solution, remark = B[name]
            one = exercise(name)
            stars = "●" * one.difficulty + "○" * (3 - one.difficulty)
            self.add(i, f"### Exercise: {title}\n\n*{one.minutes} minutes, {stars}.* {statement}", "md")
            self.add(i, stub, tags=["exercise"])
            answer = re.search(r"^def (\w+)", stub, re.M)
            answer = answer[1] if answer else stub.split(" =")[0]
            self.add(i, f'check("{name}", {answer}{", " + given if given else ""})')
            details = f"<details><summary>Hint</summary>\n\n{hint}\n</details>\n\n<details><summary>Solution</summary>\n\n```python\n{solution}\n```"
            if remark: details += f"\n\n{remark}"
            self.add(i, details + "\n</details>", "md")
    def cut(self, i, start, end=None):
        """Drop from `start` to `end` (or the end) of a cell's text."""
        c = self.cells[i]; a = c.source.index(start); b = c.source.index(end, a) if end else len(c.source)
        c.source = (c.source[:a] + c.source[b:]).strip("\n")

    def split(self, i, marker):
        """Divide a Markdown cell: what is added after it comes before the marker."""
        c = self.cells[i]; assert c.source.count(marker) == 1, (i, marker, c.source.count(marker))
        a = c.source.index(marker)
        self.rest[i] = [nbformat.v4.new_markdown_cell(c.source[a:].strip("\n"))]
        c.source = c.source[:a].strip("\n")
    def find(self, text):
        found = [i for i, c in enumerate(self.cells) if text in c.source]
        assert len(found) == 1, (text, found)
        return found[0]
