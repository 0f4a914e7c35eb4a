"""The one exception for foreseeable user mistakes, and the one warning."""


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
