"""The one shape of errors a user can mend."""

from __future__ import annotations


class UsageError(Exception):
    """Input or circumstances the user can change; shown as one line, exit status 2."""
