-- Metrics: what backends counted in shared memory, and what tables say now.

COMMENT ON FUNCTION tenancy._observe_llm(double precision, bigint, bigint) IS
'Counts tokens and latency of a call of a language model in shared memory.';
COMMENT ON FUNCTION tenancy._count_refusal(text, text) IS
'Counts an outcome PT401 to PT429 in shared memory, by its reason. Called by _raise with the caller''s rights.';
COMMENT ON FUNCTION tenancy._metric_tenants() IS
'The tenants that are counted by name: the first tenancy.metrics_tenants that were seen.';
COMMENT ON FUNCTION tenancy._shared_metrics() IS
'The figures that are kept in shared memory, of this database; no row without preload.';
COMMENT ON FUNCTION tenancy.metrics_text() IS
'tenancy.metrics() as OpenMetrics 1.0 text, for a scraper. Errors: 55000.';

CREATE FUNCTION tenancy._table_metrics()
RETURNS TABLE (name text, kind text, labels jsonb, value double precision)
LANGUAGE plpgsql
AS $$
DECLARE
    named text[] := tenancy._metric_tenants();
BEGIN
    RETURN QUERY
    WITH pools AS MATERIALIZED (
        SELECT CASE WHEN p.tenant_id = ANY (named) THEN p.tenant_id ELSE 'other' END AS tenant, count(*) AS pools,
               sum(p.balance) AS balance, sum(p.held) AS held,
               count(*) FILTER (WHERE p.balance - p.held <= 0 OR p.balance - p.held < p.alert_below) AS low
          FROM tenancy.credit_pools AS p
         GROUP BY 1
    )
    SELECT f.name, 'gauge'::text, jsonb_build_object('tenant', p.tenant), f.value::double precision
      FROM pools AS p,
           LATERAL (VALUES (1, 'pg_tenancy_pool_balance_credits', p.balance), (2, 'pg_tenancy_pool_held_credits', p.held),
                           (3, 'pg_tenancy_pools', p.pools), (4, 'pg_tenancy_pools_low', p.low)) AS f (place, name, value)
     ORDER BY f.place, p.tenant;
    -- Tables of other domains, which may not be there yet.
    IF to_regclass('tenancy.credit_holds') IS NOT NULL THEN
        RETURN QUERY EXECUTE
            'SELECT ''pg_tenancy_open_holds'', ''gauge'', jsonb_build_object(''tenant'', h.tenant), count(*)::double precision
               FROM (SELECT CASE WHEN o.tenant_id = ANY ($1) THEN o.tenant_id ELSE ''other'' END AS tenant
                       FROM tenancy.credit_holds AS o WHERE o.status = ''held'') AS h
              GROUP BY h.tenant ORDER BY h.tenant' USING named;
    END IF;
    IF to_regclass('tenancy.event_deliveries') IS NOT NULL THEN
        RETURN QUERY EXECUTE
            'WITH consumers AS MATERIALIZED (
                 SELECT c.consumer, count(d.event_id) AS pending,
                        coalesce(extract(epoch FROM clock_timestamp() - min(d.created_at)), 0) AS lag,
                        (SELECT count(*) FROM tenancy.event_dead_letters AS l WHERE l.consumer = c.consumer) AS dead
                   FROM tenancy.event_consumers AS c
                   LEFT JOIN tenancy.event_deliveries AS d ON d.consumer = c.consumer
                  GROUP BY c.consumer)
             SELECT f.name, ''gauge'', jsonb_build_object(''consumer'', c.consumer), f.value::double precision
               FROM consumers AS c,
                    LATERAL (VALUES (1, ''pg_tenancy_outbox_pending'', c.pending::numeric),
                                    (2, ''pg_tenancy_outbox_lag_seconds'', c.lag),
                                    (3, ''pg_tenancy_outbox_dead_letters'', c.dead)) AS f (place, name, value)
              ORDER BY f.place, c.consumer';
    END IF;
END
$$;
COMMENT ON FUNCTION tenancy._table_metrics() IS
'Gauges that are read from tables: pools and holds by tenant (those not counted by name as other), the outbox by consumer.';

CREATE FUNCTION tenancy.metrics()
RETURNS TABLE (name text, kind text, labels jsonb, value double precision)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    shared boolean;
BEGIN
    PERFORM tenancy._require_installed();
    RETURN QUERY SELECT s.name, s.kind, s.labels, s.value FROM tenancy._shared_metrics() AS s;
    shared := FOUND;
    RETURN QUERY SELECT 'pg_tenancy_preloaded'::text, 'gauge'::text, '{}'::jsonb, shared::integer::double precision;
    RETURN QUERY SELECT t.name, t.kind, t.labels, t.value FROM tenancy._table_metrics() AS t;
END
$$;
COMMENT ON FUNCTION tenancy.metrics() IS
'The extension''s figures in this database, a row each: name as OpenMetrics writes it, kind (counter, gauge, histogram), labels, value in seconds, credits or counts. Counters live in shared memory: they need preload, begin at zero with the server, and are not undone by a rollback. tenant: the first tenancy.metrics_tenants tenants by name, the rest summed as other; empty: no tenant. Errors: 55000.';
