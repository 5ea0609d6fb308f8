"""The exception for what a user can mend."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave is wrong: a name, a file, a value.

    The message is one line that names the argument, the value, the rule and the fix. The command line
    prints it and exits non-zero; in a program it is an ordinary exception.
    """
