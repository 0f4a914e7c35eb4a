"""The one exception for foreseeable user mistakes."""


class UserError(ValueError):
    """A mistake the user can mend; its message says what was given, what was expected and what to do.

    The command line prints it as a single line and exits with code 2, a notebook shows the line without a
    traceback; library callers can catch it as a `ValueError`.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in the place of a traceback."""
        return [f"{type(self).__name__}: {self}"]
