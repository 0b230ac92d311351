-- Which bulk order an audited act belongs to, and who approved it.

-- forward

ALTER TABLE audit_events /*cluster*/ ADD COLUMN IF NOT EXISTS bulk String CODEC(ZSTD(1));
ALTER TABLE audit_events /*cluster*/ ADD COLUMN IF NOT EXISTS approved_by LowCardinality(String);

CREATE OR REPLACE VIEW audit /*cluster*/ AS
SELECT at, actor, action, outcome, detail, reason, device, channel, start, end, before, after, command, subject, id, bulk, approved_by
FROM audit_events FINAL;

-- backward

CREATE OR REPLACE VIEW audit /*cluster*/ AS
SELECT at, actor, action, outcome, detail, reason, device, channel, start, end, before, after, command, subject, id
FROM audit_events FINAL;

ALTER TABLE audit_events /*cluster*/ DROP COLUMN IF EXISTS approved_by;
ALTER TABLE audit_events /*cluster*/ DROP COLUMN IF EXISTS bulk;
