-- Health: work that waits for somebody: events, holds, rows past their time, the rate limiter's table.

CREATE FUNCTION tenancy._health_outbox()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
BEGIN
    IF to_regclass('tenancy.event_dead_letters') IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH consumer AS (
        SELECT c.consumer, now() - min(d.created_at) AS lag, count(d.event_id) AS pending
          FROM tenancy.event_consumers AS c
          JOIN tenancy.event_deliveries AS d ON d.consumer = c.consumer
         GROUP BY c.consumer
    )
    SELECT 'outbox'::text, CASE WHEN c.lag > interval '1 hour' THEN 'error' ELSE 'warning' END,
           format('consumer "%s" is behind: %s events, the oldest from %s ago', c.consumer, c.pending, date_trunc('second', c.lag)),
           'Start the consumer, or SELECT tenancy.drop_event_consumer(…) if it is gone.'
      FROM consumer AS c
     WHERE c.lag > interval '5 minutes'
    UNION ALL
    SELECT 'outbox', 'warning', format('consumer "%s" gave up on %s events', l.consumer, count(*)),
           'Look at tenancy.event_dead_letters, mend the consumer, then SELECT tenancy.requeue_event(consumer, event_id);'
      FROM tenancy.event_dead_letters AS l
     GROUP BY l.consumer
     ORDER BY 2, 3;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'outbox'::text, 'ok'::text, format('%s consumers, none behind', count(*)), NULL::text
                       FROM tenancy.event_consumers;
    END IF;
END
$$;

COMMENT ON FUNCTION tenancy._health_outbox() IS
'Check "outbox": consumers with an event older than 5 minutes (an hour: error), and events they gave up on.';

CREATE FUNCTION tenancy._health_holds()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    since constant timestamptz := now() - interval '1 hour';
    holds bigint;
    grants bigint;
BEGIN
    IF to_regclass('tenancy.credit_holds') IS NULL THEN
        RETURN;
    END IF;
    SELECT count(*) INTO holds FROM tenancy.credit_holds AS h WHERE h.status = 'held' AND h.expires_at < since;
    SELECT count(*) INTO grants FROM tenancy.credit_grants AS g
     WHERE g.is_open AND (g.is_posted AND g.expires_at < since OR NOT g.is_posted AND g.effective_at < since);
    RETURN QUERY SELECT 'holds'::text, CASE WHEN holds + grants > 0 THEN 'warning' ELSE 'ok' END,
                        CASE WHEN holds + grants > 0
                             THEN format('%s holds and %s grants are due for more than an hour and not settled', holds, grants)
                             ELSE 'no hold or grant is due for more than an hour' END,
                        CASE WHEN holds + grants > 0 THEN 'SELECT tenancy.sweep_credits(); every few minutes, from a scheduler.' END;
END
$$;

COMMENT ON FUNCTION tenancy._health_holds() IS
'Check "holds": holds and grants that ended (or begin) more than an hour ago and are not settled yet. Nothing is wrong with them: whoever charges the pool settles it first.';

CREATE FUNCTION tenancy._health_retention()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
BEGIN
    IF to_regclass('tenancy.event_inbox') IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT 'retention'::text, 'warning'::text, format('%s has rows from %s', t.name, t.oldest::date), t.remedy
      FROM (VALUES
            ('tenancy.event_outbox', (SELECT min(o.created_at) FROM tenancy.event_outbox AS o), interval '45 days', 'SELECT tenancy.trim_events();'),
            ('tenancy.event_inbox', (SELECT min(greatest(i.received_at, i.event_timestamp)) FROM tenancy.event_inbox AS i), interval '45 days', 'SELECT tenancy.trim_inbox();'),
            ('tenancy.audit_log', (SELECT min(a.created_at) FROM tenancy.audit_log AS a WHERE a.action <> 'master_key_backup'), interval '800 days', 'SELECT tenancy.trim_audit();'),
            ('tenancy.revocations', (SELECT min(r.expires_at) FROM tenancy.revocations AS r), interval '45 days', 'SELECT tenancy.trim_revocations();')
           ) AS t (name, oldest, most, remedy)
     WHERE t.oldest < now() - t.most
     ORDER BY t.name;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'retention'::text, 'ok'::text, 'no table keeps rows long past their time'::text, NULL::text;
    END IF;
END
$$;

COMMENT ON FUNCTION tenancy._health_retention() IS
'Check "retention": events of 45 days and audit entries of 800 days that nobody has trimmed, revocations 45 days past their end.';

CREATE FUNCTION tenancy._health_limiter()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
BEGIN
    RETURN QUERY
    SELECT 'limiter'::text, CASE WHEN c.used > 0.9 * c.most THEN 'warning' ELSE 'ok' END,
           format('%s of %s cells are in use', c.used, c.most),
           CASE WHEN c.used > 0.9 * c.most THEN 'Raise tenancy.limiter_cells and restart the server.' END
      FROM (SELECT max(m.value) FILTER (WHERE m.labels ->> 'state' = 'used') AS used,
                   max(m.value) FILTER (WHERE m.labels ->> 'state' = 'limit') AS most
              FROM tenancy._shared_metrics() AS m
             WHERE m.name = 'pg_tenancy_limiter_cells') AS c
     WHERE c.most IS NOT NULL;
END
$$;

COMMENT ON FUNCTION tenancy._health_limiter() IS
'Check "limiter": is the rate limiter''s table nearly full (over 90 %)? No row without preload.';
