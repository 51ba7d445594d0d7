-- The outbox never grows without end.

CREATE FUNCTION tenancy.trim_events(
    retain interval DEFAULT '7 days',
    give_up_after interval DEFAULT '30 days',
    max_rows integer DEFAULT 10000
) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenants text[];
    ids uuid[];
BEGIN
    PERFORM tenancy._require_installed();
    IF trim_events.retain IS NULL OR trim_events.give_up_after IS NULL OR trim_events.max_rows IS NULL
       OR trim_events.retain < interval '0' OR trim_events.give_up_after < trim_events.retain
       OR trim_events.max_rows NOT BETWEEN 1 AND 1000000 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument',
            'retain must not be negative nor longer than give_up_after, max_rows between 1 and 1000000',
            'The defaults are 7 days, 30 days and 10000.');
    END IF;
    SELECT array_agg(v.tenant_id), array_agg(v.id) INTO tenants, ids
      FROM (SELECT o.tenant_id, o.id
              FROM tenancy.event_outbox AS o
             WHERE o.created_at < clock_timestamp() - trim_events.retain
               AND (o.created_at < clock_timestamp() - trim_events.give_up_after
                    OR NOT EXISTS (SELECT FROM tenancy.event_deliveries AS d
                                    WHERE d.tenant_id = o.tenant_id AND d.event_id = o.id)
                       AND NOT EXISTS (SELECT FROM tenancy.event_dead_letters AS l
                                        WHERE l.tenant_id = o.tenant_id AND l.event_id = o.id))
             ORDER BY o.created_at
             LIMIT trim_events.max_rows
               FOR UPDATE SKIP LOCKED) AS v;
    IF ids IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM tenancy.event_deliveries AS d
     USING unnest(tenants, ids) AS v (tenant_id, id)
     WHERE d.tenant_id = v.tenant_id AND d.event_id = v.id;
    DELETE FROM tenancy.event_dead_letters AS l
     USING unnest(tenants, ids) AS v (tenant_id, id)
     WHERE l.tenant_id = v.tenant_id AND l.event_id = v.id;
    DELETE FROM tenancy.event_outbox AS o
     USING unnest(tenants, ids) AS v (tenant_id, id)
     WHERE o.tenant_id = v.tenant_id AND o.id = v.id;
    RETURN cardinality(ids);
END
$$;

COMMENT ON FUNCTION tenancy.trim_events(interval, interval, integer) IS
'Removes up to max_rows events older than retain that no consumer has pending or given up; after give_up_after also those, with what is pending of them. Returns how many: call it again until it is fewer than max_rows, from a scheduler. Logical decoding is not affected. Errors: 22023, 55000.';
