"""The one exception for foreseeable user mistakes."""


class UserError(ValueError):
    """A mistake the user can mend; its message says what was given, what was expected and what to do.

    The command line prints it as a single line and exits with code 2; library callers can catch
    it as a `ValueError`.
    """
