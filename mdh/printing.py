"""Tables on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], none: str) -> None:
    """Prints rows as a table, or what ``none`` says; cells are shown as they are, whatever is in them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from mdh.running import printable

    if not rows:
        print(none)
        return
    shown = Table()
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(escape(printable(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(shown)
