-- Usage of subscriptions: one row per version of a transaction, its quantities as determinants with a name.

-- forward

ALTER TABLE bill_determinants /*cluster*/ ADD COLUMN IF NOT EXISTS name String CODEC(ZSTD(1));
ALTER TABLE bill_determinants /*cluster*/ ADD COLUMN IF NOT EXISTS usage String CODEC(ZSTD(1));
ALTER TABLE bill_determinants /*cluster*/ ADD COLUMN IF NOT EXISTS moment Nullable(DateTime('UTC')) CODEC(ZSTD(1));
ALTER TABLE bill_determinants /*cluster*/ ADD COLUMN IF NOT EXISTS correction LowCardinality(String);

CREATE TABLE IF NOT EXISTS usage_transactions /*cluster*/
(
    id           String CODEC(ZSTD(1)),
    usage        String CODEC(ZSTD(1)),
    account      String CODEC(ZSTD(1)),
    group        LowCardinality(String),
    period_start DateTime('UTC') CODEC(Delta, ZSTD(1)),
    period_end   DateTime('UTC') CODEC(Delta, ZSTD(1)),
    trigger      LowCardinality(String),
    status       LowCardinality(String),
    version      Int64 CODEC(T64, ZSTD(1)),
    corrects     String CODEC(ZSTD(1)),
    correction   LowCardinality(String),
    reason       String CODEC(ZSTD(1)),
    bill         String CODEC(ZSTD(1)),
    requests     String CODEC(ZSTD(1)),
    quantities   String CODEC(ZSTD(1)),
    at           DateTime('UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYear(period_start)
ORDER BY (account, period_start, usage, version, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What was said last of each period; a transaction that waits or is held says so, with the version that was sent before
CREATE OR REPLACE VIEW usage /*cluster*/ AS
SELECT
    account, period_start, newest.1 AS period_end, CAST(newest.2, 'String') AS group, CAST(newest.3, 'String') AS trigger,
    CAST(newest.4, 'String') AS status, newest.5 AS version, CAST(newest.6, 'String') AS correction, newest.7 AS reason,
    newest.8 AS bill, newest.9 AS requests, newest.10 AS quantities, newest.11 AS at, newest.12 AS id, newest.13 AS corrects, usage
FROM
(
    SELECT
        account, period_start, usage,
        argMax(tuple(period_end, group, trigger, status, version, correction, reason, bill, requests, quantities, at, id, corrects),
            tuple(at, version)) AS newest
    FROM usage_transactions
    GROUP BY account, period_start, usage
);

CREATE OR REPLACE VIEW determinants /*cluster*/ AS
SELECT
    account, device, period_start, newest.1 AS period_end,
    concat(group_kind, if(period = 'day', '-daily', '')) AS kind,
    tou, unit, newest.2 AS quantity, newest.3 AS version, period, channel, newest.4 AS service_point, newest.5 AS condition,
    newest.6 AS slots, newest.7 AS actual, newest.8 AS estimated, newest.9 AS status, newest.10 AS id, newest.11 AS replaces,
    newest.12 AS reason, name, usage, newest.13 AS moment, newest.14 AS correction
FROM
(
    SELECT
        account, device, CAST(channel, 'String') AS channel, CAST(period, 'String') AS period, CAST(kind, 'String') AS group_kind,
        CAST(tou, 'String') AS tou, CAST(unit, 'String') AS unit, period_start, name, usage,
        argMax(tuple(period_end, quantity, version, service_point, condition, slots, actual, estimated,
            CAST(status, 'String'), id, replaces, reason, moment, CAST(correction, 'String')), version) AS newest
    FROM bill_determinants
    GROUP BY account, device, channel, period, group_kind, tou, unit, period_start, name, usage
)
UNION ALL
SELECT
    account, device, start, end,
    multiIf(seconds = 0, 'scalar-consumption-daily', line = '', 'interval-consumption-daily', 'tou-interval-consumption-daily'),
    CAST(line, 'String'), CAST(unit, 'String'), reinterpret(amount, 'Decimal(18, 6)'), version, 'day', CAST(channel, 'String'), service_point,
    condition, slots, actual, estimated, if(state = 2, 'held', 'released'), '', '', '', '', '', NULL, ''
FROM determinant_days FINAL
ARRAY JOIN tou AS line, quantities AS amount;

-- backward

CREATE OR REPLACE VIEW determinants /*cluster*/ AS
SELECT
    account, device, period_start, newest.1 AS period_end,
    concat(group_kind, if(period = 'day', '-daily', '')) AS kind,
    tou, unit, newest.2 AS quantity, newest.3 AS version, period, channel, newest.4 AS service_point, newest.5 AS condition,
    newest.6 AS slots, newest.7 AS actual, newest.8 AS estimated, newest.9 AS status, newest.10 AS id, newest.11 AS replaces,
    newest.12 AS reason
FROM
(
    SELECT
        account, device, CAST(channel, 'String') AS channel, CAST(period, 'String') AS period, CAST(kind, 'String') AS group_kind,
        CAST(tou, 'String') AS tou, CAST(unit, 'String') AS unit, period_start,
        argMax(tuple(period_end, quantity, version, service_point, condition, slots, actual, estimated,
            CAST(status, 'String'), id, replaces, reason), version) AS newest
    FROM bill_determinants
    GROUP BY account, device, channel, period, group_kind, tou, unit, period_start
)
UNION ALL
SELECT
    account, device, start, end,
    multiIf(seconds = 0, 'scalar-consumption-daily', name = '', 'interval-consumption-daily', 'tou-interval-consumption-daily'),
    CAST(name, 'String'), CAST(unit, 'String'), reinterpret(amount, 'Decimal(18, 6)'), version, 'day', CAST(channel, 'String'), service_point,
    condition, slots, actual, estimated, if(state = 2, 'held', 'released'), '', '', ''
FROM determinant_days FINAL
ARRAY JOIN tou AS name, quantities AS amount;

DROP VIEW IF EXISTS usage /*cluster*/ SYNC;
DROP TABLE IF EXISTS usage_transactions /*cluster*/ SYNC;
ALTER TABLE bill_determinants /*cluster*/ DROP COLUMN IF EXISTS correction;
ALTER TABLE bill_determinants /*cluster*/ DROP COLUMN IF EXISTS moment;
ALTER TABLE bill_determinants /*cluster*/ DROP COLUMN IF EXISTS usage;
ALTER TABLE bill_determinants /*cluster*/ DROP COLUMN IF EXISTS name;
