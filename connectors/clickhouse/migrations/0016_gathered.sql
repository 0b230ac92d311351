-- What a payload leads to may be published by a later tick: its receipts say until which time, and its work is done when that tick's is.

-- forward

ALTER TABLE receipts /*cluster*/ ADD COLUMN IF NOT EXISTS until Int64 CODEC(T64, ZSTD(1));

-- Stored: the root is there, every node has as many children as it announced, and the same holds of all ticks up to the one that publishes
-- what was gathered, the first of that time or later
CREATE OR REPLACE VIEW payloads /*cluster*/ AS
WITH (
    SELECT min(reached) FROM (
        SELECT maxIf(tick, tick < stop) AS reached FROM (
            SELECT partition, tick, min(if(complete, 4294967295, tick)) OVER (PARTITION BY partition) AS stop FROM (
                SELECT
                    splitByChar('/', payload)[3] AS partition, toInt64(toUnixTimestamp(any(at))) AS tick,
                    countIf(agent = 'ingest') > 0
                        AND sum(toUInt64(children) * cityHash64(id)) = sumIf(cityHash64(parent), parent != '') AS complete
                FROM tick_receipts FINAL WHERE at >= (SELECT max(at) - 900 FROM tick_receipts) GROUP BY payload
            )
        ) GROUP BY partition
    )
) AS ticked
SELECT
    payload AS id,
    max(parts.source) AS source,
    if(max(parts.format) != '', max(parts.format), max(wanted)) AS format,
    min(if(toUnixTimestamp(parts.received_at) = 0, NULL, parts.received_at)) AS received_at,
    multiIf(countIf(parts.status != '') = 0, 'received',
        countIf(parts.status = 'decoded') = 0, if(countIf(parts.status = 'dead') > 0, 'dead', 'duplicate'),
        sum(announced) = sum(found) AND (max(parts.until) = 0 OR max(parts.until) <= ticked), 'stored', 'decoded') AS status,
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
        parked, dead, toString(agent) AS agent, '' AS name, 0 AS bytes, reason, until
    FROM receipts FINAL
    UNION ALL
    SELECT
        id, 0, 0, '', toString(source), '', toString(format), received_at, 0, 0, 0, 0, 0, 'log', name, length(body), '', 0
    FROM payload_log FINAL
) AS parts
GROUP BY payload
HAVING countIf(parts.status != '' OR agent = 'log') > 0;

-- backward

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

ALTER TABLE receipts /*cluster*/ DROP COLUMN IF EXISTS until;
