-- To-Dos know what routes and deadlines go by: commodity, region, customer class, the end of the billing period.

-- forward

-- Completed To-Dos leave the table of the live ones for good when the hub tidies it
ALTER TABLE todo_open /*cluster*/ MODIFY SETTING allow_experimental_replacing_merge_with_cleanup = 1;

ALTER TABLE todo_items /*cluster*/
    ADD COLUMN IF NOT EXISTS commodity LowCardinality(String),
    ADD COLUMN IF NOT EXISTS region LowCardinality(String),
    ADD COLUMN IF NOT EXISTS customer_class LowCardinality(String),
    ADD COLUMN IF NOT EXISTS bill_at Nullable(DateTime('UTC'));

ALTER TABLE todo_open /*cluster*/
    ADD COLUMN IF NOT EXISTS commodity LowCardinality(String),
    ADD COLUMN IF NOT EXISTS region LowCardinality(String),
    ADD COLUMN IF NOT EXISTS customer_class LowCardinality(String),
    ADD COLUMN IF NOT EXISTS bill_at Nullable(DateTime('UTC'));

CREATE OR REPLACE VIEW todos /*cluster*/ AS
SELECT id, version, type, state, priority, role, `user`, subject, device, channel, service_point, account, payload, rule,
    severity, count, `open`, grouped, first_seen, last_seen, start, `end`, assign_by, resolve_by, level, detail, outcome, reason,
    completed_at, exceptions, commodity, region, customer_class, bill_at
FROM todo_items FINAL;

CREATE OR REPLACE VIEW todo_queue /*cluster*/ AS
SELECT id, version, type, state, priority, role, `user`, subject, device, channel, service_point, account, payload, rule,
    severity, count, `open`, grouped, first_seen, last_seen, start, `end`, assign_by, resolve_by, level, detail, outcome, reason,
    completed_at, exceptions, commodity, region, customer_class, bill_at
FROM todo_open FINAL;

-- backward

CREATE OR REPLACE VIEW todo_queue /*cluster*/ AS
SELECT id, version, type, state, priority, role, `user`, subject, device, channel, service_point, account, payload, rule,
    severity, count, `open`, grouped, first_seen, last_seen, start, `end`, assign_by, resolve_by, level, detail, outcome, reason,
    completed_at, exceptions
FROM todo_open FINAL;

CREATE OR REPLACE VIEW todos /*cluster*/ AS
SELECT id, version, type, state, priority, role, `user`, subject, device, channel, service_point, account, payload, rule,
    severity, count, `open`, grouped, first_seen, last_seen, start, `end`, assign_by, resolve_by, level, detail, outcome, reason,
    completed_at, exceptions
FROM todo_items FINAL;

ALTER TABLE todo_open /*cluster*/ DROP COLUMN IF EXISTS bill_at;
ALTER TABLE todo_open /*cluster*/ DROP COLUMN IF EXISTS customer_class;
ALTER TABLE todo_open /*cluster*/ DROP COLUMN IF EXISTS region;
ALTER TABLE todo_open /*cluster*/ DROP COLUMN IF EXISTS commodity;
ALTER TABLE todo_items /*cluster*/ DROP COLUMN IF EXISTS bill_at;
ALTER TABLE todo_items /*cluster*/ DROP COLUMN IF EXISTS customer_class;
ALTER TABLE todo_items /*cluster*/ DROP COLUMN IF EXISTS region;
ALTER TABLE todo_items /*cluster*/ DROP COLUMN IF EXISTS commodity;

ALTER TABLE todo_open /*cluster*/ RESET SETTING allow_experimental_replacing_merge_with_cleanup;
