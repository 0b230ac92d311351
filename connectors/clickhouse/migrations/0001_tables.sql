-- Tables of the store. Nobody but the hub reads them: people and tools read the views of 0002.
-- Every table is replaced by key, so that the same range of a topic written twice leaves one copy; the partition is always a
-- function of the key, so that copies of a row never lie in two partitions. Inserts are synced to disk, because the sink's
-- position is stored after the rows it stands for and must not outlive them when power fails.

-- forward

CREATE TABLE IF NOT EXISTS payload_log /*cluster*/
(
    id          String CODEC(ZSTD(1)),
    source      LowCardinality(String),
    format      LowCardinality(String),
    name        String CODEC(ZSTD(1)),
    received_at DateTime('UTC') CODEC(Delta, ZSTD(1)),
    headers     Map(String, String) CODEC(ZSTD(1)),
    body        String CODEC(ZSTD(3)),
    topic       LowCardinality(String),
    partition   Int32 CODEC(T64, ZSTD(1)),
    offset      Int64 CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (id, received_at, topic, partition, offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS final_days /*cluster*/
(
    device              String CODEC(ZSTD(1)),
    channel             LowCardinality(String),
    unit                LowCardinality(String),
    service_point       String CODEC(ZSTD(1)),
    account             String CODEC(ZSTD(1)),
    zone                LowCardinality(String),
    direction           Int8 CODEC(T64, ZSTD(1)),
    day                 Date32 CODEC(Delta, ZSTD(1)),
    day_start           DateTime('UTC') CODEC(Delta, ZSTD(1)),
    seconds             UInt32 CODEC(T64, ZSTD(1)),
    step                Int64 CODEC(T64, ZSTD(1)),
    version             Int64 CODEC(T64, ZSTD(1)),
    replaces            Int64 CODEC(T64, ZSTD(1)),
    state               UInt8 CODEC(T64, ZSTD(1)),
    dials               UInt8 CODEC(T64, ZSTD(1)),
    multiplier          Int64 CODEC(T64, ZSTD(1)),
    values              Array(Int64) CODEC(T64, ZSTD(1)),
    conditions          Array(Int32) CODEC(T64, ZSTD(1)),
    methods             Array(UInt8) CODEC(ZSTD(1)),
    received            Array(Int64) CODEC(T64, ZSTD(1)),
    received_conditions Array(Int32) CODEC(T64, ZSTD(1)),
    payload             String CODEC(ZSTD(1)),
    source              LowCardinality(String)
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(day)
ORDER BY (device, channel, day, seconds)
SETTINGS index_granularity = 1024, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS register_reads /*cluster*/
(
    device             String CODEC(ZSTD(1)),
    channel            LowCardinality(String),
    unit               LowCardinality(String),
    service_point      String CODEC(ZSTD(1)),
    account            String CODEC(ZSTD(1)),
    zone               LowCardinality(String),
    direction          Int8 CODEC(T64, ZSTD(1)),
    at                 DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    reading            Int64 CODEC(DoubleDelta, ZSTD(1)),
    condition          Int32 CODEC(T64, ZSTD(1)),
    method             UInt8 CODEC(T64, ZSTD(1)),
    received           Int64 CODEC(DoubleDelta, ZSTD(1)),
    received_condition Int32 CODEC(T64, ZSTD(1)),
    version            Int64 CODEC(T64, ZSTD(1)),
    replaces           Int64 CODEC(T64, ZSTD(1)),
    state              UInt8 CODEC(T64, ZSTD(1)),
    dials              UInt8 CODEC(T64, ZSTD(1)),
    multiplier         Int64 CODEC(T64, ZSTD(1)),
    payload            String CODEC(ZSTD(1)),
    source             LowCardinality(String)
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(at)
ORDER BY (device, channel, at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS vee_exceptions /*cluster*/
(
    id            String CODEC(ZSTD(1)),
    rule          LowCardinality(String),
    severity      LowCardinality(String),
    status        LowCardinality(String),
    version       Int64 CODEC(T64, ZSTD(1)),
    device        String CODEC(ZSTD(1)),
    channel       LowCardinality(String),
    service_point String CODEC(ZSTD(1)),
    payload       String CODEC(ZSTD(1)),
    start         DateTime('UTC') CODEC(Delta, ZSTD(1)),
    end           DateTime('UTC') CODEC(Delta, ZSTD(1)),
    count         Int32 CODEC(T64, ZSTD(1)),
    detail        String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (device, channel, rule, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS determinant_days /*cluster*/
(
    device        String CODEC(ZSTD(1)),
    channel       LowCardinality(String),
    unit          LowCardinality(String),
    service_point String CODEC(ZSTD(1)),
    account       String CODEC(ZSTD(1)),
    map           LowCardinality(String),
    day           Date32 CODEC(Delta, ZSTD(1)),
    start         DateTime('UTC') CODEC(Delta, ZSTD(1)),
    end           DateTime('UTC') CODEC(Delta, ZSTD(1)),
    seconds       UInt32 CODEC(T64, ZSTD(1)),
    version       Int64 CODEC(T64, ZSTD(1)),
    replaces      Int64 CODEC(T64, ZSTD(1)),
    state         UInt8 CODEC(T64, ZSTD(1)),
    condition     Int32 CODEC(T64, ZSTD(1)),
    slots         Int32 CODEC(T64, ZSTD(1)),
    actual        Int32 CODEC(T64, ZSTD(1)),
    estimated     Int32 CODEC(T64, ZSTD(1)),
    tou           Array(LowCardinality(String)),
    quantities    Array(Int64) CODEC(T64, ZSTD(1)),
    payload       String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(day)
ORDER BY (device, channel, day, seconds)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS bill_determinants /*cluster*/
(
    id            String CODEC(ZSTD(1)),
    account       String CODEC(ZSTD(1)),
    service_point String CODEC(ZSTD(1)),
    device        String CODEC(ZSTD(1)),
    channel       LowCardinality(String),
    period        LowCardinality(String),
    period_start  DateTime('UTC') CODEC(Delta, ZSTD(1)),
    period_end    DateTime('UTC') CODEC(Delta, ZSTD(1)),
    kind          LowCardinality(String),
    tou           LowCardinality(String),
    unit          LowCardinality(String),
    quantity      Decimal(18, 6) CODEC(T64, ZSTD(1)),
    condition     Int32 CODEC(T64, ZSTD(1)),
    slots         Int32 CODEC(T64, ZSTD(1)),
    actual        Int32 CODEC(T64, ZSTD(1)),
    estimated     Int32 CODEC(T64, ZSTD(1)),
    status        LowCardinality(String),
    version       Int64 CODEC(T64, ZSTD(1)),
    replaces      String CODEC(ZSTD(1)),
    reason        String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYear(period_start)
ORDER BY (account, device, channel, period, kind, tou, unit, period_start, version, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS receipts /*cluster*/
(
    payload     String CODEC(ZSTD(1)),
    id          String CODEC(ZSTD(1)),
    agent       LowCardinality(String),
    children    Int32 CODEC(T64, ZSTD(1)),
    parent      String CODEC(ZSTD(1)),
    status      LowCardinality(String),
    source      LowCardinality(String),
    format      LowCardinality(String),
    received_at DateTime('UTC') CODEC(Delta, ZSTD(1)),
    rows        Int32 CODEC(T64, ZSTD(1)),
    reads       Int64 CODEC(T64, ZSTD(1)),
    finals      Int32 CODEC(T64, ZSTD(1)),
    exceptions  Int32 CODEC(T64, ZSTD(1)),
    parked      Int32 CODEC(T64, ZSTD(1)),
    dead        Int32 CODEC(T64, ZSTD(1)),
    reason      String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (payload, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS tick_receipts /*cluster*/
(
    at       DateTime('UTC') CODEC(Delta, ZSTD(1)),
    payload  String CODEC(ZSTD(1)),
    id       String CODEC(ZSTD(1)),
    agent    LowCardinality(String),
    children Int32 CODEC(T64, ZSTD(1)),
    parent   String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(at)
ORDER BY (at, payload, id)
TTL at + INTERVAL 1 DAY
SETTINGS ttl_only_drop_parts = 1, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS refused_records /*cluster*/
(
    topic     LowCardinality(String),
    partition Int32 CODEC(T64, ZSTD(1)),
    offset    Int64 CODEC(Delta, ZSTD(1)),
    at        DateTime('UTC') CODEC(Delta, ZSTD(1)),
    reason    String CODEC(ZSTD(1)),
    key       String CODEC(ZSTD(1)),
    value     String CODEC(ZSTD(3)),
    headers   Map(String, String) CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (topic, partition, offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS sink_positions /*cluster*/
(
    sink      String,
    topic     String,
    partition Int32,
    offset    Int64
)
ENGINE = ReplacingMergeTree(offset)
ORDER BY (sink, topic, partition)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- backward

DROP TABLE IF EXISTS sink_positions /*cluster*/ SYNC;
DROP TABLE IF EXISTS refused_records /*cluster*/ SYNC;
DROP TABLE IF EXISTS tick_receipts /*cluster*/ SYNC;
DROP TABLE IF EXISTS receipts /*cluster*/ SYNC;
DROP TABLE IF EXISTS bill_determinants /*cluster*/ SYNC;
DROP TABLE IF EXISTS determinant_days /*cluster*/ SYNC;
DROP TABLE IF EXISTS vee_exceptions /*cluster*/ SYNC;
DROP TABLE IF EXISTS register_reads /*cluster*/ SYNC;
DROP TABLE IF EXISTS final_days /*cluster*/ SYNC;
DROP TABLE IF EXISTS payload_log /*cluster*/ SYNC;
