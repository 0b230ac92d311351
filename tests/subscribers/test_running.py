"""Many subscribers, processes that die, replays, topics of their own, and subscribers of the topology."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from connectors.head_end.versions import StaleError
from connectors.subscribers import places
from connectors.subscribers.objects import sample_block
from connectors.subscribers.places import span_text
from connectors.subscribers.registry import Registry
from schemas.identity import partition_of
from schemas.topology.subscribers import Subscriber, start_second
from tests.patience import PATIENCE
from tests.subscribers.kit import CODEC, QUICK, SECRET, TOPOLOGY, Bench, determinant, eventually, receiver

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_blocked_receiver_takes_nothing_from_another(tmp_path: Path) -> None:
    """Two hubs at the same time, one with a receiver that hangs and one that is gone: what their other subscriber has got is compared."""
    go, hang = threading.Event(), threading.Event()
    alone, beside = Bench(tmp_path / "a"), Bench(tmp_path / "b")
    count = 1000
    try:
        with receiver() as gone:
            pass  # its server is closed: connections are refused
        with (
            receiver(lambda _: 204 if go.wait(PATIENCE) else 500) as one,
            receiver(lambda _: 204 if go.wait(PATIENCE) else 500) as other,
            receiver(lambda _: 503 if hang.wait(PATIENCE) else 500) as hanging,
        ):
            for bench, to in ((alone, one), (beside, other)):
                bench.webhook("live", to, filter={"account": ["live-*"]}, parallel=1, timeout="120s")
            beside.webhook("hanging", hanging, timeout="120s", parallel=8)
            beside.webhook("gone", gone)
            records = [determinant(n, f"live-{n % 50}") for n in range(count)]
            for bench in (alone, beside):
                bench.write("billing.determinants", "Determinant", records)
            eventually(lambda: one.requests and other.requests and hanging.requests)
            go.set()
            eventually(lambda: len(one.taken) == count)
            with_trouble = len(other.taken)
            assert with_trouble >= 0.5 * count, "both go on in turns of 200: at most two of five behind"
            eventually(lambda: len(other.taken) == count)
            assert not hanging.taken, "all this while nobody answered there"
            assert beside.service.state(beside.registry.get("gone"))["problem"]
            hang.set()
    finally:
        hang.set()
        alone.close()
        beside.close()


@pytest.mark.torment
def test_kill_9_loses_nothing_and_repeats_only_under_the_same_ids(bench: Bench) -> None:
    """`mdh deliver` is killed again and again while it delivers."""
    bench.halt()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MDH_SUBSCRIBER_SECRET_KEY": SECRET}
    topology = bench.folder / "topology.yaml"
    text = (ROOT / "topology.yaml").read_text()
    topology.write_text(text.replace("  networks: []", "  networks: [127.0.0.0/8]\n  plain_http: true"))
    command = [sys.executable, "-m", "mdh", "deliver", "--broker", bench.kafka.bootstrap, "--data-dir", str(bench.folder)]
    command += ["--topology", str(topology)]
    count, slow = 300, 0.01
    with receiver(lambda _: time.sleep(slow) or 204) as to:  # type: ignore[func-returns-value]
        bench.start(deliver=False)
        bench.webhook("billing", to, parallel=2)
        bench.write("billing.determinants", "Determinant", [determinant(n, f"a-{n % 8}") for n in range(count)])
        for fraction in (0.2, 0.5, 1.0):
            log = (bench.folder / "deliver.log").open("ab")
            process = subprocess.Popen(command, env=environment, cwd=bench.folder, stderr=log)
            try:
                eventually(lambda fraction=fraction: len(set(to.ids)) >= count * fraction)
                if fraction < 1:
                    process.send_signal(signal.SIGKILL)
                else:
                    eventually(lambda: bench.position("billing") == count + 1)
            finally:
                process.kill()
                process.wait()
        assert Counter(to.ids).keys() == {f"d{n:05}-1" for n in range(count)}
        deliveries = {item["id"]: request.id for request in to.taken for item in request.data}
        assert all(deliveries[item["id"]] == request.id for request in to.taken for item in request.data)
        repeated = len(to.ids) - count
        assert repeated <= 2 * 200, "no more than what was read and not yet committed at each death"


def test_replays_deliver_again_in_order_and_survive_a_restart(bench: Bench) -> None:
    with receiver() as to:
        bench.webhook("billing", to, parallel=1)
        bench.write("billing.determinants", "Determinant", [determinant(n, "one") for n in range(20)])
        eventually(lambda: len(to.ids) == 20)
        before = [request.id for request in to.taken]
        bench.registry.replay(bench.registry.get("billing"), "earliest", actor="test")
        eventually(lambda: len(to.ids) == 40)
        assert to.ids[20:] == to.ids[:20]
        assert [request.id for request in to.taken[20:]] == before, "what was there already is recognised by its id"
        offsets = orjson.dumps({f"billing.determinants/{partition_of('one', 4)}": first(15)}).decode()
        bench.registry.replay(bench.registry.get("billing"), offsets, actor="test")
        eventually(lambda: len(to.ids) == 45)
        bench.halt()
        bench.start()
        bench.write("billing.determinants", "Determinant", [determinant(99, "one")])
        eventually(lambda: len(to.ids) == 46)
        bench.settled("billing")
        assert len(to.ids) == 46, "a replay is done once"


DAY = 86_400_000
JANUARY = 1_767_225_600_000  # UTC milliseconds


def looked_up(bench: Bench) -> Any:
    """The offset of the first record of a time or later, which the mock does not look up."""

    def positioned(_: Any, entry: Any, places: list[tuple[str, int]], position: str) -> dict[tuple[str, int], int]:
        found = dict.fromkeys(places, 0)
        second = start_second(position)
        for message in bench.read("billing.determinants") if second is not None else ():
            place = message.topic(), message.partition()
            if place in found and message.timestamp()[1] < second * 1000:
                found[place] = message.offset() + 1
        return found

    return positioned


@pytest.mark.parametrize("kind", ["webhook", "file"])
def test_a_replay_of_a_span_of_time_ends_and_goes_on_where_delivery_was(bench: Bench, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came in February is delivered again, then what is new; what came after February is not."""
    monkeypatch.setattr(places, "positioned", looked_up(bench))

    def write(ids: range, at: int) -> None:
        bench.write("billing.determinants", "Determinant", [determinant(n, f"a-{n % 3}") for n in ids], at=at)

    def told() -> Counter[tuple[int, str]]:
        sent = (one for one in bench.journal("billing") if one["status"] == "sent")
        return Counter((one["replay"], one["object"]) for one in sent for _ in range(one["records"]))

    with receiver() as to:
        webhook = {"kind": "webhook", "url": to.url, "secrets": ["key"]}
        bench.subscribe("billing", ["determinants"], webhook if kind == "webhook" else {"kind": "file", "folder": "in", "every": "1s"})
        for number in range(3):
            write(range(number * 10, number * 10 + 10), JANUARY + number * 30 * DAY)
        eventually(lambda: told() == {(1, "determinants"): 30})
        bench.settled("billing")
        bench.registry.replay(bench.registry.get("billing"), span_text("2026-01-20", "2026-02-20"), actor="test")
        eventually(lambda: told() == {(1, "determinants"): 30, (2, "determinants"): 10})
        if kind == "webhook":
            assert sorted(to.ids[30:]) == [f"d{n:05}-1" for n in range(10, 20)]
        write(range(40, 43), JANUARY + 70 * DAY)
        eventually(lambda: told()[2, "determinants"] == 13)
        bench.settled("billing")
        bench.halt()
        bench.start()
        write(range(50, 53), JANUARY + 71 * DAY)
        eventually(lambda: told()[2, "determinants"] == 16)
        bench.settled("billing")
        assert told() == {(1, "determinants"): 30, (2, "determinants"): 16}


def first(number: int) -> int:
    """The offset of the nth record: partition 0 begins with the record that made the topic."""
    return number + (1 if partition_of("one", 4) == 0 else 0)


def test_pausing_keeps_and_resuming_goes_on(bench: Bench) -> None:
    with receiver() as to:
        bench.webhook("billing", to)
        bench.write("billing.determinants", "Determinant", [determinant(1)])
        eventually(lambda: len(to.ids) == 1)
        entry = bench.registry.set_status(bench.registry.get("billing"), "pause", "paused", actor="test")
        eventually(lambda: bench.service.state(entry)["state"] == "idle")
        bench.write("billing.determinants", "Determinant", [determinant(2)])
        assert bench.service.state(entry)["state"] == "idle", "nobody is there to deliver"
        assert len(to.requests) == 1
        bench.registry.set_status(entry, "resume", "active", actor="test")
        eventually(lambda: to.ids == ["d00001-1", "d00002-1"])


def test_a_change_is_effective_at_once_and_goes_on_where_it_was(bench: Bench) -> None:
    with receiver() as to, receiver() as other:
        bench.webhook("billing", to)
        bench.write("billing.determinants", "Determinant", [determinant(1)])
        eventually(lambda: len(to.ids) == 1)
        entry = bench.registry.get("billing")
        spec = Subscriber.model_validate(
            {**entry.spec.model_dump(mode="json"), "channel": {**entry.spec.channel.model_dump(mode="json"), "url": other.url}}
        )
        bench.registry.change(entry, spec, actor="test")
        eventually(lambda: bench.service.state(bench.registry.get("billing")).get("version") == 2)
        bench.write("billing.determinants", "Determinant", [determinant(2)])
        eventually(lambda: other.ids == ["d00002-1"])
        assert to.ids == ["d00001-1"]


def test_two_gateways_cannot_both_change_the_same_version(bench: Bench) -> None:
    with receiver() as to:
        bench.webhook("billing", to, filter={"account": ["none"]})
    second: Registry = bench.start(deliver=False).registry
    first = bench._running[0][0].registry
    entry = second.get("billing")
    first.set_status(entry, "pause", "paused", actor="one")
    with pytest.raises(StaleError):
        second.set_status(entry, "resume", "active", actor="two")
    assert second.get("billing") == first.get("billing")
    assert [change["action"] for change in first.history("billing")] == ["create", "pause"]
    audited = [CODEC.decode(m.value()) for m in bench.read("audit.events") if CODEC.name_of(m.value()) == "AuditEvent"]
    assert [event["action"] for event in audited if event["subject"] == "subscriber/billing"] == ["subscriber-create", "subscriber-pause"]


def test_subscribers_of_the_topology_are_registered_changed_and_ended(tmp_path: Path) -> None:
    def declared(**subscribers: Any) -> Any:
        return TOPOLOGY.model_copy(update={"subscribers": {id: Subscriber.model_validate(spec) for id, spec in subscribers.items()}})

    spec = {"objects": ["audit"], "channel": {"kind": "kafka"}}
    bench = Bench(tmp_path, declared(one=spec, two=spec))
    try:
        eventually(lambda: set(bench.registry.entries()) == {"one", "two"})
        assert {entry.origin for entry in bench.registry.entries().values()} == {"topology"}
        bench.halt()
        bench.topology = declared(one={**spec, "about": "changed"}).model_copy(update={"delivery": bench.topology.delivery})
        bench.start()
        eventually(lambda: bench.registry.get("two").status == "ended")
        assert (bench.registry.get("one").version, bench.registry.get("one").spec.about) == (2, "changed")
        bench.halt()
        started = bench.start()
        eventually(lambda: started.declared)
        assert bench.registry.get("one").version == 2, "what did not change is left alone"
    finally:
        bench.close()


@pytest.mark.parametrize("format", ["json", "avro"])
def test_a_topic_of_its_own_gets_what_is_wanted(tmp_path: Path, format: str) -> None:
    topics = {
        **TOPOLOGY.topics,
        "crm.out": TOPOLOGY.topics["billing.determinants"].model_copy(update={"writers": ["delivery"], "stored": False}),
    }
    bench = Bench(tmp_path, TOPOLOGY.model_copy(update={"topics": topics}))
    try:
        channel = {"kind": "kafka", "topic": "crm.out", "format": format}
        bench.subscribe("crm", ["determinants", "final-intervals"], channel, filter={"account": ["a-*"]}, retry=QUICK)
        bench.write("billing.determinants", "Determinant", [determinant(n, f"{'ab'[n % 2]}-1001") for n in range(6)])
        bench.block(sample_block())
        found = eventually(lambda: (read := bench.read("crm.out")) and len(read) == 4 and read)
        if format == "avro":
            assert Counter(CODEC.name_of(m.value()) for m in found) == {"Determinant": 3, "FinalBlock": 1}
        else:
            items = [orjson.loads(m.value()) for m in found]
            assert {item["account"] for item in items} == {"a-1001"}
            assert {dict(m.headers())["id"].decode() for m in found} == {item["id"] for item in items}
    finally:
        bench.close()
