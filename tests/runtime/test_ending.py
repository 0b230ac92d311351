"""A process that was told to end does so, whatever hangs in it."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT
from tests.patience import PATIENCE

HANGS = """
import threading
from streams.runtime.ending import end_after
stop = threading.Event()
end_after(stop, 0.1, lambda: 3)
stop.set()
threading.Thread(target=threading.Event().wait).start()  # the interpreter waits for it at its end
"""


def test_a_process_ends_with_its_status_though_a_thread_of_it_never_does() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 3, done.stderr
