"""The one exception for foreseeable user mistakes, and the one warning."""


class UserError(ValueError):
    """A mistake the user can mend; its message says what was given, what was expected and what to do.

    The command line prints it as a single line and exits with code 2; library callers can catch
    it as a `ValueError`.
    """


class Note(UserWarning):
    """What a user should know of a result that is right nonetheless, such as what was guessed for it.

    The command line prints it as a single line on stderr.
    """
