"""The README stays true: its file tree, its notebook table, its picture and its commands."""

import base64
import re
import shlex
from pathlib import Path

import nbformat

from supertf.cli.main import command
from supertf.lab.badges import badge_url, repository

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_file_tree_has_one_line_for_every_room():
    listed = re.findall(r"^  (\w+)/ +\S", README, re.MULTILINE)
    assert sorted(listed) == sorted(path.parent.name for path in (ROOT / "supertf").glob("*/__init__.py"))


def test_the_table_lists_every_notebook_with_its_badge():
    names = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    assert re.findall(r"^\| \[(\w+)\]\(notebooks/\1\.ipynb\)", README, re.MULTILINE) == names
    for name in names:
        assert badge_url(repository(ROOT), f"{name}.ipynb") in README


def test_the_picture_is_an_output_of_notebook_00():
    picture = (ROOT / "notebooks/images/one_weight.png").read_bytes()
    notebook = nbformat.read(ROOT / "notebooks/00_start_here.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [base64.b64decode(o.data["image/png"]) for o in outputs if "image/png" in o.get("data", {})]
    assert picture in pictures


def test_every_supertf_command_shown_parses():
    text = README.replace("\\\n", " ")
    commands = re.findall(r"^supertf (\w+)(.*?)(?:#.*)?$", text, re.MULTILINE)
    assert {name for name, _ in commands} == set(command.commands)
    root = command.make_context("supertf", [], resilient_parsing=True)  # commands keep what it says of -h
    for name, options in commands:
        found, words = command.commands[name], shlex.split(options)
        while hasattr(found, "commands"):
            found = found.commands[words.pop(0)]
        found.make_context(name, words, parent=root)
