-- Notices of one account have a number, so that those of one moment are told in the order they came about

-- forward

ALTER TABLE prepaid_notice_log /*cluster*/ ADD COLUMN IF NOT EXISTS sequence Int64 CODEC(T64, ZSTD(1));

CREATE OR REPLACE VIEW prepaid_notices /*cluster*/ AS
SELECT id, account, at, not_before, kind, level, balance, currency, days_left, amount, cut_from, detail, sequence
FROM prepaid_notice_log FINAL;

-- backward

CREATE OR REPLACE VIEW prepaid_notices /*cluster*/ AS
SELECT id, account, at, not_before, kind, level, balance, currency, days_left, amount, cut_from, detail
FROM prepaid_notice_log FINAL;

ALTER TABLE prepaid_notice_log /*cluster*/ DROP COLUMN IF EXISTS sequence;
