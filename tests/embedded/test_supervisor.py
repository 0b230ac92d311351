"""The supervisor: order, restarts, giving up, a clean stop, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from connectors.embedded import EmbeddedError
from connectors.embedded.supervisor import Child, LogFile, Patience, Supervisor
from tests.patience import PATIENCE
from tests.patience import eventually as until

QUICK = Patience(first=0.05, longest=0.2, deaths=4, window=PATIENCE)
FOREVER = "import time; print('here', flush=True); time.sleep(600)"


def python(source: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-S", "-c", source]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and whose parent has not looked yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path / "logs", patience=QUICK)
    yield made
    made.stop(5)


def test_restarts_what_is_killed_and_stops_all_of_it(supervisor: Supervisor) -> None:
    supervisor.add(Child("a", python(FOREVER)), Child("b", python(FOREVER)))
    supervisor.wait_ready(PATIENCE)
    before = supervisor.processes()
    os.kill(before["a"], signal.SIGKILL)
    until(lambda: supervisor.processes().get("a") not in (None, before["a"]))
    after = supervisor.processes()
    assert after["b"] == before["b"]
    assert supervisor.restarts() == {"a": 1, "b": 0}
    supervisor.stop(5)
    assert not any(alive(pid) for pid in {*before.values(), *after.values()})
    assert supervisor.processes() == {}


def test_gives_up_on_a_crash_loop_with_its_last_words(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.add(Child("good", python(FOREVER)), Child("bad", python("print('no luck'); raise SystemExit(1)")))
    until(lambda: supervisor.failure)
    assert supervisor.failure.startswith("bad ended 4 times in ")
    assert "with status 1: no luck" in supervisor.failure
    assert str(tmp_path / "logs" / "bad.log") in supervisor.failure
    until(lambda: not supervisor.processes())
    with pytest.raises(EmbeddedError, match="no luck"):
        supervisor.check()


def test_bad_input_of_a_child_is_not_tried_again(supervisor: Supervisor) -> None:
    source = "import sys; sys.stderr.write('mdh: topology.yaml:3: is missing\\n'); sys.exit(2)"
    supervisor.add(Child("worker-0", python(source), ready=lambda: False))
    with pytest.raises(EmbeddedError, match=r"^worker-0: topology\.yaml:3: is missing$"):
        supervisor.wait_ready(PATIENCE)
    assert supervisor.restarts() == {"worker-0": 1}


def test_deaths_behind_a_closed_gate_do_not_count(supervisor: Supervisor, tmp_path: Path) -> None:
    away = tmp_path / "away"
    gate = lambda: "the broker is away" if away.exists() else None  # noqa: E731
    supervisor.add(Child("worker", python(FOREVER), gate=gate))
    supervisor.wait_ready(PATIENCE)
    away.touch()
    os.kill(supervisor.processes()["worker"], signal.SIGKILL)
    until(lambda: not supervisor.processes())

    def why() -> str:
        try:
            supervisor.wait_ready(0.1)
        except EmbeddedError as error:
            return str(error)
        return ""  # its death has not been noticed yet

    until(lambda: "worker: the broker is away" in why())
    time.sleep(0.5)
    assert supervisor.processes() == {}
    away.unlink()
    until(supervisor.processes)
    assert not supervisor.failure


def test_a_child_that_does_not_get_ready_is_killed_and_started_again(supervisor: Supervisor, tmp_path: Path) -> None:
    child = Child("slow", python(FOREVER), ready=lambda: supervisor.restarts()["slow"] > 0, start_seconds=0.3)
    supervisor.add(child)
    supervisor.wait_ready(PATIENCE)
    assert supervisor.restarts() == {"slow": 1}


def test_a_failed_check_ends_everything(tmp_path: Path) -> None:
    full: list[str] = []
    supervisor = Supervisor(tmp_path, checks=[lambda: full[0] if full else None], check_seconds=0.1)
    supervisor.add(Child("a", python(FOREVER)))
    supervisor.wait_ready(PATIENCE)
    pid = supervisor.processes()["a"]
    full.append("the disk is full")
    until(lambda: supervisor.failure == "the disk is full")
    until(lambda: not alive(pid))


def test_later_stages_stop_first_and_the_stubborn_are_killed_within_the_budget(tmp_path: Path) -> None:
    note = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (open(sys.argv[1], 'a').write(sys.argv[2]), sys.exit()))"
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    order = tmp_path / "order"

    def noting(name: str) -> Callable[[], list[str]]:
        return lambda: [sys.executable, "-S", "-c", f"{note}; print('on', flush=True); time.sleep(600)", str(order), name]

    supervisor = Supervisor(tmp_path / "logs")
    supervisor.add(
        Child("first", noting("1")), Child("second", noting("2"), stage=1), Child("deaf", python(deaf), stage=2, stop_seconds=0.3)
    )
    supervisor.wait_ready(PATIENCE)
    until(lambda: all((tmp_path / "logs" / f"{name}.log").exists() for name in ("first", "second", "deaf")))
    began = time.monotonic()
    supervisor.stop(2 * PATIENCE)
    assert time.monotonic() - began < PATIENCE, "the one that hears nothing was given no more than its own time"
    assert order.read_text() == "21"


def test_a_suspended_child_stops_cleanly(supervisor: Supervisor, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    handler = f"lambda *_: (open({str(mark)!r}, 'w').close(), sys.exit())"
    source = f"import signal, sys, time; signal.signal(signal.SIGTERM, {handler}); print(1, flush=True); time.sleep(600)"
    supervisor.add(Child("a", python(source), stop_seconds=PATIENCE))
    supervisor.wait_ready(PATIENCE)
    until(lambda: (tmp_path / "logs" / "a.log").exists())
    supervisor.signal("a", signal.SIGSTOP)
    supervisor.stop(PATIENCE)
    assert mark.exists()


def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from connectors.embedded.supervisor import Child, Supervisor\n"
        f"s = Supervisor(Path(sys.argv[1])); s.add(*(Child(n, lambda: [sys.executable, '-c', {FOREVER!r}]) for n in 'ab'))\n"
        "s.wait_ready(300); sys.stderr.write(' '.join(map(str, s.processes().values())) + chr(10)); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert parent.stderr
    children = [int(pid) for pid in parent.stderr.readline().split()]
    assert len(children) == 2
    parent.kill()
    parent.wait()
    parent.stderr.close()
    until(lambda: not any(alive(pid) for pid in children))


def test_output_goes_to_one_file_per_child_and_errors_are_told_from_chatter(supervisor: Supervisor, tmp_path: Path) -> None:
    line = '{"event":"agent failed","level":"error","exception":"Traceback\\\\nValueError: gap: 7 came after 5"}'
    supervisor.add(Child("w", python(f"print('{line}'); print('bye'); raise SystemExit(3)")))
    until(lambda: supervisor.failure)
    assert "agent failed: ValueError: gap: 7 came after 5" in supervisor.failure
    assert (tmp_path / "logs" / "w.log").read_text().count("bye") == QUICK.deaths


def test_log_files_turn_over(tmp_path: Path) -> None:
    with LogFile(tmp_path / "a.log", limit=100, keep=2) as file:
        for number in range(60):
            file.write(b"line %04d\n" % number)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["a.log", "a.log.1", "a.log.2"]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    kept = b"".join((tmp_path / name).read_bytes() for name in reversed(files))
    assert kept.splitlines() == [b"line %04d" % number for number in range(60 - len(kept) // 10, 60)]


def test_a_log_that_cannot_be_written_costs_only_lines(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where a folder should be")
    with LogFile(tmp_path / "blocked" / "a.log") as file:
        file.write(b"lost\n")
        (tmp_path / "blocked").unlink()
        file.write(b"kept\n")
    assert (tmp_path / "blocked" / "a.log").read_bytes() == b"kept\n"


def test_of_a_traceback_the_error_is_told(supervisor: Supervisor) -> None:
    source = "raise ImportError('no fold\\n(in some file)')"
    supervisor.add(Child("w", python(source)))
    until(lambda: supervisor.failure)
    assert "with status 1: ImportError: no fold" in supervisor.failure
