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
    types text[];
    aggregates text[];
BEGIN
    PERFORM tenancy._require_installed();
    IF trim_events.retain IS NULL OR trim_events.give_up_after IS NULL OR trim_events.max_rows IS NULL
       OR trim_events.retain < interval '0' OR trim_events.give_up_after < trim_events.retain
       OR trim_events.max_rows NOT BETWEEN 1 AND 1000000 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument',
            'retain must not be negative nor longer than give_up_after, max_rows between 1 and 1000000',
            'The defaults are 7 days, 30 days and 10000.');
    END IF;
    SELECT array_agg(v.tenant_id), array_agg(v.id), array_agg(v.aggregatetype), array_agg(v.aggregateid)
      INTO tenants, ids, types, aggregates
      FROM (SELECT o.tenant_id, o.id, o.aggregatetype, o.aggregateid
              FROM tenancy.event_outbox AS o
             WHERE o.created_at < clock_timestamp() - least(trim_events.retain, interval '4000 years')
               AND (o.created_at < clock_timestamp() - least(trim_events.give_up_after, interval '4000 years')
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
    PERFORM tenancy._forget_streams(tenants, types, aggregates);
    RETURN cardinality(ids);
END
$$;

COMMENT ON FUNCTION tenancy.trim_events(interval, interval, integer) IS
'Removes up to max_rows events older than retain that no consumer has pending or given up; after give_up_after also those, with what is pending of them. Returns how many: call it again until it is fewer than max_rows, from a scheduler. Logical decoding is not affected. Errors: 22023, 55000.';

CREATE FUNCTION tenancy._forget_streams(tenant_ids text[], aggregate_types text[], aggregate_ids text[]) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    tenants text[];
    types text[];
    aggregates text[];
    sequences bigint[];
BEGIN
    -- Whoever publishes about an aggregate holds its row: that one is left alone.
    SELECT array_agg(l.tenant_id), array_agg(l.aggregatetype), array_agg(l.aggregateid), array_agg(l.last_sequence)
      INTO tenants, types, aggregates, sequences
      FROM (SELECT s.tenant_id, s.aggregatetype, s.aggregateid, s.last_sequence
              FROM (SELECT DISTINCT u.* FROM unnest(_forget_streams.tenant_ids, _forget_streams.aggregate_types,
                                                    _forget_streams.aggregate_ids) AS u (tenant_id, type, id)) AS v
              JOIN tenancy.event_streams AS s
                ON s.tenant_id = v.tenant_id AND s.aggregatetype = v.type AND s.aggregateid = v.id
             WHERE NOT EXISTS (SELECT FROM tenancy.event_outbox AS o
                                WHERE o.tenant_id = s.tenant_id AND o.aggregatetype = s.aggregatetype
                                  AND o.aggregateid = s.aggregateid)
             ORDER BY s.tenant_id, s.aggregatetype, s.aggregateid
               FOR UPDATE OF s SKIP LOCKED) AS l;
    INSERT INTO tenancy.event_stream_horizons AS h (tenant_id, forgotten_sequence)
    SELECT v.tenant_id, max(v.sequence) FROM unnest(tenants, sequences) AS v (tenant_id, sequence)
     GROUP BY v.tenant_id
     ORDER BY v.tenant_id
    ON CONFLICT ON CONSTRAINT event_stream_horizons_pkey DO UPDATE
       SET forgotten_sequence = greatest(h.forgotten_sequence, EXCLUDED.forgotten_sequence), updated_at = now();
    -- Asked again under the lock: an event may have been committed in between.
    DELETE FROM tenancy.event_streams AS s
     USING unnest(tenants, types, aggregates) AS v (tenant_id, type, id)
     WHERE s.tenant_id = v.tenant_id AND s.aggregatetype = v.type AND s.aggregateid = v.id
       AND NOT EXISTS (SELECT FROM tenancy.event_outbox AS o
                        WHERE o.tenant_id = s.tenant_id AND o.aggregatetype = s.aggregatetype AND o.aggregateid = s.aggregateid);
END
$$;

COMMENT ON FUNCTION tenancy._forget_streams(text[], text[], text[]) IS
'Removes the rows of event_streams of those aggregates that have no event left, and notes how far their sequences had come.';
