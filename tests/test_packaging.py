"""What an installation gets: floors, pins, a wheel that imports, a fast start."""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
COLAB = {  # what Colab had in August 2026, on Python 3.13; the floors must let all of it stay
    "torch": "2.11.0",
    "numpy": "2.1.3",
    "ipywidgets": "7.7.1",
    "ipykernel": "6.17.1",
    "plotly": "5.24.1",
    "matplotlib": "3.10.0",
    "datasets": "4.0.0",
    "tiktoken": "0.14.0",
    "safetensors": "0.8.0",
    "huggingface-hub": "1.27.0",
    "tqdm": "4.67.3",
    "transformers": "5.15.0",
    "accelerate": "1.14.0",
    "nbclient": "0.10.4",
    "ipython": "7.34.0",
}
HEAVY = {"torch", "transformers", "datasets", "numba", "scipy", "matplotlib", "tiktoken", "IPython"}
PYTHONS = ("3.10.0", "3.11.7", "3.12.1", "3.13.0")


def declared(extra: str = "dev") -> dict[str, Requirement]:
    """Dependencies and those of an extra in pyproject.toml (tomllib came with Python 3.11)."""
    text = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(rf"^(?:dependencies|{extra}) = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    found = re.findall(r'^    "([^"]+)"', "".join(lists), re.MULTILINE)
    return {requirement.name: requirement for requirement in map(Requirement, found)}


def pinned() -> list[Requirement]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def python(*arguments: str, **options) -> str:
    return subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True, **options
    ).stdout


def imported(folder: str) -> set[str]:
    """Names of the packages on PyPI that the modules of a folder import, anywhere in them."""
    own = {path.stem for path in (ROOT / folder).rglob("*.py")} | {"supertf"}
    modules = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module.split(".")[0])
    packages = importlib.metadata.packages_distributions()
    modules -= {*sys.stdlib_module_names, *own}
    return {packages.get(module, [module])[0].lower().replace("_", "-") for module in modules}


@pytest.mark.parametrize("folder", ["supertf", "tests"])
def test_every_imported_package_is_declared(folder):
    """Not left to come with another package, which may drop it."""
    found = imported(folder)
    assert {"torch", "numpy"} <= found
    assert found <= {*declared(), *declared("harness")}


def test_colab_keeps_its_versions():
    requirements = declared()
    assert {"torch", "nbclient"} <= set(requirements)
    for name, version in COLAB.items():
        if name in requirements:
            assert requirements[name].specifier.contains(version), f"{requirements[name]} replaces {version}"
    assert not requirements["nbclient"].specifier.contains("0.10.3")  # crashes on `interact`


@pytest.mark.parametrize("version", PYTHONS)
def test_every_dependency_has_one_exact_pin_that_its_floor_allows(version):
    environment = {
        "python_version": version.rsplit(".", 1)[0],
        "python_full_version": version,
        "sys_platform": "linux",
    }
    pins = {}
    for requirement in pinned():
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.name not in pins, f"two pins for {requirement.name}"
            (pin,) = requirement.specifier
            assert pin.operator == "==" and "*" not in pin.version
            pins[requirement.name] = pin.version
    for name, requirement in declared().items():
        assert name in pins and requirement.specifier.contains(pins[name])
    assert pins["torch"] == "2.13.0"


def test_pins_leave_the_source_and_the_cuda_libraries_to_pip_and_torch():
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert not re.match(r"-|nvidia|cuda|triton|.*(://|@ )", line), line


@pytest.mark.slow
def test_a_wheel_builds_offline_holds_every_module_and_recorded_result_and_imports(tmp_path):
    source = tmp_path / "source"  # a copy: setuptools writes beside what it builds
    shutil.copytree(ROOT / "supertf", source / "supertf", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    offline = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    python("-m", "pip", "wheel", *offline, "--no-build-isolation", "-w", str(tmp_path), str(source))
    (wheel,) = tmp_path.glob("supertf-*-py3-none-any.whl")
    patterns = ("*.py", "*.pyi", "py.typed", "*.json", "*.jsonl.gz", "*.css", "*.j2")
    files = [path for pattern in patterns for path in (ROOT / "supertf").rglob(pattern)]
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == {path.relative_to(ROOT).as_posix() for path in files}
    site = tmp_path / "site"
    python("-m", "pip", "install", *offline, "--target", str(site), str(wheel))
    code = "import supertf, supertf.cli.main; print(supertf.__file__); print(supertf.GPT.__module__)"
    where, module = python("-c", code, cwd=tmp_path, env={"PYTHONPATH": str(site)}).split()
    assert Path(where) == site / "supertf" / "__init__.py" and module == "supertf.model.gpt"
    assert (site / "bin" / "supertf").exists() or sys.platform == "win32"


def test_starting_and_help_import_nothing_that_takes_seconds():
    code = f"""
import sys
import supertf
from supertf.cli.main import command, main

within = {{name: getattr(found, "commands", []) for name, found in command.commands.items()}}
lines = [[name, "--help"] for name in within]
lines += [[name, inner, "--help"] for name, some in within.items() for inner in some]
for line in ([], ["--help"], ["--version"], ["unknown"], *lines):
    main(line)
    assert not {HEAVY} & set(sys.modules), line
"""
    python("-c", code)
