"""topology.yaml: what is accepted, and that every error names file, line and place."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.topology import Topology, TopologyError, default_path, load_topology, parse_topology
from schemas.topology.base import FOREVER, duration_text, parse_duration

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "topology.yaml").read_text()


def errors(text: str) -> list[str]:
    with pytest.raises(TopologyError) as caught:
        parse_topology(text)
    return str(caught.value).splitlines()


def line_of(text: str, part: str) -> int:
    assert text.count(part) == 1, part
    return text[: text.index(part)].count("\n") + 1


def swapped(old: str, new: str, text: str = TEXT) -> str:
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
    return text.replace(old, new)


def test_the_committed_topology_holds_every_flow_of_the_design() -> None:
    topology = load_topology(ROOT / "topology.yaml")
    assert {"ingest", "master", "vee", "determinants", "insights", "prepaid", "enterprise"} <= set(topology.agents)
    assert {"ingest", "master", "vee", "determinants", "insights"} <= set(topology.agents)
    flows = """hes.reads hes.events master.data vee.inbox reads.final vee.exceptions billing.determinants usage.events prepaid.ledger
        prepaid.notices master.inbox master.changes device.commands device.replies todo.events audit.events
        hub.ticks vee.recalled determinants.daily hub.receipts
        ingest.state vee.state determinants.state insights.state hes.reads.dlq"""
    assert set(flows.split()) <= set(topology.topics)
    assert len({topology.topics[t].partitions for a in topology.agents.values() for t in (*a.reads, a.state)}) == 1


def test_the_committed_rules_and_maps_are_the_defaults_written_out() -> None:
    from schemas.topology.tou import DeterminantsSettings
    from schemas.topology.vee import VeeSettings

    topology = load_topology(ROOT / "topology.yaml")
    assert topology.vee == VeeSettings.default().model_copy(update={"zone": "UTC"})
    assert topology.determinants == DeterminantsSettings.default()


def test_sections_take_the_zone_of_the_whole_unless_they_name_one() -> None:
    assert parse_topology(swapped("zone: UTC ", "zone: Australia/Sydney ")).vee.zone == "Australia/Sydney"
    text = swapped("zone: UTC ", "zone: Australia/Sydney ", swapped("  admit: auto ", "  zone: Europe/Vienna\n  admit: auto "))
    assert parse_topology(text).vee.zone == "Europe/Vienna"


@pytest.mark.parametrize(
    ("old", "new", "place", "what"),
    [
        ("tolerance_percent: 2000", "tolerance: 2000", "vee.groups.initial-load.rules[6].tolerance", "is no known setting"),
        ("tolerance_percent: 2000", "tolerance_percent: 0", "vee.groups.initial-load.rules[6].tolerance_percent", "greater than 0"),
        ("id: zero-consumption", "id: zero-consumtion", "vee.groups.initial-load.rules[15]", "zero-consumption"),
        ("{id: zero-consumption, severity", "{severity", "vee.groups.initial-load.rules[15]", "id"),
        ("lateness: 24h", "lateness: a day", "vee.lateness", "must be a duration"),
        ('from: "15:00"', 'from: "15:07"', "determinants.maps[0]", "15:07 is no multiple of the slot"),
        ('from: "15:00"', 'from: "25:00"', "determinants.maps[0].versions[0].schedule[0].from", "must be a time of day"),
        ("- {map: three-part,", "- {map: four-part,", "determinants", "there is no map 'four-part'"),
    ],
)
def test_errors_deep_in_a_section_name_line_and_place(old: str, new: str, place: str, what: str) -> None:
    text = swapped(old, new)
    (found,) = errors(text)
    location, where, message = found.split(": ", 2)
    assert where == place
    assert what in message
    if where not in ("determinants", "determinants.maps[0]"):
        assert location == f"topology.yaml:{line_of(text, new)}"


def test_topics_take_partitions_and_copies_of_the_whole_unless_they_say_otherwise() -> None:
    text = swapped("  audit.events:\n", "  audit.events:\n    partitions: 1\n    replication: 2\n")
    topics = parse_topology(swapped("partitions: 4 ", "partitions: 6 ", text)).topics
    assert (topics["audit.events"].partitions, topics["audit.events"].replication) == (1, 2)
    assert (topics["vee.state"].partitions, topics["vee.state"].replication) == (6, 3)


@pytest.mark.parametrize(
    ("old", "new", "place", "what"),
    [
        ("zone: UTC ", "zone: Europe/Atlantis ", "zone", "must be an IANA time zone"),
        ("name: mdh ", "name: My Hub ", "name", "String should match"),
        ("partitions: 4 ", "partitions: 0 ", "partitions", "must be greater than 0"),
        ("partitions: 4 ", "partitions: many ", "partitions", "must be a valid integer"),
        ("clock:\n", "clokc:\n", "clokc", "is no known setting"),
        ("  tick_seconds: 2", "  tick_seconds: 0", "clock.tick_seconds", "must be greater than or equal to 1"),
        ("    archive_members: 1000", "    archive_member: 1000", "ingest.limits.archive_member", "is no known setting"),
        ("    inbox: vee.inbox\n", "", "agents.vee.inbox", "is missing"),
        ("    about: Postings to prepaid accounts\n", "", "topics.prepaid.ledger.about", "is missing"),
    ],
)
def test_errors_of_one_section_name_line_and_place(old: str, new: str, place: str, what: str) -> None:
    text = swapped(old, new)
    line = line_of(text, new) if new else line_of(text, "  vee:\n" if "vee" in place else "  prepaid.ledger:\n")
    (found,) = errors(text)
    assert found.startswith(f"topology.yaml:{line}: {place}: ")
    assert what in found


@pytest.mark.parametrize(
    ("topic", "old", "new", "place", "what"),
    [
        ("vee.inbox", "retention: 30d", "retention: 30 days", "retention", "must be a duration such as 90d"),
        ("vee.inbox", "retention: 30d", "retention: 5s", "retention", "must be at least 1m"),
        (
            "vee.inbox",
            "writers: [ingest, master, enterprise]",
            "writers: [gateway]",
            "writers",
            "only agents may write to the inbox of vee",
        ),
        ("vee.inbox", "readers: [vee]", "readers: [vee, sinc]", "readers[1]", "'sinc' is neither an agent nor one of the parties"),
        ("vee.inbox", "readers: [vee]", "readers: [sink]", None, "agents.vee.inbox: topic vee.inbox does not name vee as a reader"),
        ("vee.inbox", "records: [ReadBlock,", "records: [RaedBlock,", "records[0]", "'RaedBlock' is no committed schema"),
        ("vee.inbox", "key: device", "partitions: 8\n    key: device", "partitions", "must be 4 as those of hes.reads, not 8"),
        (
            "reads.final",
            "writers: [vee, ingest, master]",
            "writers: [vee, determinants]",
            "writers",
            "agent determinants does not write reads.final",
        ),
        ("reads.final", "readers: [determinants,", "readers: [ingest, determinants,", "readers", "agent ingest does not read"),
        ("vee.state", "cleanup: compact", "cleanup: delete", "cleanup", "holds the state of vee and must be compact"),
        ("vee.state", "cleanup: compact", "cleanup: shrink", "cleanup", "must be 'delete' or 'compact'"),
        ("vee.state", "cleanup: compact", "cleanup: compact\n    retention: 3d", "retention", "leave retention out"),
        ("vee.state", "cleanup: compact", "cleanup: compact\n    partitions: 3", "partitions", "must be 4 as those of vee.inbox, not 3"),
        ("hub.ticks", "key: none", "partitions: 2\n    key: none", "partitions", "must be 4 as those of hes.reads"),
        ("hub.ticks", "writers: [clock]", "writers: [clock, determinants]", "writers", "determinants is an agent"),
        ("hes.reads", "config: {max.message.bytes: 34603008}", "config: {max.message.bytes: 1000000}", "config", "to carry a payload"),
        ("hes.reads", "config: {max.message.bytes: 34603008}", "config: {max.mesage.bytes: 346}", "config", "is no Kafka topic setting"),
        ("hes.reads", "config: {max.message.bytes: 34603008}", "config: {retention.ms: 5}", "config", "is set by"),
    ],
)
def test_errors_across_sections_name_line_and_place(topic: str, old: str, new: str, place: str | None, what: str) -> None:
    head = f"\n  {topic}:\n"
    start = TEXT.index(head) + len(head)
    end = TEXT.index(old, start)
    text = TEXT[:end] + new + TEXT[end + len(old) :]
    found = errors(text)
    assert any(what in line for line in found), found
    if place:
        first = next(line for line in found if what in line)
        assert f": topics.{topic}.{place}" in first
        number = int(first.split(":")[1])
        assert place.rstrip("]0123456789").rstrip("[") in text.splitlines()[number - 1]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("    state: vee.state\n", "    state: ingest.state\n", "is the state of ingest too"),
        ("    state: vee.state\n", "    state: vee.sate\n", "agents.vee.state: there is no topic 'vee.sate'"),
        ("    dead: vee.inbox.dlq\n", "    dead: vee.dlq\n", "agents.vee.dead: there is no topic 'vee.dlq'"),
        ("    inbox: vee.inbox\n", "    inbox: hes.reads\n", "ingest and vee read the same inbox, which the outside writes"),
        ("  sink: Writes", "  vee: Writes", "is also the name of an agent"),
        ("\n  todo.events:", "\n  todo_events:", "must be lower-case words"),
        ("\n  todo.events:", "\n  Todo.events:", "must be lower-case words"),
    ],
)
def test_agents_and_names_must_fit(old: str, new: str, what: str) -> None:
    assert any(what in line for line in errors(swapped(old, new)))


def test_all_findings_come_at_once_in_the_order_of_lines() -> None:
    text = swapped("zone: UTC ", "zone: Nowhere ").replace("tick_seconds: 2 ", "tick_seconds: soon ")
    found = errors(text)
    assert len(found) == 2
    assert [int(line.split(":")[1]) for line in found] == sorted(int(line.split(":")[1]) for line in found)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "topology.yaml:1: is empty"),
        ("# only words\n", "topology.yaml:1: is empty"),
        ("just words", "must be"),
        ("a: 1\nb: [1, 2\n", "not YAML"),
        ("a: 1\nb: 2\na: 3\n", "topology.yaml:3: a: appears twice, first in line 1"),
        ("a: {x: 1, x: 2}\n", "topology.yaml:1: a.x: appears twice"),
        ("a: !!python/object/apply:os.system [ls]\n", "is not supported here"),
        ("a: !!python/name:os.system x\n", "is not supported here"),
        ("a: !!set {x}\n", "is not supported here"),
        ("[a]: 1\n", "a key must be a word"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("a: \t- x\n\t b\n", "not YAML"),
        ("a: \0\n", "not YAML"),
        ("a: *nowhere\n", "not YAML"),
    ],
)
def test_what_is_no_topology_is_refused_in_one_line(text: str, what: str) -> None:
    found = errors(text)
    assert any(what in line for line in found), found
    assert all(line.startswith("topology.yaml:") for line in found)


@pytest.mark.parametrize(
    "bomb",
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)),
        "a: &a [*a]\n",
        "a: " + "[" * 5000 + "]" * 5000 + "\n",
        "a: " + "{b: " * 500 + "1" + "}" * 500 + "\n",
    ],
    ids=["ten to the twelve", "itself", "deep list", "deep mapping"],
)
def test_bombs_are_refused_at_once(bomb: str) -> None:
    began = time.process_time()
    assert len(errors(bomb)) == 1
    assert time.process_time() - began < 5


def test_words_stay_words() -> None:
    """No Norway problem, no sexagesimal times, no dates: only true, false, null and plain numbers are anything but text."""
    from schemas.topology.loader import _Document

    text = "a: [no, on, 12:30, 2026-01-01, 0x1F, 1e3, 1_000, '7', .inf]\nb: [true, false, null, ~, 7, -3, 1.5]\nno: 1\n7: 2\n"
    value = _Document(text, "t").value
    assert value["a"] == ["no", "on", "12:30", "2026-01-01", "0x1F", "1e3", "1_000", "7", ".inf"]
    assert value["b"] == [True, False, None, None, 7, -3, 1.5]
    assert value["no"] == 1
    assert value["7"] == 2


def test_anchors_may_be_used_with_measure() -> None:
    topics = load_topology(ROOT / "topology.yaml").topics
    assert topics["vee.state"].config == topics["ingest.state"].config != {}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_spoilt_file_is_either_valid_or_refused_with_lines(data: st.DataObject) -> None:
    lines = TEXT.splitlines(keepends=True)
    number = data.draw(st.integers(0, len(lines) - 1))
    change = data.draw(st.sampled_from(["drop", "double", "indent", "cut", "word"]))
    line = lines[number]
    lines[number] = {
        "drop": "", "double": line * 2, "indent": "  " + line, "cut": line[: len(line) // 2] + "\n", "word": line.replace(":", " "),
    }[change]  # fmt: skip
    try:
        topology = parse_topology("".join(lines))
    except TopologyError as error:
        for found in str(error).splitlines():
            name, at, _ = found.split(":", 2)
            assert name == "topology.yaml"
            assert 1 <= int(at) <= len(lines) + 1
    else:
        assert isinstance(topology, Topology)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90d", 90 * 86_400), ("36h", 129_600), ("15m", 900), ("20s", 20), ("2w", 1_209_600), ("forever", FOREVER)]
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds
    if seconds != FOREVER:
        assert parse_duration(duration_text(seconds)) == seconds


def test_files_that_cannot_be_read_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, what in [(tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")]:
        with pytest.raises(TopologyError, match=what):
            load_topology(path)
    (tmp_path / "latin.yaml").write_bytes(b"name: x\nzone: \xe4\n")
    with pytest.raises(TopologyError, match=r"latin\.yaml:2: is not UTF-8"):
        load_topology(tmp_path / "latin.yaml")


def test_the_file_here_comes_before_the_packaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_path() == ROOT / "topology.yaml"
    assert load_topology().name == "mdh"
    (tmp_path / "topology.yaml").write_text(swapped("name: mdh ", "name: other "))
    assert load_topology().name == "other"
    monkeypatch.chdir(ROOT)
    assert parse_topology(yaml.safe_dump(yaml.safe_load(TEXT))) == load_topology()
