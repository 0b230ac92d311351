"""``python -m connectors.embedded``: gets the embedded broker ready, or renews its lock file (``lock VERSION``)."""

from __future__ import annotations

import sys

from connectors.embedded import EmbeddedError
from connectors.embedded.jars import LOCK_FILE, resolve
from connectors.embedded.kafka import prepare


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main(arguments: list[str]) -> int:
    """Without arguments: fetch, verify and warm up. ``lock VERSION``: resolve anew and write the lock file."""
    try:
        if arguments[:1] == ["lock"] and len(arguments) == 2:
            resolve(arguments[1]).dump()
            _say(f"wrote {LOCK_FILE}")
        elif not arguments:
            prepare(_say)
        else:
            _say("usage: python -m connectors.embedded [lock VERSION]")
            return 2
    except EmbeddedError as error:
        _say(f"mdh: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
