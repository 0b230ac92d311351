-- The public face of the store: current versions only, one row per thing, documented in docs/tables.md.
-- Columns may be added at the end; what is here stays.

-- forward

CREATE OR REPLACE VIEW intervals /*cluster*/ AS
SELECT
    device,
    channel,
    unit,
    toDateTime(toUnixTimestamp(day_start) + (slot - 1) * seconds, 'UTC') AS start,
    seconds,
    if(c >= 100000 AND c < 200000, NULL, reinterpret(v * step, 'Decimal(18, 6)')) AS value,
    c AS condition,
    transform(m, [0, 1, 2, 3, 4, 5, 6, 7, 8],
        ['', 'interval-adjustment-from-scalar', 'interval-interpolation', 'scalar-estimation', 'like-day-average',
         'scalar-proration', 'profile', 'outage-zero', 'manual'],
        toString(m)) AS method,
    version,
    multiIf(c < 100000, 'invalid', c < 200000, 'missing', c < 300000, 'outage',
        c < 350000, 'system-estimate-poor', c < 400000, 'system-estimate-good', c < 450000, 'external-estimate',
        c < 500000, 'suspect', c < 600000, 'regular', c < 700000, 'user-edit', 'super') AS condition_name,
    day,
    ['none', 'delivered', 'received'][final_days.direction + 1] AS direction,
    ['open', 'final', 'exception'][final_days.state + 1] AS state,
    service_point,
    account,
    zone,
    source,
    payload
FROM final_days FINAL
ARRAY JOIN values AS v, conditions AS c, methods AS m, arrayEnumerate(values) AS slot
WHERE c != 0
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW registers /*cluster*/ AS
SELECT
    device,
    channel,
    unit,
    at,
    if(register_reads.condition >= 100000 AND register_reads.condition < 200000, NULL,
        reinterpret(register_reads.reading, 'Decimal(18, 6)')) AS reading,
    register_reads.condition AS condition,
    version,
    multiIf(register_reads.condition < 100000, 'invalid', register_reads.condition < 200000, 'missing', register_reads.condition < 300000, 'outage',
        register_reads.condition < 350000, 'system-estimate-poor', register_reads.condition < 400000, 'system-estimate-good', register_reads.condition < 450000, 'external-estimate',
        register_reads.condition < 500000, 'suspect', register_reads.condition < 600000, 'regular', register_reads.condition < 700000, 'user-edit', 'super') AS condition_name,
    transform(register_reads.method, [0, 1, 2, 3, 4, 5, 6, 7, 8],
        ['', 'interval-adjustment-from-scalar', 'interval-interpolation', 'scalar-estimation', 'like-day-average',
         'scalar-proration', 'profile', 'outage-zero', 'manual'],
        toString(register_reads.method)) AS method,
    ['none', 'delivered', 'received'][register_reads.direction + 1] AS direction,
    ['open', 'final', 'exception'][register_reads.state + 1] AS state,
    dials,
    reinterpret(register_reads.multiplier, 'Decimal(18, 6)') AS multiplier,
    service_point,
    account,
    zone,
    source,
    payload
FROM register_reads FINAL
WHERE register_reads.condition != 0
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW exceptions /*cluster*/ AS
SELECT rule, severity, device, channel, start, end, status, detail, count, id, version, service_point, payload
FROM vee_exceptions FINAL;

-- Sums of a day have kinds of their own (…-daily), so that adding up one kind never counts the same energy twice
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

-- A payload is stored when its root is there and every node has as many children as it announced. Children may become visible before
-- their parents, so counting all nodes would not do: each child is weighed with the hash of its parent's id
CREATE OR REPLACE VIEW payloads /*cluster*/ AS
SELECT
    payload AS id,
    max(parts.source) AS source,
    if(max(parts.format) != '', max(parts.format), max(wanted)) AS format,
    min(if(toUnixTimestamp(parts.received_at) = 0, NULL, parts.received_at)) AS received_at,
    multiIf(countIf(parts.status != '') = 0, 'received',
        countIf(parts.status = 'decoded') = 0, if(countIf(parts.status = 'dead') > 0, 'dead', 'duplicate'),
        sum(announced) = sum(found), 'stored', 'decoded') AS status,
    sumIf(parts.reads, parts.status != '') AS reads,
    sum(parts.finals) AS finals,
    sum(parts.exceptions) AS exceptions,
    sum(parts.parked) AS parked,
    sum(parts.dead) AS dead,
    countIf(agent = 'vee') AS blocks,
    max(parts.name) AS name,
    max(parts.bytes) AS bytes,
    max(parts.reason) AS reason
FROM
(
    SELECT
        payload, toUInt64(children) * cityHash64(receipts.id) AS announced, if(parent = '', 0, cityHash64(parent)) AS found,
        if(agent = 'ingest', toString(receipts.status), '') AS status,
        toString(source) AS source, toString(format) AS format, '' AS wanted, received_at, reads, finals, exceptions,
        parked, dead, toString(agent) AS agent, '' AS name, 0 AS bytes, reason
    FROM receipts FINAL
    UNION ALL
    SELECT
        id, 0, 0, '', toString(source), '', toString(format), received_at, 0, 0, 0, 0, 0, 'log', name, length(body), ''
    FROM payload_log FINAL
) AS parts
GROUP BY payload
HAVING countIf(parts.status != '' OR agent = 'log') > 0;

-- backward

DROP VIEW IF EXISTS payloads /*cluster*/ SYNC;
DROP VIEW IF EXISTS determinants /*cluster*/ SYNC;
DROP VIEW IF EXISTS exceptions /*cluster*/ SYNC;
DROP VIEW IF EXISTS registers /*cluster*/ SYNC;
DROP VIEW IF EXISTS intervals /*cluster*/ SYNC;
