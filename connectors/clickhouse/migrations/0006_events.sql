-- What devices tell of themselves: power failures, tampering, clock changes. The id follows from payload and place, so a repeat is there once.

-- forward

CREATE TABLE IF NOT EXISTS event_log /*cluster*/
(
    id       String CODEC(ZSTD(1)),
    device   String CODEC(ZSTD(1)),
    kind     LowCardinality(String),
    code     LowCardinality(String),
    at       DateTime('UTC') CODEC(Delta, ZSTD(1)),
    source   LowCardinality(String),
    severity LowCardinality(String),
    detail   String CODEC(ZSTD(1)),
    payload  String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (device, at, kind, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE OR REPLACE VIEW device_events /*cluster*/ AS
SELECT device, kind, at, code, severity, detail, source, payload, id
FROM event_log FINAL;

CREATE OR REPLACE VIEW outages /*cluster*/ AS
SELECT
    device,
    at AS began,
    nullIf(restored, toDateTime(0, 'UTC')) AS ended,
    toInt64(toUnixTimestamp(restored)) - if(restored > toDateTime(0, 'UTC'), toUnixTimestamp(at), NULL) AS seconds
FROM
(
    SELECT
        device, at, kind,
        lagInFrame(toString(kind)) OVER (PARTITION BY device ORDER BY at, kind ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS before,
        minIf(at, kind = 'restore') OVER (PARTITION BY device ORDER BY at, kind ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) AS restored
    FROM event_log FINAL
    WHERE kind IN ('outage', 'restore')
)
WHERE kind = 'outage' AND before != 'outage';

-- backward

DROP VIEW IF EXISTS outages /*cluster*/ SYNC;
DROP VIEW IF EXISTS device_events /*cluster*/ SYNC;
DROP TABLE IF EXISTS event_log /*cluster*/ SYNC;
