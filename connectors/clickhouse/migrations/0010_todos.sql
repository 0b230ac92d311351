-- To-Dos: all as they stand, the live ones apart so that a queue is fast whatever the history, their history, and outcomes of commands.

-- forward

CREATE TABLE IF NOT EXISTS todo_items /*cluster*/
(
    id            String CODEC(ZSTD(1)),
    version       Int64 CODEC(T64, ZSTD(1)),
    type          LowCardinality(String),
    state         LowCardinality(String),
    priority      Int32,
    role          LowCardinality(String),
    user          LowCardinality(String),
    subject       String CODEC(ZSTD(1)),
    device        String CODEC(ZSTD(1)),
    channel       LowCardinality(String),
    service_point String CODEC(ZSTD(1)),
    account       String CODEC(ZSTD(1)),
    payload       String CODEC(ZSTD(1)),
    rule          LowCardinality(String),
    severity      LowCardinality(String),
    count         Int64 CODEC(T64, ZSTD(1)),
    open          Int64 CODEC(T64, ZSTD(1)),
    grouped       Bool,
    first_seen    DateTime('UTC') CODEC(Delta, ZSTD(1)),
    last_seen     DateTime('UTC') CODEC(Delta, ZSTD(1)),
    start         Nullable(DateTime('UTC')),
    end           Nullable(DateTime('UTC')),
    assign_by     Nullable(DateTime('UTC')),
    resolve_by    Nullable(DateTime('UTC')),
    level         Int32,
    detail        String CODEC(ZSTD(1)),
    outcome       LowCardinality(String),
    reason        String CODEC(ZSTD(1)),
    completed_at  Nullable(DateTime('UTC')),
    exceptions    Array(String)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS todo_open /*cluster*/
(
    id            String CODEC(ZSTD(1)),
    version       Int64 CODEC(T64, ZSTD(1)),
    type          LowCardinality(String),
    state         LowCardinality(String),
    priority      Int32,
    role          LowCardinality(String),
    user          LowCardinality(String),
    subject       String CODEC(ZSTD(1)),
    device        String CODEC(ZSTD(1)),
    channel       LowCardinality(String),
    service_point String CODEC(ZSTD(1)),
    account       String CODEC(ZSTD(1)),
    payload       String CODEC(ZSTD(1)),
    rule          LowCardinality(String),
    severity      LowCardinality(String),
    count         Int64 CODEC(T64, ZSTD(1)),
    open          Int64 CODEC(T64, ZSTD(1)),
    grouped       Bool,
    first_seen    DateTime('UTC') CODEC(Delta, ZSTD(1)),
    last_seen     DateTime('UTC') CODEC(Delta, ZSTD(1)),
    start         Nullable(DateTime('UTC')),
    end           Nullable(DateTime('UTC')),
    assign_by     Nullable(DateTime('UTC')),
    resolve_by    Nullable(DateTime('UTC')),
    level         Int32,
    detail        String CODEC(ZSTD(1)),
    outcome       LowCardinality(String),
    reason        String CODEC(ZSTD(1)),
    completed_at  Nullable(DateTime('UTC')),
    exceptions    Array(String),
    done          UInt8
)
ENGINE = ReplacingMergeTree(version, done)
ORDER BY (id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS todo_event_log /*cluster*/
(
    id      String CODEC(ZSTD(1)),
    todo    String CODEC(ZSTD(1)),
    version Int64 CODEC(T64, ZSTD(1)),
    at      DateTime('UTC') CODEC(Delta, ZSTD(1)),
    action  LowCardinality(String),
    user    LowCardinality(String),
    command String CODEC(ZSTD(1)),
    before  String CODEC(ZSTD(1)),
    after   String CODEC(ZSTD(1)),
    text    String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (todo, version, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS todo_outcome_log /*cluster*/
(
    id        String CODEC(ZSTD(1)),
    at        DateTime('UTC') CODEC(Delta, ZSTD(1)),
    action    LowCardinality(String),
    user      LowCardinality(String),
    status    LowCardinality(String),
    detail    String CODEC(ZSTD(1)),
    done      Array(String),
    conflicts Array(String)
)
ENGINE = ReplacingMergeTree
ORDER BY (id, status)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE OR REPLACE VIEW todos /*cluster*/ AS
SELECT id, version, type, state, priority, role, `user`, subject, device, channel, service_point, account, payload, rule,
    severity, count, `open`, grouped, first_seen, last_seen, start, `end`, assign_by, resolve_by, level, detail, outcome, reason,
    completed_at, exceptions
FROM todo_items FINAL;

CREATE OR REPLACE VIEW todo_queue /*cluster*/ AS
SELECT id, version, type, state, priority, role, `user`, subject, device, channel, service_point, account, payload, rule,
    severity, count, `open`, grouped, first_seen, last_seen, start, `end`, assign_by, resolve_by, level, detail, outcome, reason,
    completed_at, exceptions
FROM todo_open FINAL;

CREATE OR REPLACE VIEW todo_history /*cluster*/ AS
SELECT todo, version, at, action, `user`, text, `before`, `after`, command, id
FROM todo_event_log FINAL;

-- backward

DROP VIEW IF EXISTS todo_history /*cluster*/ SYNC;
DROP VIEW IF EXISTS todo_queue /*cluster*/ SYNC;
DROP VIEW IF EXISTS todos /*cluster*/ SYNC;
DROP TABLE IF EXISTS todo_outcome_log /*cluster*/ SYNC;
DROP TABLE IF EXISTS todo_event_log /*cluster*/ SYNC;
DROP TABLE IF EXISTS todo_open /*cluster*/ SYNC;
DROP TABLE IF EXISTS todo_items /*cluster*/ SYNC;
