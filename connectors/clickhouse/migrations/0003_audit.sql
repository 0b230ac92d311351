-- Who did what: one row per audited act. The id follows from what was done, so a record that comes twice is there once.

-- forward

CREATE TABLE IF NOT EXISTS audit_events /*cluster*/
(
    id      String CODEC(ZSTD(1)),
    at      DateTime('UTC') CODEC(Delta, ZSTD(1)),
    actor   LowCardinality(String),
    action  LowCardinality(String),
    command String CODEC(ZSTD(1)),
    subject String CODEC(ZSTD(1)),
    device  String CODEC(ZSTD(1)),
    channel LowCardinality(String),
    start   DateTime('UTC') CODEC(Delta, ZSTD(1)),
    end     DateTime('UTC') CODEC(Delta, ZSTD(1)),
    reason  LowCardinality(String),
    outcome LowCardinality(String),
    detail  String CODEC(ZSTD(1)),
    before  String CODEC(ZSTD(1)),
    after   String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (subject, at, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE OR REPLACE VIEW audit /*cluster*/ AS
SELECT at, actor, action, outcome, detail, reason, device, channel, start, end, before, after, command, subject, id
FROM audit_events FINAL;

-- backward

DROP VIEW IF EXISTS audit /*cluster*/ SYNC;
DROP TABLE IF EXISTS audit_events /*cluster*/ SYNC;
