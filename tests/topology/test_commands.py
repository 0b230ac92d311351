"""``mdh topology`` and ``mdh schemas``: results on stdout, one clear line and status 2 for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.topology import load_topology

ROOT = Path(__file__).resolve().parent.parent.parent


def mdh(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mdh", *arguments], capture_output=True, text=True, timeout=300, check=False, cwd=cwd)


def test_check_and_show_of_the_committed_file() -> None:
    done = mdh("topology", "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("topology.yaml: ")
    shown = json.loads(mdh("topology", "show", "--json").stdout)
    assert shown["topics"]["vee.inbox"]["partitions"] == shown["partitions"]
    table = mdh("topology", "show").stdout
    assert all(name in table for name in (*shown["topics"], *shown["agents"]))


def test_the_packaged_topology_is_used_where_there_is_none(tmp_path: Path) -> None:
    done = mdh("topology", "check", "--json", cwd=tmp_path)
    topics = len(load_topology(ROOT / "topology.yaml").topics)
    assert json.loads(done.stdout) == {
        "file": str(ROOT / "topology.yaml"),
        "topics": topics,
        "agents": len(load_topology(ROOT / "topology.yaml").agents),
        "valid": True,
    }


def test_errors_come_with_line_on_stderr_and_status_2(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text((ROOT / "topology.yaml").read_text().replace("readers: [vee]", "readers: [vae]"))
    done = mdh("topology", "check", "--topology", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"mdh: {file}:" in done.stderr
    assert "topics.vee.inbox.readers[0]: 'vae' is neither an agent nor one of the parties" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("topology", "check", "--topology", "none.yaml"), "none.yaml: No such file"),
        (("topology", "plan", "--broker", "127.0.0.1"), "--broker: brokers are written host:port"),
        (("topology", "show", "--docs", "--acls"), "exclude each other"),
        (("schemas", "register"), "no schema registry is configured"),
        (("schemas", "register", "--url", "http://127.0.0.1:9"), "no schema registry answers at http://127.0.0.1:9"),
        (("schemas", "register", "--url", "nowhere"), "--url: "),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments: tuple[str, ...], words: str) -> None:
    done = mdh(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mdh: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_schemas_are_checked() -> None:
    done = mdh("schemas", "check", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["findings"] == []
    assert mdh("schemas", "check").stdout.endswith("all readable\n")


def test_rights_as_a_list() -> None:
    rights = json.loads(mdh("topology", "show", "--acls", "--json").stdout)
    assert {"principal": "User:mdh-clock", "operation": "Write", "resource": "topic", "name": "hub.ticks", "prefixed": False} in rights
