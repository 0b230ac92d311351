-- Who asked from where, and the hash chain that shows whether the audit is whole.

-- forward

ALTER TABLE audit_events /*cluster*/ ADD COLUMN IF NOT EXISTS principal String CODEC(ZSTD(1));
ALTER TABLE audit_events /*cluster*/ ADD COLUMN IF NOT EXISTS address String CODEC(ZSTD(1));
ALTER TABLE audit_events /*cluster*/ ADD COLUMN IF NOT EXISTS agent String CODEC(ZSTD(1));
ALTER TABLE audit_events /*cluster*/ ADD COLUMN IF NOT EXISTS writer LowCardinality(String);
ALTER TABLE audit_events /*cluster*/ ADD COLUMN IF NOT EXISTS sequence Int64 CODEC(T64, ZSTD(1));
ALTER TABLE audit_events /*cluster*/ ADD COLUMN IF NOT EXISTS previous String CODEC(ZSTD(1));
ALTER TABLE audit_events /*cluster*/ ADD COLUMN IF NOT EXISTS hash String CODEC(ZSTD(1));

CREATE OR REPLACE VIEW audit /*cluster*/ AS
SELECT at, actor, action, outcome, detail, reason, device, channel, start, end, before, after, command, subject, id, bulk, approved_by,
       principal, address, agent, writer, sequence, previous, hash
FROM audit_events FINAL;

-- backward

CREATE OR REPLACE VIEW audit /*cluster*/ AS
SELECT at, actor, action, outcome, detail, reason, device, channel, start, end, before, after, command, subject, id, bulk, approved_by
FROM audit_events FINAL;

ALTER TABLE audit_events /*cluster*/ DROP COLUMN IF EXISTS hash;
ALTER TABLE audit_events /*cluster*/ DROP COLUMN IF EXISTS previous;
ALTER TABLE audit_events /*cluster*/ DROP COLUMN IF EXISTS sequence;
ALTER TABLE audit_events /*cluster*/ DROP COLUMN IF EXISTS writer;
ALTER TABLE audit_events /*cluster*/ DROP COLUMN IF EXISTS agent;
ALTER TABLE audit_events /*cluster*/ DROP COLUMN IF EXISTS address;
ALTER TABLE audit_events /*cluster*/ DROP COLUMN IF EXISTS principal;
