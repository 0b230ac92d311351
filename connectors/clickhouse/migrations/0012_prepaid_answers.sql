-- Outcomes of prepaid requests tell what they answer: two requests of one id with different contents are told apart.

-- forward

ALTER TABLE prepaid_outcome_log /*cluster*/ ADD COLUMN IF NOT EXISTS content String CODEC(ZSTD(1)), MODIFY ORDER BY (id, at, status, content);

-- backward

TRUNCATE TABLE prepaid_outcome_log /*cluster*/;
