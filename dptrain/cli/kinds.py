"""What the values of options can be: the numbers and names of a line, a variable or a file."""

import contextlib
from typing import Any

import click


# click before 8.4 has no ParamType[int], so these kinds leave out what they return
class Number(click.ParamType):  # type: ignore[type-arg]
    """A number; a file's true, or 3.9 for a whole one, is none, where click would round it."""

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind, self.name = kind, "integer" if kind is int else "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number from text, or from a file."""
        try:
            if isinstance(value, bool) or (self.kind is int and isinstance(value, float)):
                raise TypeError
            return self.kind(value)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not a {'whole ' * (self.kind is int)}number", param, ctx)


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers with commas between them, such as 512,512; or the word none."""

    name = "N,N,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers from text, or from a list in a file or a default."""
        parts = value.split(",") if isinstance(value, str) else value
        if parts in (["none"], [""]):
            return ()
        try:
            if isinstance(parts, dict):
                raise TypeError
            return tuple(Number(int).convert(part, None, None) for part in parts)
        except (TypeError, click.BadParameter):
            self.fail(f"{value!r} is not whole numbers with commas between, or none", param, ctx)


class Name(click.types.StringParamType):
    """A name, blanks and all. A variable that is to hold several has them as a TOML file has."""

    def split_envvar_value(self, rv: str) -> list[str]:
        """Return the names in a variable: one, or those of a list, such as ["x.npy", "y.npy"]."""
        found: list[Any] = []
        if rv.startswith("["):
            import tomllib

            with contextlib.suppress(ValueError, RecursionError):
                found = tomllib.loads(f"names = {rv}")["names"]
        return found if found and all(isinstance(name, str) for name in found) else [rv]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a name as files have it, in UTF-8, whatever locale it was typed in."""
        text = super().convert(value, param, ctx)
        with contextlib.suppress(UnicodeEncodeError):
            text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
        return text
