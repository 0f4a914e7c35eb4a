"""Which code a result was made by: a digest of every module that a measure runs, as the sources tell.

A module counts when the measure's module imports it, also through others and inside functions. What does not
count: comments, docstrings and layout, so that edits of prose leave results valid; Python's version, which
may write the same syntax tree in other words; and the `EXPERIMENT` beside a measure, since what is compared
is in the hash of a cell as far as it determines its result.
"""

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from supertf.errors import UserError

DESCRIPTIONS = "supertf.experiments.sweep.description"  # which measures import for their `EXPERIMENT` alone
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
Code = dict[str, str]  # digest by module name
_read: dict[str, tuple[ModuleSpec, str, frozenset[str]]] = {}  # of modules as they were loaded, see `read`


def code_of(module: str) -> Code:
    """Digests of a module and all that it imports of supertf and of its own package, by name.

    They are of the code that this process runs: a module that is loaded is read once, even if its file is
    edited afterwards.

    Raises:
        UserError: the module has no source file.
    """
    packages = {"supertf", module.partition(".")[0]}
    code: Code = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in code and name != DESCRIPTIONS and (path := source_file(name)) is not None:
            code[name], imported = read(name, path)
            waiting += [one for one in imported if one.partition(".")[0] in packages]
    if module not in code:
        raise UserError(f"{module} has no source file: put the measure into a module")
    return dict(sorted(code.items()))


def differing(before: Code, now: Code) -> list[str]:
    """The names of the modules that differ, are new or are gone."""
    return sorted(name for name in before | now if before.get(name) != now.get(name))


def named(modules: list[str]) -> str:
    """A few of them, for a message."""
    return ", ".join(modules[:3]) + (f" and {len(modules) - 3} more" if len(modules) > 3 else "")


def source_file(name: str) -> Path | None:
    """Where a module's source is; None for what is no module, such as a function that is imported by name."""
    package, *parts = name.split(".")
    spec = importlib.util.find_spec(package)  # of a package as a whole: this imports nothing
    for folder in (spec and spec.submodule_search_locations) or ():
        place = Path(folder, *parts)
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if path.is_file():
                return path
    return None


def read(name: str, path: Path) -> tuple[str, frozenset[str]]:
    """A module's digest, and the names that it may import: modules, and what is in them."""
    spec = getattr(sys.modules.get(name), "__spec__", None)  # a new one whenever the module is loaded again
    if spec is not None and name in _read and _read[name][0] is spec:
        return _read[name][1:]
    tree = ast.parse(path.read_bytes())
    tree.body = [statement for statement in tree.body if not is_description(statement)]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = hashlib.sha256(repr(plain(tree)).encode()).hexdigest()[:16], frozenset(imports(tree, package))
    if spec is not None:
        _read[name] = spec, *found
    return found


def is_description(statement: ast.stmt) -> bool:
    """Whether a statement is `EXPERIMENT = ...`."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id == "EXPERIMENT" for target in targets)


def plain(node: Any) -> Any:
    """A syntax tree as nested lists without positions, docstrings and empty fields."""
    if isinstance(node, list):
        return [plain(one) for one in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    kept = [[name, plain(value)] for name, value in fields.items() if value is not None and value != []]
    return [type(node).__name__, *kept]


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """The names of all that is imported anywhere, and of the packages it is in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from with_parents(base)
            for alias in node.names:
                yield from where(base, alias.name)


def where(package: str, name: str) -> Iterator[str]:
    """What an import of a name from a package runs: a module, or what the package's face takes it from."""
    yield f"{package}.{name}"
    module = face(package).get(name)
    if module is not None:
        yield module
        yield from where(module, name)


@functools.cache
def face(package: str) -> dict[str, str]:
    """The modules that a package's names come from when they are used first, as the stub beside it says."""
    source = source_file(package)
    if source is None or source.name != "__init__.py":
        return {}
    stub = source.with_suffix(".pyi")
    if not stub.is_file():
        return {}
    nodes = [node for node in ast.parse(stub.read_bytes()).body if isinstance(node, ast.ImportFrom)]
    return {alias.name: f"{package}.{node.module}" for node in nodes if node.module for alias in node.names}


def with_parents(name: str) -> Iterator[str]:
    """ "a.b.c", "a.b" and "a", whose code runs before it."""
    while name:
        yield name
        name = name.rpartition(".")[0]
