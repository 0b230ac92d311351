-- Conversations with CIS: what they are told, and where each conversation stands. Ids follow from what caused them, so a record that
-- comes twice is there once; of a conversation the latest state counts.

-- forward

CREATE TABLE IF NOT EXISTS cis_messages /*cluster*/
(
    id        String CODEC(ZSTD(1)),
    system    LowCardinality(String),
    protocol  LowCardinality(String),
    kind      LowCardinality(String),
    reference String CODEC(ZSTD(1)),
    bulk      UInt8 CODEC(T64, ZSTD(1)),
    at        DateTime('UTC') CODEC(Delta, ZSTD(1)),
    items     Int32 CODEC(T64, ZSTD(1)),
    body      String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (system, at, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS cis_conversations /*cluster*/
(
    id      String CODEC(ZSTD(1)),
    system  LowCardinality(String),
    kind    LowCardinality(String),
    subject String CODEC(ZSTD(1)),
    device  String CODEC(ZSTD(1)),
    account String CODEC(ZSTD(1)),
    state   LowCardinality(String),
    at      DateTime('UTC') CODEC(Delta, ZSTD(1)),
    version Int64 CODEC(T64, ZSTD(1)),
    detail  String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (system, kind, subject, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE OR REPLACE VIEW conversations /*cluster*/ AS
SELECT system, kind, subject, state, at, device, account, detail, version, id FROM cis_conversations FINAL;

CREATE OR REPLACE VIEW conversation_messages /*cluster*/ AS
SELECT at, system, kind, reference, items, body, protocol, bulk, id FROM cis_messages FINAL;

-- backward

DROP VIEW IF EXISTS conversation_messages /*cluster*/ SYNC;
DROP VIEW IF EXISTS conversations /*cluster*/ SYNC;
DROP TABLE IF EXISTS cis_conversations /*cluster*/ SYNC;
DROP TABLE IF EXISTS cis_messages /*cluster*/ SYNC;
