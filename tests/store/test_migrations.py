"""Migrations: what they add up to, that they can be run again, cut off, taken back; and their words for a cluster."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from connectors.clickhouse import migrate
from connectors.clickhouse.migrate import FOLDER, MigrationError
from connectors.clickhouse.query import run_readonly
from connectors.clickhouse.store import Limits, Store, StoreError, open_store
from connectors.clickhouse.tables import TABLES, VIEWS, arrow_schema
from schemas.conditions import RANGES, name_of
from schemas.rules import METHODS

NEXT = len(migrate.load()) + 1


def columns(store: Store) -> dict[str, dict[str, str]]:
    rows = store.query_arrow(
        "SELECT table, name, type FROM system.columns WHERE database = currentDatabase() AND table != 'migrations' "
        "AND default_kind != 'MATERIALIZED' ORDER BY table, position"  # what the store works out itself nobody writes
    )
    found: dict[str, dict[str, str]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["table"], {})[row["name"]] = row["type"]
    return found


def test_the_migrated_schema_is_the_declared_one(store: Store) -> None:
    declared = TABLES | VIEWS
    found = columns(store)
    assert found == declared
    assert {name: list(held) for name, held in found.items()} == {name: list(held) for name, held in declared.items()}


def test_every_table_is_synced_and_replaced_by_key(store: Store) -> None:
    rows = store.query_arrow(
        "SELECT name, engine, create_table_query AS ddl FROM system.tables WHERE database = currentDatabase() AND engine != 'View'"
    )
    for row in rows.to_pylist():
        assert row["engine"] == "ReplacingMergeTree", row["name"]
        if row["name"] != "migrations":
            assert "fsync_after_insert = 1" in row["ddl"], row["name"]


def test_the_partition_of_a_row_is_a_function_of_its_key(store: Store) -> None:
    # Copies of a row in two partitions would never be merged, and the views do not look across partitions
    rows = store.query_arrow(
        "SELECT name, partition_key, sorting_key FROM system.tables WHERE database = currentDatabase() AND partition_key != ''"
    )
    assert rows.num_rows >= 5
    for row in rows.to_pylist():
        column = row["partition_key"].partition("(")[2].rstrip(")")
        assert column in row["sorting_key"].split(", "), row


def test_again_changes_nothing(store: Store) -> None:
    assert migrate.up(store) == []
    assert all(step.applied for step in migrate.status(store))


def test_dry_run_changes_nothing_and_tells_what_would_run(bare_store: Store) -> None:
    statements = migrate.up(bare_store, dry_run=True)
    assert any(s.startswith("CREATE TABLE IF NOT EXISTS final_days") for s in statements)
    assert columns(bare_store) == {}
    assert not any(step.applied for step in migrate.status(bare_store))
    assert migrate.up(bare_store) == statements


def test_down_and_up_again(store: Store) -> None:
    dry = migrate.down(store, 0, dry_run=True)
    assert columns(store) == TABLES | VIEWS
    assert migrate.down(store, 0) == dry
    assert columns(store) == {}
    migrate.up(store, 1)
    assert {"final_days", "receipts"} <= columns(store).keys() < TABLES.keys()
    assert [step.applied for step in migrate.status(store)] == [True] + [False] * (len(migrate.load()) - 1)
    migrate.up(store)
    assert columns(store) == TABLES | VIEWS


def test_data_and_status_survive_a_restart(store: Store, tmp_path: Path) -> None:
    store.command("INSERT INTO sink_positions VALUES ('s', 't', 1, 7)")
    store.close()
    again = open_store(f"chdb://{tmp_path}/store")
    try:
        assert migrate.up(again) == []
        assert again.query_arrow("SELECT offset FROM sink_positions")["offset"].to_pylist() == [7]
    finally:
        again.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The migrations, with one more that may be edited."""
    copy = tmp_path / "migrations"
    shutil.copytree(FOLDER, copy)
    (copy / f"{NEXT:04}_more.sql").write_text(
        "\n-- forward\n\nCREATE TABLE IF NOT EXISTS one /*cluster*/ (a Int8) ENGINE = MergeTree ORDER BY a;\n"
        "CREATE TABLE IF NOT EXISTS two /*cluster*/ (a Int8) ENGINE = MergeTree ORDER BY no_such_column;\n"
        "\n-- backward\n\nDROP TABLE IF EXISTS two /*cluster*/ SYNC;\nDROP TABLE IF EXISTS one /*cluster*/ SYNC;\n"
    )
    return copy


def test_a_migration_cut_off_half_way_is_run_anew(bare_store: Store, folder: Path) -> None:
    with pytest.raises(StoreError, match="no_such_column"):
        migrate.up(bare_store, folder=folder)
    assert [step.applied for step in migrate.status(bare_store, folder)] == [*[True] * (NEXT - 1), False]
    path = folder / f"{NEXT:04}_more.sql"
    path.write_text(path.read_text().replace("no_such_column", "a"))
    assert len(migrate.up(bare_store, folder=folder)) == 2
    assert {"one", "two"} <= set(columns(bare_store))


def test_an_applied_migration_must_not_change(bare_store: Store, folder: Path) -> None:
    (folder / f"{NEXT:04}_more.sql").unlink()
    migrate.up(bare_store, folder=folder)
    path = folder / "0002_views.sql"
    path.write_text(path.read_text() + "\n-- a word more\n")
    with pytest.raises(MigrationError, match="0002_views"):
        migrate.up(bare_store, folder=folder)


def test_an_older_hub_refuses_a_newer_store(bare_store: Store, folder: Path) -> None:
    path = folder / f"{NEXT:04}_more.sql"
    path.write_text(path.read_text().replace("no_such_column", "a"))
    migrate.up(bare_store, folder=folder)
    with pytest.raises(MigrationError, match="newer"):
        migrate.up(bare_store)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [(f"{NEXT + 1:04}_gap.sql", "", f"{NEXT:04}"), ("x.sql", "", f"{NEXT:04}"), (f"{NEXT:04}_x.sql", "SELECT 1", "forward")],
)
def test_migrations_are_numbered_and_have_two_parts(tmp_path: Path, name: str, text: str, says: str) -> None:
    copy = tmp_path / "m"
    shutil.copytree(FOLDER, copy)
    (copy / name).write_text(text)
    with pytest.raises(MigrationError, match=says):
        migrate.load(copy)


def test_words_for_a_cluster() -> None:
    for migration in migrate.load():
        for statement in (*migration.forward, *migration.backward):
            single, cluster = migrate.render(statement, "meters", ""), migrate.render(statement, "meters", "main")
            assert "/*" not in single + cluster
            assert "Replicated" not in single
            assert cluster.count("ON CLUSTER 'main'") == 1
            if statement.startswith("CREATE TABLE"):
                table = statement.split()[5]
                assert f"Replicated{'ReplacingMergeTree'}('/clickhouse/tables/{{shard}}/meters/{table}', '{{replica}}'" in cluster
    versioned = next(s for s in migrate.load()[0].forward if "final_days" in s)
    assert "'{replica}', version)" in migrate.render(versioned, "meters", "main")


def test_the_engine_accepts_the_grammar_of_the_cluster_form(bare_store: Store) -> None:
    # Nothing here can run ON CLUSTER; the engine's own parser still reads every statement
    for migration in migrate.load():
        for statement in (*migration.forward, *migration.backward):
            text = migrate.render(statement, "meters", "main")
            rows = bare_store.query_arrow("SELECT formatQuery({q:String}) AS q", {"q": text})
            assert "ON CLUSTER main" in rows["q"][0].as_py().replace("`", "")


def test_names_in_the_views_are_those_of_the_contracts(store: Store) -> None:
    numbers = ", ".join(str(i) for i in range(len(METHODS)))
    codes = sorted({*(band.bottom for band in RANGES), *(band.top for band in RANGES)})
    store.command(
        f"INSERT INTO register_reads (device, at, condition, method) "
        f"SELECT 'm', toDateTime(arrayJoin([{numbers}])) AS at, 500000, toUInt32(at)"
    )
    store.command(f"INSERT INTO register_reads (device, at, condition) SELECT 'c', toDateTime(c), arrayJoin({codes}) AS c")
    methods = store.query_arrow("SELECT method FROM registers WHERE device = 'm' ORDER BY at")["method"].to_pylist()
    assert methods == list(METHODS)
    named = store.query_arrow("SELECT condition, condition_name FROM registers WHERE device = 'c'").to_pylist()
    assert {row["condition"]: row["condition_name"] for row in named} == {code: name_of(code) for code in codes}


def test_tables_of_single_records_have_an_arrow_form() -> None:
    for table in set(TABLES) - {"final_days", "determinant_days"}:
        assert arrow_schema(table).names == list(TABLES[table])


def test_a_closed_store_is_away_not_a_bad_query(store: Store) -> None:
    assert b"".join(run_readonly(store, "SELECT 1 AS a")) == b'{"a":1}\n'
    store.close()
    with pytest.raises(StoreError) as error:
        run_readonly(store, "SELECT 1 AS a")
    assert error.value.away


def test_the_page_of_tables_names_every_column_of_the_views_and_every_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
    sections = {part.split("\n")[0].strip(): part for part in page.split("\n## ")}
    for view, held in VIEWS.items():
        assert [name for name in held if f"`{name}`" not in sections[view]] == [], view
    for table in TABLES:
        assert f"`{table}`" in sections["Behind the views"]
    limits = Limits()
    assert f"{limits.seconds} s, {limits.rows:,} rows, {limits.bytes // 2**20} MiB of result, {limits.memory // 2**30} GiB" in " ".join(
        page.split()
    )
