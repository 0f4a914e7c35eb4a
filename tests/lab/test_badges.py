"""The repository's address: set everywhere it shows, and nowhere else."""

import nbformat
import pytest
from a_notebook import a_notebook

from supertf.errors import UserError
from supertf.lab.badges import repository, set_repository

PYPROJECT = '[project.urls]\nRepository = "https://github.com/old/lab"\n'


def test_badges_and_the_labs_citation_follow_the_address_and_citations_of_others_stay(tmp_path):
    citation = "Based on https://github.com/old/lab."
    badge = "[![x](y)](https://colab.research.google.com/github/old/lab/blob/main/notebooks/00_good.ipynb)"
    other = "git+https://github.com/old/lab-other"
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "README.md").write_text(f"{badge} {citation} {other} \\url{{https://github.com/old/lab}}")
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks/00_good.ipynb"
    notebook = a_notebook("00_good")
    notebook.cells[0].source = f"{badge}\n%pip install git+https://github.com/old/lab"
    nbformat.write(notebook, path)
    changed = set_repository("new/name", tmp_path)
    assert {p.name for p in changed} == {"pyproject.toml", "README.md", "00_good.ipynb"}
    assert repository(tmp_path) == "new/name"
    readme = (tmp_path / "README.md").read_text()
    assert "github/new/name/blob" in readme and citation in readme and other in readme
    assert r"\url{https://github.com/new/name}" in readme
    assert "old/lab" not in path.read_text()
    assert set_repository("new/name", tmp_path) == []


@pytest.mark.parametrize("repo", ["", "name", "a/b/c", "https://github.com/a/b", "a b/c"])
def test_a_wrong_address_changes_nothing(tmp_path, repo):
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    with pytest.raises(UserError, match="owner/name"):
        set_repository(repo, tmp_path)
    assert (tmp_path / "pyproject.toml").read_text() == PYPROJECT
