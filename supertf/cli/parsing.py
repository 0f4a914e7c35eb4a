"""How `supertf` reads its words: typer's commands, with lists of values and underscores in options."""

import functools
import inspect
import shlex
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Group(TyperGroup):
    """A command with subcommands; without one, it lists them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            print(ctx.get_help())
            raise typer.Exit(2)
        return super().parse_args(ctx, args)


class Command(TyperCommand):
    """A command whose lists take several values, `--seeds 0 1`, and whose options have underscores.

    `supertf` accepts dashes in their place, see `normal`.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for parameter in self.params:
            parameter.opts = [normal(name) for name in parameter.opts]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        lists = {name for parameter in self.params if parameter.multiple for name in parameter.opts}
        return super().parse_args(ctx, repeat_names(args, lists))


def grouped(function: Callable[..., int]) -> Callable[..., int]:
    """A command whose parameters may be groups of options, dataclasses: typer sees their fields in its place.

    Parameters are to be keyword-only, since those that are groups have no default.
    """
    signature = inspect.signature(function)
    groups: dict[str, Any] = {}
    seen: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if is_dataclass(parameter.annotation):
            groups[name] = parameter.annotation
            seen += inspect.signature(groups[name]).parameters.values()
        else:
            seen.append(parameter)
    seen = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in seen]

    @functools.wraps(function)
    def command(**options: Any) -> int:
        for name, group in groups.items():
            options[name] = group(**{field.name: options.pop(field.name) for field in fields(group)})
        return function(**options)

    command.__signature__ = signature.replace(parameters=seen)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in seen}
    return command


def flat(options: dict[str, Any]) -> dict[str, Any]:
    """Options by name, those of a group in its place."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        found |= vars(value) if is_dataclass(value) else {name: value}
    return found


def normal(name: str) -> str:
    """An option's name with underscores: of `--max-new-tokens`, or of that without its first dashes."""
    bare = name.lstrip("-")
    return name[: len(name) - len(bare)] + bare.replace("-", "_")


def repeat_names(words: list[str], lists: set[str]) -> list[str]:
    """`--seeds 0 1` as click reads a list, `--seeds 0 --seeds 1`; lists: the names of such options."""
    found: list[str] = []
    option = None  # the list whose values these are
    for word in words:
        if word.startswith("-") and not word[1:2].isdigit():  # -1 is a value
            option = word if word in lists else None
        elif option is not None and found[-1] != option:
            found.append(option)
        found.append(word)
    return found


def command_line(*words: str, **options: Any) -> str:
    """A `supertf` command with every option spelled out, without those that are None or off."""
    given = (
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in options.items()
        if value is not None and value is not False
    )
    return shlex.join(["supertf", *words, *given])
