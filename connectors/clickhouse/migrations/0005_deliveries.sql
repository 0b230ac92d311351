-- What became of each delivery to a subscriber: one row per delivery, as it stands now.

-- forward

CREATE TABLE IF NOT EXISTS delivery_log /*cluster*/
(
    id         String CODEC(ZSTD(1)),
    subscriber LowCardinality(String),
    object     LowCardinality(String),
    status     LowCardinality(String),
    version    Int64 CODEC(Delta, ZSTD(1)),
    at         DateTime('UTC') CODEC(Delta, ZSTD(1)),
    since      DateTime('UTC') CODEC(Delta, ZSTD(1)),
    attempt    Int32 CODEC(T64, ZSTD(1)),
    next_at    DateTime('UTC') CODEC(Delta, ZSTD(1)),
    channel    LowCardinality(String),
    place      String CODEC(ZSTD(1)),
    topic      LowCardinality(String),
    partition  Int32 CODEC(T64, ZSTD(1)),
    first      Int64 CODEC(Delta, ZSTD(1)),
    last       Int64 CODEC(Delta, ZSTD(1)),
    key        String CODEC(ZSTD(1)),
    records    Int32 CODEC(T64, ZSTD(1)),
    bytes      Int64 CODEC(T64, ZSTD(1)),
    code       Int32 CODEC(T64, ZSTD(1)),
    reason     String CODEC(ZSTD(1)),
    replay     Int64 CODEC(T64, ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (subscriber, id)
TTL at + INTERVAL 400 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE OR REPLACE VIEW deliveries /*cluster*/ AS
SELECT
    subscriber, object, status, at, since, attempt, if(toUnixTimestamp(delivery_log.next_at) = 0, NULL, delivery_log.next_at) AS next_at,
    channel, place, records, bytes, code, reason, key, topic, partition, first, last, replay, id
FROM delivery_log FINAL;

-- backward

DROP VIEW IF EXISTS deliveries /*cluster*/ SYNC;
DROP TABLE IF EXISTS delivery_log /*cluster*/ SYNC;
