"""``python -m mdh`` is the ``mdh`` command."""

from __future__ import annotations

from mdh.cli import main

if __name__ == "__main__":
    main()
