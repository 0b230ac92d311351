"""What is generated from topology.yaml, the schemas and the metrics: right, and not stale."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
import yaml

from schemas import metrics
from schemas.topology import documents, load_topology
from schemas.topology.reference import reference

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
        ("topology-reference.md", "mdh topology show --reference", reference()),
    ],
)
def test_committed_documents_are_not_stale(file: str, command: str, text: str) -> None:
    assert (ROOT / "docs" / file).read_text() == text, f"write it anew: .venv/bin/{command} > docs/{file}"


def test_the_reference_lists_every_setting_of_every_section() -> None:
    page = reference()
    for section in ("## Top", "## `topics.*`", "## `vee.groups.*.rules[]`: interval-spike", "## `profiles.*`"):
        assert page.count(f"{section}\n") == 1
    assert "| `to` | `24:00` |" in page
    assert "| `floor` | `1` |" in page
    assert "| `lateness` | `1d` |" in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert {line.count(" | ") for line in rows} == {2}


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
    for target in found:
        at = document
        for part in target.removeprefix("#/").split("/"):
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


def examples() -> list[dict[str, object]]:
    text = (ROOT / "docs" / "topology.md").read_text()
    return [yaml.load(part.split("```")[0], Loader=yaml.BaseLoader) for part in text.split("```yaml\n")[1:]]


@pytest.mark.parametrize("example", examples(), ids=lambda example: next(iter(example)))
def test_every_example_of_the_page_is_valid_in_the_committed_topology(example: dict[str, object]) -> None:
    from schemas.topology import parse_topology

    text = (ROOT / "topology.yaml").read_text()
    ((name, section),) = example.items()
    blocks = (ROOT / "docs" / "topology.md").read_text().split("```yaml\n")[1:]
    written = next(block.split("```")[0] for block in blocks if block.startswith(f"{name}:"))
    lines = text.splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{name}:"))
    end = next((i for i in range(start + 1, len(lines)) if lines[i][0] not in " #\n"), len(lines))
    body = written if name != "topics" else "".join(lines[start:end]) + written.removeprefix("topics:\n")
    topology = parse_topology("".join(lines[:start]) + body + "".join(lines[end:]))
    assert getattr(topology, name) != getattr(TOPOLOGY, name)
    assert section


def test_the_example_map_says_what_the_page_says() -> None:
    from datetime import date

    from schemas.topology.tou import DeterminantsSettings

    example = next(e for e in examples() if "determinants" in e)["determinants"]
    assert isinstance(example, dict)
    example["assign"][1]["map"] = None
    settings = DeterminantsSettings.model_validate(example)
    chosen = settings.maps_of("kWh", "delivered", "1", "A")[0][1]
    assert chosen is not None
    newer = chosen.version_of(date(2026, 7, 1))
    assert newer is not None
    assert [w.period for w in newer.windows_of(date(2026, 7, 6))] == ["peak"]
    assert newer.windows_of(date(2026, 12, 24)) == ()
    assert settings.billing.cycles_of("B-7") == [(None, 15), (date(2027, 1, 1), 10)]
