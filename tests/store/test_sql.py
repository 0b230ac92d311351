"""SQL from outside: what it gets, and everything it must not get."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.clickhouse import rows
from connectors.clickhouse.query import Limits, SqlError, check_sql, run_readonly
from connectors.clickhouse.store import Store, StoreError
from connectors.head_end.reading import StoreReader
from tests.store.conftest import emptied, finals


@pytest.fixture
def store(module_store: Store) -> Store:
    return module_store


def ask(store: Store, sql: str, limits: Limits | None = None) -> list[dict[str, object]]:
    return [json.loads(line) for line in b"".join(run_readonly(store, sql, limits)).splitlines()]


def test_rows_are_ndjson_with_exact_values(store: Store) -> None:
    emptied(store)
    data = rows.final_days([finals([{"values": [1_234_567, -5_000_000], "version": 2**53 + 1}])])
    assert data is not None
    store.insert_arrow("final_days", data)
    assert ask(store, "SELECT device, start, value, condition, version FROM intervals ORDER BY start;") == [
        {"device": "M1", "start": "2024-03-18T00:00:00Z", "value": "1.234567", "condition": 500_000, "version": 2**53 + 1},
        {"device": "M1", "start": "2024-03-18T00:30:00Z", "value": "-5", "condition": 500_000, "version": 2**53 + 1},
    ]
    assert ask(store, "SELECT sum(value) AS s, CAST(NULL AS Nullable(Int8)) AS n, [1, 2] AS a, 'a/b' AS t FROM intervals") == [
        {"s": "-3.765433", "n": None, "a": [1, 2], "t": "a/b"}
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "  select 1 ; ",
        "WITH x AS (SELECT 1 AS a) SELECT a FROM x",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "SELECT ';', 'it''s', 'back\\'slash', `a b`, \"c\" FROM (SELECT 1 AS `a b`, 2 AS c)",
        "-- a note\nSELECT /* between */ 1 -- behind\n",
        "SHOW TABLES",
        "DESCRIBE intervals",
        "DESC TABLE intervals",
        "EXPLAIN SELECT * FROM intervals",
        "EXISTS TABLE intervals",
        "SELECT count() FROM numbers(10)",
        "SELECT format('{} {}', 'a', 'b')",
        "SELECT file FROM (SELECT 1 AS file)",
        "SELECT name FROM system.columns LIMIT 1",
        "SELECT name FROM system . tables LIMIT 1",
    ],
)
def test_reading_is_allowed(store: Store, sql: str) -> None:
    ask(store, sql)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text("hush\n")
    return path


ATTACKS = [
    # writes, definitions, settings
    "INSERT INTO receipts (id) VALUES ('x')",
    "DROP TABLE final_days",
    "CREATE TABLE x (a Int8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE x (a Int8)",
    "ALTER TABLE final_days DELETE WHERE 1",
    "DELETE FROM final_days WHERE 1",
    "TRUNCATE TABLE final_days",
    "OPTIMIZE TABLE final_days",
    "DETACH TABLE final_days",
    "RENAME TABLE final_days TO x",
    "SET readonly = 0",
    "USE system",
    "SYSTEM SHUTDOWN",
    "SYSTEM FLUSH LOGS",
    "KILL QUERY WHERE 1",
    "GRANT SELECT ON *.* TO default",
    "BACKUP TABLE final_days TO File('x')",
    "CHECK TABLE final_days",
    "EXPLAIN INSERT INTO receipts (id) SELECT 'x'",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "SELECT * FROM (SELECT 1 SETTINGS max_memory_usage = 0)",
    # more than one statement
    "SELECT 1; DROP TABLE final_days",
    "SELECT 1; SET readonly = 0; DROP TABLE final_days",
    "SELECT 1) ; DROP TABLE final_days; SELECT (1",
    # files
    "SELECT * FROM file('{secret}', 'LineAsString')",
    "SELECT file('{secret}')",
    "SELECT `file`('{secret}')",
    'SELECT "file"(\'{secret}\')',
    "SELECT FILE /* */ ('{secret}')",
    "SELECT `fi\\le`('{secret}')",
    "SELECT file\n-- (\n('{secret}')",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM `{secret}`",
    "SELECT 1 INTO OUTFILE '{secret}'",
    "SELECT 1 INTO/**/OUTFILE '{secret}' TRUNCATE",
    "INSERT INTO FUNCTION file('{secret}', 'CSV', 'a Int8') SELECT 1",
    "SELECT * FROM executable('cat', 'LineAsString', 'a String')",
    "SELECT * FROM sqlite('{secret}', 't')",
    "SELECT * FROM fileCluster('default', '{secret}')",
    "SELECT * FROM filesystem('/')",
    # other machines
    "SELECT * FROM url('http://127.0.0.1:9/', 'CSV', 'a String')",
    "SELECT * FROM s3('http://127.0.0.1:9/bucket/key', 'CSV')",
    "SELECT * FROM remote('127.0.0.1', 'system.one')",
    "SELECT * FROM mysql('127.0.0.1:9', 'a', 'b', 'c', 'd')",
    "SELECT aiGenerate('x', 'y')",
    # the process around the engine
    "SELECT * FROM Python(store)",
    "SELECT * FROM python(store)",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT sleep(1)",
    # other people and the machine
    "SELECT * FROM system.processes",
    "SELECT * FROM system.query_log",
    "SELECT * FROM `system`.`users`",
    "SELECT * FROM system . \"server_settings\"",
    "SELECT * FROM merge('system', 'users')",
    # places where readings of SQL differ
    "SELECT $a$'$a$, file('{secret}'), $b$'$b$",
    "SELECT “'”, file('{secret}'), “'”",
    "SELECT x'\\', file('{secret}'), x'\\'",
    "SELECT 1 # '\n, file('{secret}') -- '",
    "SELECT 1 /* /* */ ' */ , file('{secret}') -- '",
    "SELECT 1 — '\n, file('{secret}') -- '",
    "SELECT 'open, file('{secret}')",
    "SELECT 1\0, file('{secret}')",
    "",
    " ;; ",
    "-- nothing",
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_everything_else_is_refused_in_one_line(store: Store, secret: Path, attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(secret.parent)
    before = store.query_arrow("SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase() ORDER BY name")
    files = sorted(path.name for path in secret.parent.iterdir())
    with pytest.raises(SqlError) as refusal:
        ask(store, attack.replace("{secret}", str(secret)))
    assert "hush" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "Traceback" not in str(refusal.value)
    assert secret.read_text() == "hush\n"
    assert sorted(path.name for path in secret.parent.iterdir()) == files
    after = store.query_arrow("SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase() ORDER BY name")
    assert after.equals(before)
    assert ask(store, "SELECT value FROM system.settings WHERE name = 'readonly'") == [{"value": "1"}]


def test_the_engine_itself_refuses_writes_where_our_reading_fails(store: Store) -> None:
    emptied(store)
    # Behind the first fence: the same statements given straight to a client for foreign SQL
    for sql in (
        "INSERT INTO receipts (id) SELECT 'x'",
        "DROP TABLE final_days",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:9/', 'CSV', 'a String')",
    ):
        with pytest.raises(StoreError, match=r"readonly|READONLY"):
            store.query_json(sql, Limits())
    store.insert_arrow("final_days", rows.final_days([finals([{"values": [1]}])]))  # type: ignore[arg-type]
    assert ask(store, "SELECT count() AS n FROM intervals") == [{"n": 1}]


def test_limits(store: Store) -> None:
    assert len(ask(store, "SELECT number FROM numbers(100)", Limits(rows=100))) == 100
    with pytest.raises(SqlError, match="more than 100 rows"):
        ask(store, "SELECT number FROM numbers(101)", Limits(rows=100))
    with pytest.raises(SqlError, match="longer than 1 s"):
        ask(store, "SELECT sum(sipHash64(number)) FROM numbers(100000000000)", Limits(seconds=1))
    with pytest.raises(SqlError, match=r"(?i)memory"):
        ask(store, "SELECT groupArray(number) FROM numbers(100000000)", Limits(memory=20_000_000))


def test_messages_are_those_of_the_engine_in_one_line(store: Store) -> None:
    with pytest.raises(SqlError) as error:
        ask(store, "SELECT nonsense FROM intervals")
    assert "nonsense" in str(error.value)
    assert "DB::Exception" not in str(error.value)
    with pytest.raises(SqlError, match="FORMAT"):
        ask(store, "SELECT 1 FORMAT CSV")


def test_many_rows_come_in_chunks_of_whole_lines(store: Store) -> None:
    pieces = list(run_readonly(store, "SELECT number, repeat('x', 200) AS pad FROM numbers(20000)"))
    assert len(pieces) > 5
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert [json.loads(line)["number"] for line in b"".join(pieces).splitlines()] == list(range(20_000))


def test_hostile_text_is_data(store: Store) -> None:
    emptied(store)
    words = ["=HYPERLINK()", "a'b\"c`d\\e", "nul\0byte", "\u202eright", "${device}", "line\nbreak"]
    data = rows.final_days([finals([{"device": word, "values": [1_000_000 * (i + 1)]} for i, word in enumerate(words)])])
    assert data is not None
    store.insert_arrow("final_days", data)
    assert [row["device"] for row in ask(store, "SELECT device FROM intervals ORDER BY value")] == words
    reader = StoreReader(store, 4)
    for i, word in enumerate(words):
        found = reader.rows("SELECT value FROM intervals WHERE device = {device:String}", {"device": word})
        assert found == [{"value": Decimal(i + 1)}]


def test_the_reader_raises_at_the_first_piece(store: Store) -> None:
    pieces = StoreReader(store, 4).stream("DROP TABLE x")
    with pytest.raises(ValueError, match="DROP"):
        next(pieces)


def failure(store: Store, sql: str) -> StoreError | None:
    try:
        store.query_json(sql, Limits())
    except StoreError as error:
        return error
    return None


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(list("file('x')`\"/*-\n\\ ;$#")), max_size=40))
def test_no_text_around_a_function_hides_it(noise: str) -> None:
    """Whatever stands before it as a whole token sequence, ``file(`` behind it is seen."""
    sql = f"SELECT 1 {noise}"
    try:
        check_sql(sql)
    except SqlError:
        return
    with pytest.raises(SqlError):
        check_sql(f"{sql}\n, file('/etc/passwd')")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from(list("'`\"/*-\n\\ ,1a$#x“é")), max_size=12))
def test_what_we_take_for_a_string_the_engine_takes_for_one(store: Store, noise: str) -> None:
    """Where our reading lets a statement pass, the engine sees a marker inside it exactly where we see one."""
    sql = f"SELECT {noise} marker(1)"
    try:
        check_sql(sql, frozenset({"marker"}))
    except SqlError:
        return
    # We saw no call of marker: then the engine must see none either, or it would complain of an unknown function
    refusal = failure(store, sql)
    assert refusal is None or refusal.code != 46 or "marker" not in str(refusal), sql
