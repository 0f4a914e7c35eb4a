"""`supertf export`: a folder that others read, and mistakes before anything is written."""

import pytest


def test_it_writes_a_folder_that_supertf_reads(here, supertf):
    assert supertf("export --model planted --out out/mine --json").json == {
        "format": "supertf",
        "folder": "out/mine",
    }
    assert (here / "out/mine/README.md").is_file()
    assert supertf("eval --model out/mine --data book.txt --length 16 --max_tokens 50").code == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("export --model planted", "give either --out FOLDER or --push OWNER/NAME"),
        ("export --model planted --out a --push b/c", "give either --out FOLDER or --push OWNER/NAME"),
        ("export --model planted --out planted", "--out planted is not empty: name a new folder"),
        ("export --model nothing.gguf --out new", "nothing.gguf"),
        ("export --out new", "Missing option '--model'"),
    ],
)
def test_mistakes_are_one_line(here, supertf, line, message):
    said = supertf(line)
    assert said.code == 2 and message in said.line and not (here / "new").exists()
