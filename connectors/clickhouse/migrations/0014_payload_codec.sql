-- Payload bodies are written once and seldom read: what a higher level saves of them costs more processor time than disk.

-- forward

ALTER TABLE payload_log /*cluster*/ MODIFY COLUMN body String CODEC(ZSTD(1));

-- backward

ALTER TABLE payload_log /*cluster*/ MODIFY COLUMN body String CODEC(ZSTD(3));
