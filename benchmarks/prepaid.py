"""``mdh bench prepaid``: the ledger agent against the same ledger as an SQL wallet, and how soon a recharge restores supply.

Usage events and top-ups go through a worker with the agent alone, on the embedded Kafka, exactly once: state, postings, accounts and
outcomes in its transactions. The wallets get the same postings with their amounts worked out, one transaction for each cause. Balances
and heads of the hash chains must be equal before any rate is given.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import yaml
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewTopic

from benchmarks.peers.wallet.server import programs, server
from benchmarks.peers.wallet.wallet import Cause, PostgresWallet, SqliteWallet, Wallet
from benchmarks.pipeline import _logged, _mdh, _process
from connectors.embedded.kafka import Broker
from connectors.kafka.admin import Administrator
from connectors.kafka.client import administrator, consumer, producer
from connectors.kafka.settings import KafkaSettings
from mdh.errors import UsageError
from schemas.codec import Codec
from schemas.identity import identity, partition_of
from schemas.topology import Topology, load_topology
from streams.determinants.events import batches
from streams.prepaid.fold import PrepaidFold
from streams.runtime.fold import Message
from streams.runtime.lane import ID, SEQUENCE, WRITER

FIRST: Final = datetime(2026, 3, 1, tzinfo=UTC)
PATIENCE: Final = 900.0
WARM: Final = 20  # recharges that are not counted
CLIENTS: Final = 8  # connections of the server's wallet
HERE: Final = Path(__file__).resolve().parent
Say = Callable[[str], None]
Head = tuple[int, int, str]  # balance, number of postings, hash of the last one
CODEC: Final = Codec()


@dataclass(frozen=True, slots=True)
class Load:
    """Accounts, and days of one usage event each, gathered by partition as the agent upstream gathers them; every third day a top-up."""

    accounts: int
    days: int

    def names(self) -> list[str]:
        """The accounts."""
        return [f"P{number:06d}" for number in range(self.accounts)]

    def messages(self, partitions: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Key (any account of the partition), record type and record in the order of the inbox."""
        for name in self.names():
            yield name, "PrepaidRequest", request("enrol", name, f"enrol/{name}", terms='{"from": "2026-03-01", "zone": "UTC"}')
        for day in range(self.days):
            told = [usage(name, day, 4_000_000 + 37_717 * ((number * 7 + day * 13) % 101)) for number, name in enumerate(self.names())]
            yield from messages_of(told, partitions)
            for number, name in enumerate(self.names()):
                if (number + day) % 3 == 0:
                    yield name, "PrepaidRequest", request("topup", name, f"top/{name}/{day}", amount=900 + number % 7, channel="web")


def messages_of(events: list[dict[str, Any]], partitions: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Usage events as messages of the inbox."""
    for _, batch in batches(events, partitions):
        yield batch["events"][0]["account"], "UsageBatch", batch


def request(action: str, account: str, id: str, **fields: Any) -> dict[str, Any]:
    """A request as the API writes it."""
    blank = {"amount": None, "channel": "", "reference": "", "reason": "", "user": "bench", "approver": "", "terms": ""}
    return {"id": id, "account": account, "action": action, **blank, **fields}


def usage(account: str, day: int, micros: int) -> dict[str, Any]:
    """A closed day of one meter, in three periods of use."""
    start = FIRST + timedelta(days=day)
    parts = {"peak": micros // 3, "shoulder": micros // 4}
    parts["offpeak"] = micros - sum(parts.values())
    lines = [{"tou": tou, "quantity": Decimal(part).scaleb(-6)} for tou, part in parts.items()]
    return {
        "id": identity("bench", account, day), "account": account, "service_point": f"S{account}", "device": f"D{account}",
        "channel": "1.8.0", "direction": "delivered", "zone": "UTC", "measure": "interval", "grain": "day", "day": str(start.date()),
        "start": start, "end": start + timedelta(days=1), "unit": "kWh", "quantity": Decimal(micros).scaleb(-6), "lines": lines,
        "condition": 500_000, "slots": 96, "actual": 96, "estimated": 0, "missing": 0, "provisional": False, "status": "final",
        "version": 1, "replaces": "",
    }  # fmt: skip


def run(accounts: int, days: int, peers: int, recharges: int, say: Say) -> dict[str, Any]:
    """All figures; ``peers`` is how many of the accounts the wallets get. Raises UsageError where ledgers differ."""
    load, topology = Load(accounts, days), load_topology(None)
    say("what is right, by the engine alone")
    causes, fold_rate = expected(load, topology)
    heads = {account: head(postings) for account, postings in causes.items()}
    postings = sum(len(cause) for own in causes.values() for cause in own)
    with tempfile.TemporaryDirectory(prefix="mdh-bench-") as name:
        folder = Path(name)
        say(f"agent: {postings:,} postings to {accounts:,} accounts")
        rate = agent(folder, load, heads, postings, topology, say)
        some = load.names()[:peers]
        figures: dict[str, Any] = {
            "bench": "prepaid", "postings": postings, "accounts": accounts, "agent_postings_per_s": round(rate),
            "engine_postings_per_s": round(fold_rate), "equal": True,
        }  # fmt: skip
        for kind, told in wallets(folder, [causes[name] for name in some], {name: heads[name] for name in some}, say):
            figures[f"{kind}_postings_per_s"] = None if told is None else round(told)
            figures[f"ratio_{kind}"] = None if told is None else round(rate / told, 1)
        say(f"reconnection: {recharges} recharges, one after the other")
        figures |= reconnection(folder, recharges)
    return figures


def expected(load: Load, topology: Topology) -> tuple[dict[str, list[Cause]], float]:
    """Account → postings by cause, folded in this process without a broker; and how many a second that makes."""
    folds = [PrepaidFold(topology.prepaid, topology.zone, number) for number in range(topology.partitions)]
    found: dict[str, list[Cause]] = defaultdict(list)
    count, began = 0, time.perf_counter()
    for number, (key, kind, body) in enumerate(load.messages(topology.partitions)):
        result = folds[partition_of(key, topology.partitions)].apply(Message(kind, body, f"m{number}"))
        postings = (output.body for output in result.outputs if output.type == "Posting")
        for (account, _), cause in groupby(postings, lambda posting: (posting["account"], posting["cause"])):
            found[account].append(list(cause))
            count += len(found[account][-1])
    return found, count / (time.perf_counter() - began)


def head(causes: Sequence[Cause]) -> Head:
    """Where an account's ledger ends."""
    last = causes[-1][-1]
    return last["balance"], last["sequence"], last["hash"]


# --- the agent -----------------------------------------------------------------------------------------------------------------


def agent(folder: Path, load: Load, heads: dict[str, Head], postings: int, topology: Topology, say: Say) -> float:
    """Postings per second from the moment the worker has its partitions until the last one can be read."""
    with Broker(folder / "kafka", say=say) as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap)
        Administrator(kafka).apply(topology)
        fill(kafka, load.messages(topology.partitions), topology)
        reader = from_end(kafka, "prepaid.ledger", topology)
        log = folder / "worker.log"
        with _process(_mdh("worker", broker.bootstrap, folder / "data", "--agents", "prepaid"), log):
            began = _logged(log, "assigned")
            found = _heads(reader, postings)
            ended = time.time()
        reader.close()
    if found != heads:
        raise UsageError(f"the agent's ledger differs in {sum(found.get(a) != h for a, h in heads.items())} accounts")
    say(f"  {postings / (ended - began):,.0f} postings/s")
    return postings / (ended - began)


def fill(kafka: KafkaSettings, messages: Iterator[tuple[str, str, dict[str, Any]]], topology: Topology) -> None:
    """Puts messages into the inbox as the agent upstream does, numbered by partition."""
    write = producer(kafka, queue_buffering_max_messages=1_000_000)
    numbers: dict[int, int] = defaultdict(int)
    for position, (key, kind, body) in enumerate(messages):
        partition = partition_of(key, topology.partitions)
        headers = {ID: f"b{position}".encode(), WRITER: b"determinants/0", SEQUENCE: b"%d" % numbers[partition]}
        numbers[partition] += 1
        write.produce("prepaid.inbox", CODEC.encode(kind, body), key.encode(), partition=partition, headers=headers)
        write.poll(0)
    write.flush(120)


def from_end(kafka: KafkaSettings, topic: str, topology: Topology) -> Consumer:
    """A reader of what is committed to a topic from now on."""
    reader = consumer(kafka, f"bench-{topic}", fetch_wait_max_ms=10)
    reader.assign([TopicPartition(topic, number, OFFSET_END) for number in range(topology.topics[topic].partitions)])
    reader.consume(1, 1.0)  # the assignment holds when this comes back
    return reader


def _heads(reader: Consumer, wanted: int) -> dict[str, Head]:
    found: dict[str, Head] = {}
    seen, deadline = 0, time.monotonic() + PATIENCE
    while seen < wanted:
        for message in reader.consume(2000, 0.1):
            if message.error() is None:
                posting = CODEC.decode(message.value())
                found[posting["account"]] = (posting["balance"], posting["sequence"], posting["hash"])
                seen += 1
        if time.monotonic() > deadline:
            raise UsageError(f"{seen} of {wanted} postings came")
    return found


# --- the wallets -----------------------------------------------------------------------------------------------------------------


def wallets(folder: Path, causes: list[list[Cause]], heads: dict[str, Head], say: Say) -> Iterator[tuple[str, float | None]]:
    """Name and postings per second of each wallet; None: it could not be measured here."""
    sqlite = folder / "wallet.sqlite"
    yield "sqlite", posted("SQLite", lambda _: SqliteWallet(sqlite), causes, heads, 1, say)
    bin = programs()
    try:
        import psycopg  # noqa: F401
    except ImportError:
        bin = None
    if bin is None:
        say("no PostgreSQL here: it needs the server's programs and psycopg (pip install 'meter-data-hub[benchmarks]')")
    with nullcontext("") if bin is None else server(folder / "postgresql", bin) as dsn:
        for name, clients in (("postgresql", CLIENTS), ("postgresql_one_client", 1)):
            base = f"{dsn} options='-c search_path={name}'"
            if bin is not None:
                PostgresWallet(dsn).base.execute(f"CREATE SCHEMA {name}")
            make = lambda new, base=base: PostgresWallet(base, new=new)  # noqa: E731
            yield name, None if bin is None else posted(name, make, causes, heads, clients, say)


def posted(name: str, make: Callable[[bool], Wallet], causes: list[list[Cause]], heads: dict[str, Head], clients: int, say: Say) -> float:
    """Postings per second of one wallet. Accounts are dealt out to its clients; each posts the causes of its own day by day."""
    first = make(True)
    bare = [[[_bare(posting) for posting in cause] for cause in own] for own in causes]
    ready = [first, *(make(False) for _ in range(clients - 1))]

    def work(client: Wallet, own: list[list[Cause]]) -> None:
        for day in range(max(map(len, own), default=0)):
            for account in own:
                if day < len(account):
                    client.post(account[day])

    threads = [threading.Thread(target=work, args=(client, bare[number::clients])) for number, client in enumerate(ready)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = sum(len(cause) for own in bare for cause in own) / (time.perf_counter() - began)
    if first.heads() != heads:
        raise UsageError(f"the ledger of {name} differs")
    for client in ready:
        client.close()
    say(f"{name}: {rate:,.0f} postings/s with {clients} {'client' if clients == 1 else 'clients'}")
    return rate


def _bare(posting: dict[str, Any]) -> dict[str, Any]:
    bare = {name: value for name, value in posting.items() if name not in ("sequence", "balance", "previous", "hash")}
    return bare | {"at": round(posting["at"].timestamp() * 1000)}


# --- from the recharge to the command ----------------------------------------------------------------------------------------------


def reconnection(folder: Path, count: int) -> dict[str, Any]:
    """Milliseconds from a top-up written to Kafka until its connect command can be read, and of Kafka alone."""
    system = _eager(folder)
    topology = load_topology(system)
    with Broker(folder / "kafka-2") as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap)
        Administrator(kafka).apply(topology)
        log = folder / "reconnect.log"
        command = _mdh("worker", broker.bootstrap, folder / "data-2", "--agents", "ingest,prepaid", "--topology", str(system))
        with _process(command, log):
            _logged(log, "assigned")
            around = _Outside(kafka, topology)
            accounts = [f"P{number:04d}" for number in range(count + WARM)]
            around.cut(accounts)
            ours = [around.recharge(account) for account in accounts][WARM:]
            around.close()
        theirs, committed = _echo(kafka, count)
    p99, own, bare = (_percentile(times, 99) for times in (ours, theirs, committed))
    return {
        "recharges": count, "reconnect_p50_ms": _percentile(ours, 50), "reconnect_p99_ms": p99, "kafka_p99_ms": own,
        "kafka_transaction_p99_ms": bare, "ratio_reconnect": round(p99 / own, 1), "ratio_reconnect_transaction": round(p99 / bare, 1),
    }  # fmt: skip


def _eager(folder: Path) -> Path:
    """The topology as it comes, with an end of grace and protected times: accounts must be off first."""
    system = yaml.safe_load((HERE.parent / "topology.yaml").read_text())
    system["prepaid"]["disconnection"] = {"grace": "0s", "max_read_age": "365d"}
    path = folder / "eager.yaml"
    path.write_text(yaml.safe_dump(system, sort_keys=False, allow_unicode=True))
    return path


class _Outside:
    """API, determinants, clock and head end in one, against one worker."""

    def __init__(self, kafka: KafkaSettings, topology: Topology) -> None:
        self.kafka, self.topology = kafka, topology
        self.write = producer(kafka, linger_ms=0)
        self.reader = from_end(kafka, "device.commands", topology)
        self.now = int(FIRST.timestamp()) + 86_400 * 2

    def send(self, topic: str, key: str, kind: str, body: dict[str, Any], id: str) -> None:
        number = partition_of(key, self.topology.partitions)
        self.write.produce(topic, CODEC.encode(kind, body), key.encode(), partition=number, headers={"id": id.encode()})
        self.write.poll(0)

    def tick(self) -> None:
        self.now += 60
        for number in range(self.topology.partitions):
            self.write.produce(
                "hub.ticks", CODEC.encode("Tick", {"at": self.now}), partition=number, headers={"id": f"t{self.now}/{number}"}
            )
        self.write.flush(30)

    def cut(self, accounts: list[str]) -> None:
        """Enrols, lets each use up what it has not, and confirms that supply is off."""
        self.tick()
        for name in accounts:
            terms = '{"from": "2026-03-01", "zone": "UTC"}'
            self.send("prepaid.requests", name, "PrepaidRequest", request("enrol", name, f"enrol/{name}", terms=terms), f"enrol/{name}")
        self.write.flush(30)
        _until(lambda: self._count("prepaid.outcomes") >= len(accounts))
        fill(self.kafka, messages_of([usage(name, 0, 9_000_000) for name in accounts], self.topology.partitions), self.topology)
        left = set(accounts)
        for command in self._commands(lambda: bool(left)):
            left.discard(command["reference"])
            reply = {"command": command["id"], "device": command["device"], "status": "done", "at": self.now, "code": "", "detail": ""}
            self.send("device.replies", command["device"], "DeviceReply", reply, f"reply/{command['id']}")
        self.write.flush(30)
        _until(lambda: self._count("prepaid.notices") >= 3 * len(accounts))  # enrolled, zero, disconnected

    def recharge(self, account: str) -> float:
        """Milliseconds until the command that restores supply can be read."""
        body = request("topup", account, f"top/{account}", amount=5000, channel="web")
        began = time.perf_counter()
        self.send("prepaid.requests", account, "PrepaidRequest", body, f"top/{account}")
        for command in self._commands(lambda: True):
            if command["action"] == "connect" and command["reference"] == account:
                break
        return (time.perf_counter() - began) * 1000

    def _commands(self, wanted: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        deadline = time.monotonic() + PATIENCE
        while wanted():
            message = self.reader.poll(0.05)
            self.write.poll(0)
            if message is not None and message.error() is None:
                yield CODEC.decode(message.value())
            if time.monotonic() > deadline:
                raise UsageError("a command did not come")

    def _count(self, topic: str) -> int:
        """Records committed to a topic, not counting marks of transactions."""
        reader = consumer(self.kafka, f"bench-count-{topic}", enable_partition_eof=True)
        numbers = range(self.topology.topics[topic].partitions)
        reader.assign([TopicPartition(topic, number, 0) for number in numbers])
        left, found = set(numbers), 0  # a partition that grows meanwhile says more than once that it ends here
        while left:
            for message in reader.consume(2000, 0.2):
                if message.error() is None:
                    found += 1
                else:
                    left.discard(message.partition())
        reader.close()
        return found

    def close(self) -> None:
        self.write.flush(10)
        self.reader.close()


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise UsageError("the worker did not get that far")
        time.sleep(0.2)


def _echo(kafka: KafkaSettings, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds from a record written until it can be read, bare and in a transaction of its own."""
    topic = "bench.echo"
    admin = administrator(kafka)
    for future in admin.create_topics([NewTopic(topic, 1, 1)]).values():
        future.result()
    reader = consumer(kafka, "bench-echo", fetch_wait_max_ms=10)
    reader.assign([TopicPartition(topic, 0, OFFSET_END)])
    reader.consume(1, 1.0)
    plain, careful = producer(kafka, linger_ms=0), producer(kafka, "bench-echo", linger_ms=0)
    careful.init_transactions(30)

    def once(write: Producer, within: bool) -> float:
        began = time.perf_counter()
        if within:
            write.begin_transaction()
        write.produce(topic, b"x" * 300, b"k")
        write.commit_transaction(30) if within else write.poll(0)
        while (message := reader.poll(0.05)) is None or message.error() is not None:
            write.poll(0)
        return (time.perf_counter() - began) * 1000

    times = [[once(write, within) for _ in range(count + WARM)][WARM:] for write, within in ((plain, False), (careful, True))]
    reader.close()
    return times[0], times[1]


def _percentile(times: Sequence[float], percent: int) -> float:
    ordered = sorted(times)
    return round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 1)
