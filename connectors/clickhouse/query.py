"""Questions to the store: SQL from outside, kept away from everything it has no business with, and what became of payloads.

Three fences around foreign SQL: the engine's ``readonly`` with limits (refuses writes, DDL, settings, and reading files or URLs as
tables); this module, which refuses what that mode lets through in an engine inside our process (the file function, INTO OUTFILE,
Python objects, functions that call other machines); and clients that nothing else uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from connectors.clickhouse.store import Limits, Store, StoreError

__all__ = ["Limits", "SqlError", "check_sql", "run_readonly", "settled", "settled_tick", "stored_parts", "ticks_settled"]

CHUNK: Final = 1 << 18
_STATEMENTS: Final = frozenset({"select", "with", "show", "describe", "desc", "explain", "exists", "("})
# Table functions that reach nothing but their arguments
_HARMLESS: Final = frozenset(
    {"numbers", "numbers_mt", "zeros", "zeros_mt", "values", "view", "null", "generate_series", "generateseries", "format", "primes"}
)
# Beyond the engine's own list of table functions: scalar functions that leave the engine
_FOREIGN: Final = frozenset({"file", "python", "catboostevaluate", "sleep", "sleepeachrow", "eval", "executable"})
_SYSTEM: Final = frozenset(
    {"tables", "columns", "parts", "parts_columns", "databases", "functions", "settings", "metrics", "events", "merges", "one",
     "numbers", "numbers_mt", "zeros", "time_zones", "asynchronous_metrics"}
)  # fmt: skip
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|--[^\n]*)
      | (?P<comment>/\*(?:[^*/]|\*(?!/)|/(?!\*))*\*/)
      | (?P<text>'(?:[^'\\]|\\.|'')*')
      | (?P<name>`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*")
      | (?P<word>[A-Za-z_0-9]+)
      | (?P<sign>[-+*/%=<>!,.;:?|&^~@()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_LABELS: Final = {"text": "a string", "name": "a name"}


class SqlError(ValueError):
    """SQL that is refused or fails, in one line."""


def check_sql(sql: str, forbidden: frozenset[str] = frozenset()) -> str:
    """The statement without a closing semicolon. Raises SqlError unless it is one that only reads, from this store alone.

    ``forbidden`` are names of functions in lower case, beside those forbidden always. Where this reading of SQL could differ from the
    engine's (dollar quotes, typographic quotes, # comments), the statement is refused rather than guessed.
    """
    sql = sql.strip().rstrip(";").rstrip()
    tokens = list(_tokens(sql))
    if not tokens:
        raise SqlError("there is no statement")
    if tokens[0][1] not in _STATEMENTS:
        raise SqlError(f"only statements that read are taken (SELECT, WITH, SHOW, DESCRIBE, EXPLAIN), not {tokens[0][1].upper()[:40]}")
    banned = (forbidden | _FOREIGN) - _HARMLESS
    for i, (kind, token) in enumerate(tokens):
        after = tokens[i + 1][1] if i + 1 < len(tokens) else ""
        if kind == "text":
            continue
        if token == ";":
            raise SqlError("one statement at a time")
        if token == "into" and after == "outfile":
            raise SqlError("INTO OUTFILE is not taken: rows go to the caller")
        if token == "settings" and i + 2 < len(tokens) and tokens[i + 2][1] == "=":
            raise SqlError("SETTINGS are not taken")  # the engine's readonly does not look into subqueries
        if after == "(" and (token in banned or (token.startswith("ai") and token in forbidden)):
            raise SqlError(f"function {token} is not available here")
        if token in ("system", "information_schema") and after == ".":
            name = tokens[i + 2][1] if i + 2 < len(tokens) else ""
            if token == "system" and name not in _SYSTEM:
                raise SqlError(f"system.{name} is not available here")
    if len(tokens) > 2 and tokens[-2] == ("word", "format") and tokens[-1][0] == "word":
        raise SqlError("leave FORMAT out: rows are given as NDJSON")
    return sql


def _tokens(sql: str) -> Iterator[tuple[str, str]]:
    """Kind and lower-cased text of each token (names without their quotes)."""
    at, previous = 0, ""
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        if match is None:
            raise SqlError(f"cannot read {sql[at : at + 20]!r} (position {at + 1})")
        kind, token = match.lastgroup or "", match[0]
        if kind in _LABELS and previous == "word":
            # x'41' and its kin follow other rules of quoting
            raise SqlError(f"a space is missing before {_LABELS[kind]} (position {at + 1})")
        if kind == "name":
            yield kind, re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL).lower()
        elif kind not in ("space", "comment"):
            yield kind, token.lower()
        at, previous = match.end(), kind


def _forbidden(store: Store) -> frozenset[str]:
    """Functions of this engine that make a table out of something outside it, and those that call language models."""
    names = store.query_arrow(
        "SELECT lower(name) AS name FROM system.table_functions "
        "UNION DISTINCT SELECT lower(name) FROM system.functions WHERE match(name, '^(ai|AI)[A-Z]')"
    )
    return frozenset(names["name"].to_pylist())


def run_readonly(store: Store, sql: str, limits: Limits | None = None) -> Iterator[bytes]:
    """NDJSON of a statement from outside, in chunks of whole lines; integers as numbers, decimals as strings, times ISO in UTC.

    Raises SqlError before the first chunk for anything the asker can mend, StoreError where the store is away.
    """
    key = "_forbidden_functions"
    forbidden = store.notes.get(key)
    if forbidden is None:
        forbidden = store.notes[key] = _forbidden(store)
    statement = check_sql(sql, forbidden)
    try:
        rows = store.query_json(statement, limits or Limits())
    except StoreError as error:
        if error.away:
            raise
        raise SqlError(_mend(error, limits or Limits())) from error
    return _chunks(rows)


def _mend(error: StoreError, limits: Limits) -> str:
    if error.code in (158, 396):
        return f"more than {limits.rows} rows or {limits.bytes // 2**20} MiB: add a LIMIT, or ask for sums"
    if error.code == 159:
        return f"took longer than {limits.seconds} s"
    if error.code == 164:
        return "only reading is allowed here, with the settings as they are"
    return str(error)


def _chunks(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = len(data) if len(data) - start <= CHUNK else data.find(b"\n", start + CHUNK) + 1 or len(data)
        yield data[start:end]
        start = end


def settled(store: Store, payload_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What became of payloads: id → status, complete and figures, for those the store has heard of.

    ``complete`` means that all is decided and its effects are in the store: the root is there, every node has as many children as
    it announced, and the tick that publishes what was gathered of it is settled. Also answers for ids of other messages from outside
    (master data), which the view ``payloads`` does not list.
    """
    if not payload_ids:
        return {}
    found = store.query_arrow(_SETTLED, {"ids": list(payload_ids)}).to_pylist()
    _await_ticks(store, found)
    answer = {row["id"]: _status_of(row) for row in found}
    waiting = [id for id in payload_ids if id not in answer]
    if waiting:
        logged = store.query_arrow(
            "SELECT id, any(toString(source)) AS source FROM payload_log WHERE id IN {ids:Array(String)} GROUP BY id", {"ids": waiting}
        )
        blank = {**dict.fromkeys(_FIGURES, 0), "format": "", "reason": "", "status": "received", "complete": False}
        answer |= {row["id"]: {**blank, **row} for row in logged.to_pylist()}
    return answer


# Children may be seen before their parents, so it is not enough to count: each is weighed with the hash of its parent's id
_COMPLETE: Final = "countIf(agent = 'ingest') > 0 AND sum(toUInt64(children) * cityHash64(id)) = sumIf(cityHash64(parent), parent != '')"
_FIGURES: Final = ("rows", "reads", "finals", "exceptions", "parked", "dead")
_SETTLED: Final = f"""
SELECT payload AS id, max(toString(receipts.source)) AS source, max(toString(receipts.format)) AS format, max(receipts.reason) AS reason,
    {_COMPLETE.replace("(id)", "(receipts.id)")} AS complete, toInt64(countIf(agent = 'ingest')) AS entries,
    toInt64(countIf(agent = 'ingest' AND status != '')) AS roots, toInt64(countIf(agent = 'ingest' AND status = 'decoded')) AS decoded,
    toInt64(countIf(agent = 'ingest' AND status = 'dead')) AS refused,
    {", ".join(f"sum(receipts.{name}) AS {name}" for name in _FIGURES if name not in ("rows", "reads"))},
    sumIf(receipts.rows, agent = 'ingest' AND status != '') AS rows, sumIf(receipts.reads, agent = 'ingest' AND status != '') AS reads,
    max(receipts.until) AS until, groupUniqArrayIf(splitByChar('/', receipts.id)[2], receipts.until > 0) AS gathering
FROM receipts FINAL WHERE payload IN {{ids:Array(String)}} GROUP BY payload
"""


_SOON: Final = 120  # seconds behind a time within which a tick has come, unless the hub was down


def _await_ticks(store: Store, found: list[dict[str, Any]]) -> None:
    """Takes ``until`` and ``gathering`` (partitions of VEE) out of rows; those whose tick is not settled there are not complete."""
    waits = [(row, row.pop("until"), row.pop("gathering")) for row in found]
    waits = [(row, until, partitions) for row, until, partitions in waits if until and row["complete"]]
    for last in (max(until for _, until, _ in waits) + _SOON, 1 << 32) if waits else ():
        first = min(until for _, until, _ in waits)
        ticks = store.query_arrow(_TICKS, {"first": first, "last": min(last, (1 << 32) - 1)}).to_pylist()
        waiting = []
        for row, until, partitions in waits:
            publishing = [next((t["complete"] for t in ticks if t["tick"] >= until and t["partition"] == p), None) for p in partitions]
            row["complete"] = all(publishing)
            if None in publishing:
                waiting.append((row, until, partitions))
        if not waiting:
            return
        waits = waiting


_TICKS: Final = f"""
SELECT splitByChar('/', payload)[3] AS partition, toInt64(toUnixTimestamp(any(at))) AS tick, {_COMPLETE} AS complete
FROM tick_receipts FINAL WHERE at BETWEEN toDateTime({{first:UInt32}}) AND toDateTime({{last:UInt32}})
GROUP BY payload HAVING countIf(agent = 'ingest') > 0 ORDER BY tick
"""


def _status_of(row: dict[str, Any]) -> dict[str, Any]:
    entries, roots, decoded, refused = (row.pop(name) for name in ("entries", "roots", "decoded", "refused"))
    complete = bool(row.pop("complete"))
    if roots and not decoded:
        status = "dead" if refused else "duplicate"
    else:
        status = "stored" if complete else "decoded" if entries else "received"
    return {**row, "status": status, "complete": complete}


def settled_tick(store: Store, partitions: int, since: int | None = None) -> int | None:
    """The latest time up to which every partition's ticks, and all they led to, are stored (UTC seconds); None: none yet.

    Looks at the last quarter of an hour first; ``since`` limits it to ticks from then on.
    """
    recent = "(SELECT max(at) - 900 FROM tick_receipts)"
    for bound in (recent, "0") if since is None else ("{since:UInt32}",):
        newest = store.query_arrow(
            f"SELECT partition, max(tick) AS tick FROM ("
            f"SELECT splitByChar('/', payload)[3] AS partition, toInt64(toUnixTimestamp(any(at))) AS tick FROM tick_receipts FINAL "
            f"WHERE at >= toDateTime({bound}) GROUP BY payload HAVING {_COMPLETE}"
            f") GROUP BY partition",
            {} if since is None else {"since": since},
        )
        found: dict[str, int] = dict(zip(newest["partition"].to_pylist(), newest["tick"].to_pylist(), strict=True))
        if all(str(partition) in found for partition in range(partitions)):
            return min(found[str(partition)] for partition in range(partitions))
    return None


def ticks_settled(store: Store, at: int, partitions: int) -> bool:
    """True when, in every partition, a tick of time ``at`` or later and all it led to is stored."""
    return settled_tick(store, partitions, since=at) is not None


def history_asked(store: Store) -> tuple[int | None, bool]:
    """(the latest tick that asked the store for history in UTC seconds or None, whether an answer is still under way).

    A day that waited for history is billed by the first tick after its answer. Looks at the last hour of ticks.
    """
    found = store.query_arrow(
        f"SELECT toInt64(toUnixTimestamp(max(tick))) AS latest, countIf(NOT complete) AS under_way FROM ("
        f"SELECT any(at) AS tick, {_COMPLETE} AS complete FROM tick_receipts FINAL "
        f"WHERE at >= (SELECT max(at) - 3600 FROM tick_receipts) GROUP BY payload HAVING countIf(startsWith(id, 'recall:')) > 0)"
    ).to_pylist()[0]
    return found["latest"] or None, bool(found["under_way"])


def stored_parts(store: Store) -> dict[str, int]:
    """Active parts of each table: hundreds mean that merges do not keep up."""
    rows = store.query_arrow(
        "SELECT table, count() AS parts FROM system.parts WHERE active AND database = {name:String} GROUP BY table",
        {"name": store.database},
    )
    return {row["table"]: row["parts"] for row in rows.to_pylist()}
