"""DSNs of the store."""

from __future__ import annotations

import pytest

from connectors.clickhouse.store import Target, open_store, parse_dsn


@pytest.mark.parametrize(
    ("dsn", "target"),
    [
        ("chdb:///var/lib/mdh", Target(path="/var/lib/mdh")),
        ("chdb:///with%20space/x", Target(path="/with space/x")),
        ("clickhouse://h", Target(host="h", port=8123)),
        (
            "clickhouse://u:p%40ss@h:9000/meters?cluster=main",
            Target(host="h", port=9000, user="u", password="p@ss", database="meters", cluster="main"),
        ),
        ("https://h/", Target(host="h", port=8443, secure=True)),
        ("clickhouse://h?secure=1", Target(host="h", port=8443, secure=True)),
    ],
)
def test_dsn(dsn: str, target: Target) -> None:
    assert parse_dsn(dsn) == target


@pytest.mark.parametrize(
    ("dsn", "names"),
    [
        ("", "chdb:///folder"),
        ("chdb://", "no folder"),
        ("chdb://memory", "no folder"),
        ("postgres://h", "postgres"),
        ("clickhouse:///db", "no host"),
        ("clickhouse://h?shard=1", "shard"),
        ("clickhouse://h/a'b", "database"),
        ("clickhouse://h/db?cluster=x'--", "cluster"),
    ],
)
def test_bad_dsn_says_what_is_wrong(dsn: str, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        parse_dsn(dsn)


def test_the_password_is_never_shown() -> None:
    target = parse_dsn("clickhouse://user:hush@host/db")
    assert "hush" not in repr(target)
    assert "hush" not in str(target)
    with pytest.raises(ValueError, match="options") as failure:
        parse_dsn("clickhouse://user:hush@host/db?x=1")
    assert "hush" not in str(failure.value)


def test_opening_does_not_connect() -> None:
    open_store("clickhouse://nowhere.invalid/db").close()
