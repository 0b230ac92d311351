-- Prepaid: postings, accounts as they stand, notices, outcomes and proofs; commands to devices and their answers.

-- forward

CREATE TABLE IF NOT EXISTS prepaid_postings /*cluster*/
(
    id          String CODEC(ZSTD(1)),
    account     String CODEC(ZSTD(1)),
    sequence    Int64 CODEC(T64, ZSTD(1)),
    at          DateTime('UTC') CODEC(Delta, ZSTD(1)),
    kind        LowCardinality(String),
    component   LowCardinality(String),
    debit       String CODEC(ZSTD(1)),
    credit      String CODEC(ZSTD(1)),
    amount      Int64 CODEC(T64, ZSTD(1)),
    currency    LowCardinality(String),
    change      Int64 CODEC(T64, ZSTD(1)),
    balance     Int64 CODEC(T64, ZSTD(1)),
    day         LowCardinality(String),
    month       LowCardinality(String),
    provisional Bool,
    cause       String CODEC(ZSTD(1)),
    reference   String CODEC(ZSTD(1)),
    reason      String CODEC(ZSTD(1)),
    user        LowCardinality(String),
    previous    String CODEC(ZSTD(1)),
    hash        String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (account, sequence, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS prepaid_account_states /*cluster*/
(
    account        String CODEC(ZSTD(1)),
    version        Int64 CODEC(T64, ZSTD(1)),
    as_of          DateTime('UTC') CODEC(Delta, ZSTD(1)),
    service_point  String CODEC(ZSTD(1)),
    device         String CODEC(ZSTD(1)),
    zone           LowCardinality(String),
    tariff         LowCardinality(String),
    currency       LowCardinality(String),
    balance        Int64 CODEC(T64, ZSTD(1)),
    provisional    Int64 CODEC(T64, ZSTD(1)),
    debt           Int64 CODEC(T64, ZSTD(1)),
    emergency      Int64 CODEC(T64, ZSTD(1)),
    state          LowCardinality(String),
    level          LowCardinality(String),
    hold           String CODEC(ZSTD(1)),
    trouble        String CODEC(ZSTD(1)),
    daily          Int64 CODEC(T64, ZSTD(1)),
    days_left      Nullable(Int32),
    cut_from       Nullable(DateTime('UTC')),
    measured_until Nullable(DateTime('UTC')),
    postings       Int64 CODEC(T64, ZSTD(1)),
    hash           String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (account)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS prepaid_notice_log /*cluster*/
(
    id         String CODEC(ZSTD(1)),
    account    String CODEC(ZSTD(1)),
    at         DateTime('UTC') CODEC(Delta, ZSTD(1)),
    not_before DateTime('UTC') CODEC(Delta, ZSTD(1)),
    kind       LowCardinality(String),
    level      LowCardinality(String),
    balance    Int64 CODEC(T64, ZSTD(1)),
    currency   LowCardinality(String),
    days_left  Nullable(Int32),
    amount     Nullable(Int64),
    cut_from   Nullable(DateTime('UTC')),
    detail     String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (account, at, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS prepaid_outcome_log /*cluster*/
(
    id      String CODEC(ZSTD(1)),
    account String CODEC(ZSTD(1)),
    at      DateTime('UTC') CODEC(Delta, ZSTD(1)),
    action  LowCardinality(String),
    status  LowCardinality(String),
    detail  String CODEC(ZSTD(1)),
    posting String CODEC(ZSTD(1)),
    balance Int64 CODEC(T64, ZSTD(1)),
    state   LowCardinality(String),
    command String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (id, at, status)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS prepaid_proof_log /*cluster*/
(
    id          String CODEC(ZSTD(1)),
    partition   Int32,
    at          DateTime('UTC') CODEC(Delta, ZSTD(1)),
    currency    LowCardinality(String),
    accounts    Int64 CODEC(T64, ZSTD(1)),
    postings    Int64 CODEC(T64, ZSTD(1)),
    debits      Int64 CODEC(T64, ZSTD(1)),
    credits     Int64 CODEC(T64, ZSTD(1)),
    customers   Int64 CODEC(T64, ZSTD(1)),
    debts       Int64 CODEC(T64, ZSTD(1)),
    emergencies Int64 CODEC(T64, ZSTD(1)),
    chain       String CODEC(ZSTD(1)),
    holds       Bool,
    detail      String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (partition, at, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS device_command_log /*cluster*/
(
    id         String CODEC(ZSTD(1)),
    device     String CODEC(ZSTD(1)),
    action     LowCardinality(String),
    issued_at  DateTime('UTC') CODEC(Delta, ZSTD(1)),
    expires_at DateTime('UTC') CODEC(Delta, ZSTD(1)),
    by         LowCardinality(String),
    reason     String CODEC(ZSTD(1)),
    reference  String CODEC(ZSTD(1)),
    text       String CODEC(ZSTD(1)),
    limit      Nullable(Int64)
)
ENGINE = ReplacingMergeTree
ORDER BY (id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS device_reply_log /*cluster*/
(
    command String CODEC(ZSTD(1)),
    device  String CODEC(ZSTD(1)),
    status  LowCardinality(String),
    at      DateTime('UTC') CODEC(Delta, ZSTD(1)),
    code    LowCardinality(String),
    detail  String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (command, status, at, code)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE OR REPLACE VIEW prepaid_ledger /*cluster*/ AS
SELECT id, account, sequence, at, kind, component, debit, credit, amount, currency, change, balance, day, month, provisional,
    cause, reference, reason, user, previous, hash
FROM prepaid_postings FINAL;

CREATE OR REPLACE VIEW prepaid_accounts /*cluster*/ AS
SELECT account, version, as_of, service_point, device, zone, tariff, currency, balance, provisional, debt, emergency, state,
    level, hold, trouble, daily, days_left, cut_from, measured_until, postings, hash
FROM prepaid_account_states FINAL;

CREATE OR REPLACE VIEW prepaid_notices /*cluster*/ AS
SELECT id, account, at, not_before, kind, level, balance, currency, days_left, amount, cut_from, detail
FROM prepaid_notice_log FINAL;

CREATE OR REPLACE VIEW device_commands /*cluster*/ AS
SELECT
    commands.id AS id, commands.device AS device, action, issued_at, expires_at, `by`, reason, reference, text, `limit`,
    multiIf(replies.done > 0, 'done', replies.failed > 0, 'failed', replies.accepted > 0, 'accepted', 'sent') AS status,
    if(replies.last = 0, NULL, toDateTime(replies.last, 'UTC')) AS replied_at, replies.detail AS detail
FROM device_command_log AS commands FINAL
LEFT JOIN
(
    SELECT
        command, countIf(status = 'done') AS done, countIf(status = 'failed') AS failed, countIf(status = 'accepted') AS accepted,
        toUnixTimestamp(max(at)) AS last, argMax(detail, at) AS detail
    FROM device_reply_log FINAL GROUP BY command
) AS replies ON replies.command = commands.id;

-- backward

DROP VIEW IF EXISTS device_commands /*cluster*/ SYNC;
DROP VIEW IF EXISTS prepaid_notices /*cluster*/ SYNC;
DROP VIEW IF EXISTS prepaid_accounts /*cluster*/ SYNC;
DROP VIEW IF EXISTS prepaid_ledger /*cluster*/ SYNC;
DROP TABLE IF EXISTS device_reply_log /*cluster*/ SYNC;
DROP TABLE IF EXISTS device_command_log /*cluster*/ SYNC;
DROP TABLE IF EXISTS prepaid_proof_log /*cluster*/ SYNC;
DROP TABLE IF EXISTS prepaid_outcome_log /*cluster*/ SYNC;
DROP TABLE IF EXISTS prepaid_notice_log /*cluster*/ SYNC;
DROP TABLE IF EXISTS prepaid_account_states /*cluster*/ SYNC;
DROP TABLE IF EXISTS prepaid_postings /*cluster*/ SYNC;
