-- Where things lie, taken out of master data when it is stored, so that rights that are bounded to an area are quick with a million meters:
-- a service point as its newest span says; the devices, service points and accounts of installs, channels, components and subscriptions, span by span.

-- forward

ALTER TABLE master_objects /*cluster*/
    ADD COLUMN IF NOT EXISTS utility LowCardinality(String)
        MATERIALIZED if(kind = 'service_point', JSONExtractString(span_body[-1], 'attributes', 'utility'), ''),
    ADD COLUMN IF NOT EXISTS region LowCardinality(String)
        MATERIALIZED if(kind = 'service_point', JSONExtractString(span_body[-1], 'region'), ''),
    ADD COLUMN IF NOT EXISTS commodity LowCardinality(String)
        MATERIALIZED if(kind = 'service_point', JSONExtractString(span_body[-1], 'commodity'), ''),
    ADD COLUMN IF NOT EXISTS places Array(Tuple(device String, service_point String, account String))
        MATERIALIZED multiIf(
            kind IN ('install', 'channel', 'component'),
            arrayMap(body -> (JSONExtractString(body, 'device'), JSONExtractString(body, 'service_point'),
                if(kind = 'channel', JSONExtractString(body, 'account'), '')), span_body),
            kind = 'subscription',
            arrayFlatten(arrayMap(body -> arrayMap(point -> ('', point, object), JSONExtract(body, 'service_points', 'Array(String)')),
                span_body)),
            []);

-- backward

ALTER TABLE master_objects /*cluster*/
    DROP COLUMN IF EXISTS utility, DROP COLUMN IF EXISTS region, DROP COLUMN IF EXISTS commodity, DROP COLUMN IF EXISTS places;
