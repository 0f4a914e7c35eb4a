"""The one exception for foreseeable user mistakes, the one warning, and what of other errors is said."""


class UserError(ValueError):
    """A mistake the user can mend; its message says what was given, what was expected and what to do.

    The command line prints it as a single line and exits with code 2, a notebook shows the line without a
    traceback; library callers can catch it as a `ValueError`.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in the place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class Note(UserWarning):
    """What a user should know of a result that is right nonetheless, such as what was guessed for it.

    The command line prints it as a single line on stderr.
    """


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its kind when it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".: ") if lines else type(error).__name__
