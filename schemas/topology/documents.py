"""What is generated from the topology: the page of topics, the AsyncAPI description, the access rights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from schemas.topology.base import FOREVER, duration_text
from schemas.topology.root import Topology
from schemas.topology.topics import RAW, Topic

NOTE = "Made from topology.yaml by `mdh topology show"


def page(topology: Topology) -> str:
    """All topics, agents and parties as Markdown (docs/topics.md)."""
    lines = ["# Topics", "", f"{NOTE} --docs`; change it there.", "", "```mermaid", "flowchart LR", *_chart(topology), "```", ""]
    lines += ["| topic | what is in it | key | records | writers → readers | partitions | kept |", "|---|---|---|---|---|---|---|"]
    for name, topic in topology.topics.items():
        records = ", ".join(topic.records) or "reserved"
        flow = f"{', '.join(topic.writers)} → {', '.join(topic.readers)}"
        stored = "; stored" if topic.stored else ""
        lines.append(f"| `{name}` | {topic.about}{stored} | {topic.key} | {records} | {flow} | {topic.partitions} | {kept(topic)} |")
    lines += ["", "## Agents", "", "| agent | what it does | reads | writes | state | dead letters |", "|---|---|---|---|---|---|"]
    for name, agent in topology.agents.items():
        reads, writes = (", ".join(f"`{t}`" for t in topics) for topics in (agent.reads, agent.outputs))
        lines.append(f"| {name} | {agent.about} | {reads} | {writes} | `{agent.state}` | `{agent.dead}` |")
    lines += ["", "## Parties", "", "Who else writes or reads topics.", "", "| party | who it is |", "|---|---|"]
    lines += [f"| {name} | {about} |" for name, about in topology.parties.items()]
    return "\n".join(lines) + "\n"


def kept(topic: Topic) -> str:
    """How long records stay, in words."""
    if topic.cleanup == "compact":
        return "last per key"
    return "forever" if topic.retention == FOREVER else duration_text(topic.retention)


def _chart(topology: Topology) -> Iterator[str]:
    """The flow of the topics that agents read and the store keeps, as Mermaid lines."""
    agents = topology.agents
    seen: set[tuple[str, str]] = set()
    for name in agents:
        yield f"  {_id(name)}(({name}))"
    for name, topic in topology.topics.items():
        if not topic.records or name in {agent.state for agent in agents.values()} or name.endswith(".dlq"):
            continue
        outside = [who for who in topic.writers if who not in agents]
        for writer in [who for who in topic.writers if who in agents] or outside:
            yield f"  {_id(writer)} --> {_id(name)}[{name}]"
        for reader in [who for who in topic.readers if who in agents or (topic.stored and who == "sink")]:
            if (name, reader) not in seen:
                seen.add((name, reader))
                yield f"  {_id(name)} --> {_id(reader)}"


def _id(name: str) -> str:
    return name.replace(".", "_").replace("-", "_")


def asyncapi(topology: Topology, schemas: dict[str, Any], version: str) -> str:
    """The AsyncAPI 3.0 description of all topics in use (docs/asyncapi.yaml). ``schemas`` are Avro schemas by record type."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for name, topic in topology.topics.items():
        if not topic.records:
            continue
        records = [record.capitalize() if record == RAW else record for record in topic.records]
        channels[name] = {
            "address": name,
            "description": f"{topic.about}. Key: {topic.key}.",
            "messages": {record: {"$ref": f"#/components/messages/{record}"} for record in records},
            "bindings": {"kafka": _binding(name, topic)},
        }
        inside = set(topology.agents)
        for action, ours, others in (("send", topic.writers, topic.readers), ("receive", topic.readers, topic.writers)):
            if inside & set(ours):
                operations[f"{action}-{name}"] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{name}"},
                    "summary": f"{', '.join(w for w in ours if w in inside)}: {'to' if action == 'send' else 'from'} {', '.join(others)}",
                }
    used = sorted({record for topic in topology.topics.values() for record in topic.records if record != RAW})
    messages = {name: _message(name, schemas[name]) for name in used}
    messages["Raw"] = {"name": "Raw", "title": "Bytes as they came", "contentType": "application/octet-stream"}
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Meter Data Hub",
            "version": version,
            "description": f"Topics of the hub, from the hub's point of view. {NOTE} --asyncapi`.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/vnd.apache.avro",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140)
    return text


class _Dumper(yaml.SafeDumper):
    """Writes equal parts out each time instead of by reference."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _binding(name: str, topic: Topic) -> dict[str, Any]:
    config: dict[str, Any] = {"cleanup.policy": [topic.cleanup]}
    if topic.cleanup == "delete":
        config["retention.ms"] = int(topic.kafka_config()["retention.ms"])
    if "max.message.bytes" in topic.config:
        config["max.message.bytes"] = int(topic.config["max.message.bytes"])
    return {
        "topic": name,
        "partitions": topic.partitions,
        "replicas": topic.replication,
        "topicConfiguration": config,
        "bindingVersion": "0.5.0",
    }


def _message(name: str, schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "title": name,
        "summary": schema.get("doc", name),
        "payload": {"schemaFormat": "application/vnd.apache.avro+json;version=1.9.0", "schema": schema},
        "bindings": {"kafka": {"schemaIdLocation": "payload", "schemaIdPayloadEncoding": "confluent", "bindingVersion": "0.5.0"}},
    }


@dataclass(frozen=True, slots=True)
class Right:
    """One access right: who may do what to which resource. ``prefixed`` rights hold for all names that begin so."""

    principal: str
    operation: str
    resource: str  # topic, group or transactional-id
    name: str
    prefixed: bool = False

    def command(self) -> str:
        """As arguments of Kafka's own tool."""
        pattern = " --resource-pattern-type prefixed" if self.prefixed else ""
        return f"kafka-acls --add --allow-principal {self.principal} --operation {self.operation} --{self.resource} {self.name}{pattern}"


def rights(topology: Topology) -> list[Right]:
    """What each principal needs and no more. The agents share ``<name>-worker``, because one process runs them all."""
    found: dict[Right, None] = {}
    worker = f"User:{topology.name}-worker"

    def principal(who: str) -> str:
        return worker if who in topology.agents else f"User:{topology.name}-{who}"

    for name, topic in topology.topics.items():
        for who in topic.writers:
            found |= dict.fromkeys(Right(principal(who), operation, "topic", name) for operation in ("Write", "Describe"))
        for who in topic.readers:
            found |= dict.fromkeys(Right(principal(who), operation, "topic", name) for operation in ("Read", "Describe"))
    for group in (f"{topology.name}.", f"{topology.name}-"):
        found[Right(worker, "Read", "group", group, prefixed=True)] = None
    for operation in ("Write", "Describe"):
        found[Right(worker, operation, "transactional-id", f"{topology.name}-", prefixed=True)] = None
    readers = {who for topic in topology.topics.values() for who in topic.readers if who not in topology.agents}
    for who in topology.parties:
        if who in readers:
            found[Right(principal(who), "Read", "group", topology.group(who), prefixed=True)] = None
    return list(found)


def acls(topology: Topology) -> str:
    """The access rights as commands of Kafka's own tool."""
    return "\n".join(right.command() for right in rights(topology)) + "\n"


def acls_json(topology: Topology) -> str:
    """The access rights as a JSON list."""
    return json.dumps([asdict(right) for right in rights(topology)], indent=2)


def committed_schemas() -> dict[str, Any]:
    """The current schema of every record type."""
    folder = Path(__file__).parent.parent / "avro"
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.avsc"))}
