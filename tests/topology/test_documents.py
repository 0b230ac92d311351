"""What is generated from topology.yaml, the schemas and the metrics: right, and not stale."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
import yaml

from schemas import metrics
from schemas.topology import documents, load_topology

ROOT = Path(__file__).resolve().parent.parent.parent
TOPOLOGY = load_topology(ROOT / "topology.yaml")


@pytest.mark.parametrize(
    ("file", "command", "text"),
    [
        ("topics.md", "mdh topology show --docs", documents.page(TOPOLOGY)),
        (
            "asyncapi.yaml",
            "mdh topology show --asyncapi",
            documents.asyncapi(TOPOLOGY, documents.committed_schemas(), importlib.metadata.version("meter-data-hub")),
        ),
        ("metrics.md", "mdh schemas metrics", metrics.document()),
    ],
)
def test_committed_documents_are_not_stale(file: str, command: str, text: str) -> None:
    assert (ROOT / "docs" / file).read_text() == text, f"write it anew: .venv/bin/{command} > docs/{file}"


def test_the_page_names_every_topic_agent_and_party_once_in_its_table() -> None:
    lines = documents.page(TOPOLOGY).splitlines()
    for name in TOPOLOGY.topics:
        assert sum(line.startswith(f"| `{name}` |") for line in lines) == 1
    for name in (*TOPOLOGY.agents, *TOPOLOGY.parties):
        assert sum(line.startswith(f"| {name} |") for line in lines) == 1
    widths = {line.count(" | ") for line in lines if line.startswith("| `")}
    assert len(widths) == 1


def test_asyncapi_describes_topics_in_use_and_only_refers_to_what_is_there() -> None:
    document = yaml.safe_load(documents.asyncapi(TOPOLOGY, documents.committed_schemas(), "9.9.9"))
    used = {name for name, topic in TOPOLOGY.topics.items() if topic.records}
    assert set(document["channels"]) == used
    assert document["info"]["version"] == "9.9.9"

    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [r for item in value.values() for r in references(item)]
        return [r for item in value for r in references(item)] if isinstance(value, list) else []

    found = references(document)
    assert found
    for reference in found:
        at = document
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]
    for name, channel in document["channels"].items():
        kafka = channel["bindings"]["kafka"]
        assert (kafka["topic"], kafka["partitions"]) == (name, TOPOLOGY.topics[name].partitions)
    assert document["components"]["messages"]["Tick"]["payload"]["schema"] == documents.committed_schemas()["Tick"]


def test_rights_are_what_the_topology_says_and_no_more() -> None:
    rights = documents.rights(TOPOLOGY)
    assert len(set(rights)) == len(rights)
    topic = {(r.principal, r.operation, r.name) for r in rights if r.resource == "topic"}
    assert ("User:mdh-gateway", "Write", "hes.reads") in topic
    assert ("User:mdh-gateway", "Read", "hes.reads") not in topic
    assert ("User:mdh-billing", "Read", "billing.determinants") in topic
    assert {who for who, operation, name in topic if operation == "Write" and name == "vee.inbox"} == {"User:mdh-worker"}
    assert {who for who, operation, name in topic if name == "vee.state"} == {"User:mdh-worker"}
    assert not any(operation in ("All", "Alter", "Delete", "Create") for _, operation, _ in topic)
    assert {r.principal for r in rights if r.resource == "transactional-id"} == {"User:mdh-worker"}
    assert not [r for r in rights if r.resource == "group" and r.principal == "User:mdh-clock"], "the clock reads nothing"


def test_rights_as_commands() -> None:
    lines = documents.acls(TOPOLOGY).splitlines()
    assert "kafka-acls --add --allow-principal User:mdh-clock --operation Write --topic hub.ticks" in lines
    group = "kafka-acls --add --allow-principal User:mdh-sink --operation Read --group mdh.sink --resource-pattern-type prefixed"
    assert group in lines
