-- Master data: what became of every item, every version of every object, and the newest version of each for quick lists.
-- Spans of time are arrays side by side, UTC seconds; -1 is an open end.

-- forward

CREATE TABLE IF NOT EXISTS master_items /*cluster*/
(
    item     String CODEC(ZSTD(1)),
    message  String CODEC(ZSTD(1)),
    source   LowCardinality(String),
    user     LowCardinality(String),
    at       DateTime('UTC') CODEC(Delta, ZSTD(1)),
    sequence Int64 CODEC(Delta, ZSTD(1)),
    action   LowCardinality(String),
    kind     LowCardinality(String),
    object   String CODEC(ZSTD(1)),
    outcome  LowCardinality(String),
    reason   String CODEC(ZSTD(1)),
    version  Int64 CODEC(T64, ZSTD(1))
)
ENGINE = ReplacingMergeTree(sequence)
ORDER BY item
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS master_objects /*cluster*/
(
    kind      LowCardinality(String),
    object    String CODEC(ZSTD(1)),
    version   Int64 CODEC(T64, ZSTD(1)),
    sequence  Int64 CODEC(Delta, ZSTD(1)),
    at        DateTime('UTC') CODEC(Delta, ZSTD(1)),
    message   String CODEC(ZSTD(1)),
    source    LowCardinality(String),
    user      LowCardinality(String),
    action    LowCardinality(String),
    span_from Array(Int64) CODEC(ZSTD(1)),
    span_to   Array(Int64) CODEC(ZSTD(1)),
    span_body Array(String) CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(sequence)
ORDER BY (kind, object)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS master_versions /*cluster*/
(
    kind      LowCardinality(String),
    object    String CODEC(ZSTD(1)),
    version   Int64 CODEC(T64, ZSTD(1)),
    sequence  Int64 CODEC(Delta, ZSTD(1)),
    at        DateTime('UTC') CODEC(Delta, ZSTD(1)),
    message   String CODEC(ZSTD(1)),
    source    LowCardinality(String),
    user      LowCardinality(String),
    action    LowCardinality(String),
    span_from Array(Int64) CODEC(ZSTD(1)),
    span_to   Array(Int64) CODEC(ZSTD(1)),
    span_body Array(String) CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(sequence)
ORDER BY (kind, object, version)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE OR REPLACE VIEW master /*cluster*/ AS
SELECT
    kind,
    object AS id,
    number AS span,
    if(begin < 0, NULL, toDateTime(begin, 'UTC')) AS valid_from,
    if(until < 0, NULL, toDateTime(until, 'UTC')) AS valid_to,
    JSONExtractString(body, 'device') AS device,
    JSONExtractString(body, 'service_point') AS service_point,
    JSONExtractString(body, 'account') AS account,
    body AS attributes,
    version,
    at AS changed_at,
    source
FROM master_objects FINAL
ARRAY JOIN span_from AS begin, span_to AS until, span_body AS body, arrayEnumerate(span_from) AS number;

CREATE OR REPLACE VIEW master_history /*cluster*/ AS
SELECT kind, object AS id, version, at AS changed_at, source, user, action, message, span_from, span_to, span_body AS attributes
FROM master_versions FINAL;

-- backward

DROP VIEW IF EXISTS master_history /*cluster*/ SYNC;
DROP VIEW IF EXISTS master /*cluster*/ SYNC;
DROP TABLE IF EXISTS master_versions /*cluster*/ SYNC;
DROP TABLE IF EXISTS master_objects /*cluster*/ SYNC;
DROP TABLE IF EXISTS master_items /*cluster*/ SYNC;
