"""Plan and apply: the comparison by itself, the requests against a real broker."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.kafka.admin import ActualTopic, Administrator, BrokerError, Cluster, Difference, plan, unknown, wanted
from connectors.kafka.settings import KafkaSettings
from schemas.topology import Topology, load_topology, parse_topology
from tests.patience import eventually

ROOT = Path(__file__).resolve().parent.parent.parent
TOPOLOGY = load_topology(ROOT / "topology.yaml")


def as_written(topology: Topology = TOPOLOGY, brokers: int = 3) -> Cluster:
    """A cluster that is as the topology says."""
    return Cluster(brokers, {name: wanted(topology, name, brokers) for name in topology.topics})


def with_topic(cluster: Cluster, name: str, **changes: object) -> Cluster:
    return Cluster(cluster.brokers, {**cluster.topics, name: dataclasses.replace(cluster.topics[name], **changes)})


@pytest.mark.parametrize("brokers", [1, 2, 3, 9])
def test_a_cluster_as_written_has_no_differences(brokers: int) -> None:
    assert plan(TOPOLOGY, as_written(brokers=brokers)) == []


def test_an_empty_cluster_lacks_every_topic_in_the_order_of_the_file() -> None:
    found = plan(TOPOLOGY, Cluster(3, {}))
    assert [d.topic for d in found] == list(TOPOLOGY.topics)
    assert {d.action for d in found} == {"create"}
    assert "4 partitions, 3 copies" in found[0].sentence()


@pytest.mark.parametrize(("brokers", "copies", "insync"), [(0, 1, None), (1, 1, None), (2, 2, None), (3, 3, "2"), (5, 3, "2")])
def test_copies_are_as_many_as_there_are_brokers(brokers: int, copies: int, insync: str | None) -> None:
    aim = wanted(TOPOLOGY, "vee.inbox", brokers)
    assert aim.replication == copies
    assert aim.config.get("min.insync.replicas") == insync


@pytest.mark.parametrize(
    ("changes", "action", "words"),
    [
        ({"partitions": 2}, "partitions", "partitions 2 → 4 (keys move"),
        ({"partitions": 8}, "conflict", "partitions 8 → 4 (Kafka cannot take partitions away"),
        ({"replication": 1}, "conflict", "replication 1 → 3 (use kafka-reassign-partitions"),
        ({"config": {}}, "config", "cleanup.policy unset → delete"),
    ],
)
def test_each_kind_of_difference(changes: dict[str, object], action: str, words: str) -> None:
    found = plan(TOPOLOGY, with_topic(as_written(), "vee.inbox", **changes))
    assert {d.topic for d in found} == {"vee.inbox"}
    assert any(d.action == action and words in d.sentence() for d in found)


def test_a_setting_the_file_does_not_know_is_taken_back() -> None:
    config = {**wanted(TOPOLOGY, "vee.inbox", 3).config, "flush.ms": "5"}
    found = plan(TOPOLOGY, with_topic(as_written(), "vee.inbox", config=config))
    assert found == [Difference("vee.inbox", "config", "flush.ms", None, "5")]
    assert found[0].sentence() == "vee.inbox: flush.ms 5 → unset"


def test_other_topics_are_named_and_kafkas_own_are_not() -> None:
    cluster = as_written()
    others = {"their.topic": ActualTopic(1, 1), "__consumer_offsets": ActualTopic(50, 1), "_schemas": ActualTopic(1, 1)}
    crowded = Cluster(3, {**cluster.topics, **others})
    assert unknown(TOPOLOGY, crowded) == ["their.topic"]
    assert plan(TOPOLOGY, crowded) == []


actual_topics = st.builds(
    ActualTopic,
    st.integers(1, 8),
    st.integers(1, 4),
    st.dictionaries(st.sampled_from(["retention.ms", "cleanup.policy", "segment.bytes", "x"]), st.sampled_from(["1", "compact", "delete"])),
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(TOPOLOGY.topics)), actual_topics), st.integers(1, 4))
def test_after_mending_all_that_can_be_mended_only_conflicts_are_left(topics: dict[str, ActualTopic], brokers: int) -> None:
    cluster = Cluster(brokers, topics)
    after = dict(topics)
    for d in plan(TOPOLOGY, cluster):
        if d.action == "create":
            after[d.topic] = wanted(TOPOLOGY, d.topic, brokers)
        elif d.action == "partitions":
            after[d.topic] = dataclasses.replace(after[d.topic], partitions=int(d.wanted or 0))
        elif d.action == "config":
            config = {k: v for k, v in after[d.topic].config.items() if k != d.setting}
            after[d.topic] = dataclasses.replace(after[d.topic], config=config | ({d.setting: d.wanted} if d.wanted is not None else {}))
    assert {d.action for d in plan(TOPOLOGY, Cluster(brokers, after))} <= {"conflict"}


def test_a_broker_that_is_not_there_is_named_in_one_line() -> None:
    administrator = Administrator(KafkaSettings(bootstrap="127.0.0.1:9"), timeout=0.5)
    with pytest.raises(BrokerError, match=r"no Kafka broker answers at 127\.0\.0\.1:9") as caught:
        administrator.look([])
    assert "\n" not in str(caught.value)


# --- against a real broker ----------------------------------------------------------------------------------------------------


SMALL = """
name: small
partitions: 2
parties: {{head-end: writes, operations: reads}}
agents:
  first: {{about: x, inbox: {p}in, plain: [{p}plain], outputs: [{p}out], state: {p}state, dead: {p}dlq}}
topics:
  {p}in: {{about: x, key: x, records: [raw], writers: [head-end], readers: [first], config: {{max.message.bytes: 40000000}}, retention: 7d}}
  {p}plain: {{about: x, key: x, records: [raw], writers: [head-end], readers: [first], retention: 1d}}
  {p}out: {{about: x, key: x, records: [Tick], writers: [first], readers: [operations], retention: 1d}}
  {p}state: {{about: x, key: x, records: [raw], writers: [first], readers: [first], cleanup: compact}}
  {p}dlq: {{about: x, key: x, records: [raw], writers: [first], readers: [operations]}}
"""


@pytest.fixture
def small(broker: str, topic_prefix: str) -> Iterator[Topology]:
    topology = parse_topology(SMALL.format(p=topic_prefix))
    yield topology
    client = AdminClient({"bootstrap.servers": broker})
    present = [name for name in client.list_topics(timeout=60).topics if name.startswith(topic_prefix)]
    for future in client.delete_topics(present).values() if present else ():
        future.exception(120)


@pytest.mark.broker
def test_apply_makes_a_broker_as_written_and_a_second_time_does_nothing(broker: str, small: Topology) -> None:
    administrator = Administrator(KafkaSettings(bootstrap=broker))
    assert len(plan(small, administrator.look(small.topics))) == 5
    mended, left = administrator.apply(small)
    assert (len(mended), left) == (5, [])
    cluster = administrator.look(small.topics)
    assert plan(small, cluster) == []
    assert {name: cluster.topics[name] for name in small.topics} == {name: wanted(small, name, 1) for name in small.topics}
    assert administrator.apply(small) == ([], [])


@pytest.mark.broker
def test_apply_mends_settings_and_leaves_partitions_until_asked(broker: str, small: Topology, topic_prefix: str) -> None:
    client = AdminClient({"bootstrap.servers": broker})
    out, other = f"{topic_prefix}out", f"{topic_prefix}other"
    fresh = [NewTopic(out, 1, 1, config={"retention.ms": "5000", "flush.ms": "7"}), NewTopic(other, 1, 1)]
    for future in client.create_topics(fresh).values():
        future.result(120)
    administrator = Administrator(KafkaSettings(bootstrap=broker))
    eventually(lambda: {out, other} <= set(administrator.look([out]).topics))
    mended, left = administrator.apply(small)
    assert [(d.topic, d.setting) for d in mended if d.action == "config"] == [
        (out, "cleanup.policy"), (out, "flush.ms"), (out, "retention.ms"),
    ]  # fmt: skip
    assert [d.setting for d in left] == ["partitions"]
    assert unknown(small, administrator.look(small.topics)).count(other) == 1
    mended, left = administrator.apply(small, add_partitions=True)
    assert ([d.action for d in mended], left) == (["partitions"], [])
    assert administrator.look([]).topics[out].partitions == 2
    administrator.apply(small, delete=[other])
    assert other not in administrator.look([]).topics


@pytest.mark.broker
def test_topics_that_somebody_else_creates_meanwhile_are_compared_again(
    broker: str, small: Topology, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    administrator = Administrator(KafkaSettings(bootstrap=broker))
    late = AdminClient({"bootstrap.servers": broker})
    for future in late.create_topics([NewTopic(f"{topic_prefix}out", 1, 1, config={"flush.ms": "7"})]).values():
        future.result(120)
    look = administrator.look
    answers = iter([Cluster(1, {})])
    monkeypatch.setattr(administrator, "look", lambda names: next(answers, None) or look(names))
    mended, left = administrator.apply(small)
    assert [d.setting for d in left] == ["partitions"]
    assert {(d.topic, d.action) for d in mended if d.topic == f"{topic_prefix}out"} == {(f"{topic_prefix}out", "config")}
    assert look(small.topics).topics[f"{topic_prefix}out"].config == wanted(small, f"{topic_prefix}out", 1).config


@pytest.mark.broker
def test_nothing_of_the_topology_is_deleted_and_nothing_unknown_to_the_broker(broker: str, small: Topology, topic_prefix: str) -> None:
    administrator = Administrator(KafkaSettings(bootstrap=broker))
    administrator.apply(small)
    with pytest.raises(BrokerError, match="is in the topology"):
        administrator.apply(small, delete=[f"{topic_prefix}out"])
    with pytest.raises(BrokerError, match="there is no topic"):
        administrator.apply(small, delete=[f"{topic_prefix}nothing"])
    assert f"{topic_prefix}out" in administrator.look([]).topics


@pytest.mark.broker
def test_a_setting_the_broker_refuses_is_one_line(broker: str, topic_prefix: str) -> None:
    text = SMALL.format(p=topic_prefix).replace("max.message.bytes: 40000000", "max.message.bytes: 40000000, segment.bytes: 1")
    with pytest.raises(BrokerError, match=f"creating {topic_prefix}in: .*segment.bytes") as caught:
        Administrator(KafkaSettings(bootstrap=broker)).apply(parse_topology(text))
    assert "\n" not in str(caught.value)


@pytest.mark.broker
def test_the_command_plans_applies_and_agrees(broker: str, topic_prefix: str, small: Topology, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL.format(p=topic_prefix))

    def mdh(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "mdh", "topology", *arguments, "--topology", str(file), "--broker", broker]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout

    status, text = mdh("plan")
    assert (status, text.count("missing; create with")) == (1, 5)
    status, text = mdh("apply")
    assert (status, text.count("done: ")) == (0, 5)
    status, text = mdh("plan", "--json")
    assert (status, json.loads(text)["differences"]) == (0, [])
    client = AdminClient({"bootstrap.servers": broker})
    entry = ConfigEntry("retention.ms", "9999", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, f"{topic_prefix}out", incremental_configs=[entry])
    for future in client.incremental_alter_configs([resource]).values():
        future.result(120)
    administrator = Administrator(KafkaSettings(bootstrap=broker))
    eventually(lambda: administrator.look(small.topics).topics[f"{topic_prefix}out"].config["retention.ms"] == "9999")
    status, text = mdh("plan")
    assert (status, text.splitlines()[0]) == (1, f"{topic_prefix}out: retention.ms 9999 → 86400000")
