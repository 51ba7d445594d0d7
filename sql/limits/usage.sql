-- Quotas: what is used. The lock of a counter's row makes a quota exact; a transaction that rolls back has used nothing.

CREATE FUNCTION tenancy._publish_quota_crossing(
    metric text, org_id text, user_id text, period text, period_start timestamptz, soft numeric, hard numeric, used numeric)
RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    -- Until there is an outbox, nobody is told.
    IF to_regprocedure('tenancy._publish(text,text,text,text,text,jsonb,jsonb,uuid,uuid)') IS NULL THEN
        RETURN false;
    END IF;
    PERFORM tenancy._publish(
        tenancy.tenant_id(), 'tenancy.quota.soft_limit_reached.v1', 'quota', _publish_quota_crossing.metric, 'pg_tenancy',
        jsonb_build_object('tenant_id', tenancy.tenant_id(), 'metric', _publish_quota_crossing.metric,
            'org_id', nullif(_publish_quota_crossing.org_id, ''), 'user_id', nullif(_publish_quota_crossing.user_id, ''),
            'period', _publish_quota_crossing.period,
            'period_start', CASE WHEN isfinite(_publish_quota_crossing.period_start) THEN _publish_quota_crossing.period_start END,
            'soft', _publish_quota_crossing.soft, 'hard', _publish_quota_crossing.hard,
            'used', _publish_quota_crossing.used),
        NULL, tenancy._correlation_uuid(tenancy.correlation_id()));
    RETURN true;
END
$$;
COMMENT ON FUNCTION tenancy._publish_quota_crossing(text, text, text, text, timestamptz, numeric, numeric, numeric) IS
'Publishes that a soft quota was reached, through the outbox. Whether there is one.';

CREATE FUNCTION tenancy._count_quota(metric text, amount numeric, enforce boolean) RETURNS tenancy.quota_state
LANGUAGE plpgsql
AS $$
DECLARE
    tenant text := tenancy.require_tenant();
    -- Not now(): a long transaction counts in the period in which it counts.
    at timestamptz := clock_timestamp();
    quota record;
    starts timestamptz;
    total numeric;
    attempt integer;
BEGIN
    FOR quota IN SELECT * FROM tenancy._quotas_for(_count_quota.metric) LOOP
        starts := tenancy._period_start(quota.period, at, quota.time_zone);
        FOR attempt IN 1..2 LOOP
            UPDATE tenancy.quota_usage AS u
               SET used = u.used + _count_quota.amount, updated_at = now()
             WHERE u.tenant_id = tenant AND u.org_id = quota.org_id AND u.user_id = quota.user_id
               AND u.metric = _count_quota.metric AND u.period = quota.period AND u.period_start = starts
               AND (NOT _count_quota.enforce OR quota.hard IS NULL OR u.used + _count_quota.amount <= quota.hard)
            RETURNING u.used INTO total;
            EXIT WHEN FOUND OR attempt = 2;
            INSERT INTO tenancy.quota_usage AS u (tenant_id, org_id, user_id, metric, period, period_start, used)
            VALUES (tenant, quota.org_id, quota.user_id, _count_quota.metric, quota.period, starts, 0)
            ON CONFLICT ON CONSTRAINT quota_usage_pkey DO NOTHING;
        END LOOP;
        IF total IS NULL THEN
            PERFORM tenancy._raise_quota_exceeded(tenant, _count_quota.metric, _count_quota.amount, quota.org_id,
                quota.user_id, quota.period, starts, quota.hard, tenancy._period_end(quota.period, at, quota.time_zone));
        END IF;
        IF quota.soft IS NOT NULL AND total >= quota.soft AND total - _count_quota.amount < quota.soft THEN
            PERFORM tenancy._publish_quota_crossing(_count_quota.metric, quota.org_id, quota.user_id, quota.period,
                starts, quota.soft, quota.hard, total);
        END IF;
        total := NULL;
    END LOOP;
    RETURN tenancy._quota_state(_count_quota.metric, 0, at);
END
$$;
COMMENT ON FUNCTION tenancy._count_quota(text, numeric, boolean) IS
'Counts an amount against every quota of the metric that binds the identity, all or none; with enforce PT429 quota_exceeded where a hard one would be passed. Returns the tightest quota as it stands after it. Soft ones reached publish an event.';

CREATE FUNCTION tenancy._raise_quota_exceeded(
    tenant_id text, metric text, amount numeric, org_id text, user_id text, period text, period_start timestamptz,
    hard numeric, resets_at timestamptz) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    counted numeric;
BEGIN
    SELECT u.used INTO counted
      FROM tenancy.quota_usage AS u
     WHERE u.tenant_id = _raise_quota_exceeded.tenant_id AND u.org_id = _raise_quota_exceeded.org_id
       AND u.user_id = _raise_quota_exceeded.user_id AND u.metric = _raise_quota_exceeded.metric
       AND u.period = _raise_quota_exceeded.period AND u.period_start = _raise_quota_exceeded.period_start;
    PERFORM tenancy._raise('PT429', 'quota_exceeded',
        format('Quota exceeded: %s', _raise_quota_exceeded.metric),
        CASE WHEN isfinite(_raise_quota_exceeded.resets_at)
             THEN format('It is renewed at %s.', _raise_quota_exceeded.resets_at)
             ELSE 'It is never renewed: ask for a higher one.' END,
        jsonb_build_object('metric', _raise_quota_exceeded.metric,
            'scope', tenancy._quota_scope(_raise_quota_exceeded.org_id, _raise_quota_exceeded.user_id),
            'period', _raise_quota_exceeded.period, 'hard', _raise_quota_exceeded.hard,
            'used', coalesce(counted, 0), 'requested', _raise_quota_exceeded.amount,
            'resets_at', CASE WHEN isfinite(_raise_quota_exceeded.resets_at) THEN _raise_quota_exceeded.resets_at END));
END
$$;
COMMENT ON FUNCTION tenancy._raise_quota_exceeded(text, text, numeric, text, text, text, timestamptz, numeric, timestamptz) IS
'Raises PT429 quota_exceeded with what was used, what was asked for and when the quota is renewed.';

CREATE FUNCTION tenancy._quota_scope(org_id text, user_id text) RETURNS text
LANGUAGE plpgsql
IMMUTABLE
AS $$
BEGIN
    RETURN CASE WHEN _quota_scope.user_id <> '' THEN 'user' WHEN _quota_scope.org_id <> '' THEN 'org' ELSE 'tenant' END;
END
$$;
COMMENT ON FUNCTION tenancy._quota_scope(text, text) IS 'What a counter counts: tenant, org or user.';

CREATE FUNCTION tenancy._quota_state(metric text, amount numeric, at timestamptz) RETURNS tenancy.quota_state
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    tightest tenancy.quota_state;
BEGIN
    SELECT q.hard IS NULL OR coalesce(u.used, 0) + _quota_state.amount <= q.hard,
           coalesce(u.used, 0)::numeric, q.soft, q.hard, CASE WHEN q.hard IS NOT NULL THEN greatest(q.hard - coalesce(u.used, 0), 0) END,
           tenancy._quota_scope(q.org_id, q.user_id), q.period,
           tenancy._period_end(q.period, _quota_state.at, q.time_zone)
      INTO tightest
      FROM tenancy._quotas_for(_quota_state.metric) AS q
      LEFT JOIN tenancy.quota_usage AS u
        ON u.tenant_id = tenancy.tenant_id() AND u.org_id = q.org_id AND u.user_id = q.user_id
       AND u.metric = _quota_state.metric AND u.period = q.period
       AND u.period_start = tenancy._period_start(q.period, _quota_state.at, q.time_zone)
     ORDER BY q.hard - coalesce(u.used, 0) NULLS LAST, q.org_id, q.user_id, q.period
     LIMIT 1;
    IF NOT FOUND THEN
        tightest.allowed := true;
    END IF;
    RETURN tightest;
END
$$;
COMMENT ON FUNCTION tenancy._quota_state(text, numeric, timestamptz) IS
'The tightest quota of the metric that binds the identity, and whether it has room for the amount; allowed and NULLs where none does.';

CREATE FUNCTION tenancy.check_quota(metric text, amount numeric DEFAULT 1) RETURNS tenancy.quota_state
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy.require_tenant();
    PERFORM tenancy._require_text(tenancy._require_value(check_quota.metric, 'metric'), 'metric', 100);
    PERFORM tenancy._require_value(check_quota.amount, 'amount');
    PERFORM tenancy._require_quantity(check_quota.amount, 'amount');
    RETURN tenancy._quota_state(check_quota.metric, check_quota.amount, clock_timestamp());
END
$$;
COMMENT ON FUNCTION tenancy.check_quota(text, numeric) IS
'Whether the identity''s quotas of a metric have room for an amount, without taking it. One row, the tightest quota: used so far in its period, soft, hard (NULL: unlimited), remaining, scope (tenant, org or user), period, resets_at. Without a quota: allowed, the rest NULL. To be sure, take it: tenancy.take_quota. Errors: PT401, 22023, 55000.';

CREATE FUNCTION tenancy.take_quota(metric text, amount numeric DEFAULT 1) RETURNS tenancy.quota_state
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_text(tenancy._require_value(take_quota.metric, 'metric'), 'metric', 100);
    PERFORM tenancy._require_value(take_quota.amount, 'amount');
    PERFORM tenancy._require_quantity(take_quota.amount, 'amount');
    IF take_quota.amount = 0 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'amount must be above 0',
            'To look without taking, call tenancy.check_quota.', '{"parameter": "amount"}');
    END IF;
    RETURN tenancy._count_quota(take_quota.metric, take_quota.amount, enforce => true);
END
$$;
COMMENT ON FUNCTION tenancy.take_quota(text, numeric) IS
'Counts an amount against every quota of the metric that binds the identity (its tenant, organization, user), all of them or none, exactly, and returns the tightest one as check_quota does. Undone with the transaction. Reaching a soft quota publishes an event. Errors: PT429 quota_exceeded (DETAIL says which, how much is used and when it is renewed), PT401, 22023, 40001, 55000.';

CREATE FUNCTION tenancy.prune_quota_usage(older_than interval DEFAULT '400 days', max_rows integer DEFAULT 10000) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    removed bigint;
BEGIN
    PERFORM tenancy._require_installed();
    IF prune_quota_usage.older_than IS NULL OR prune_quota_usage.older_than < interval '32 days' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'older_than must be at least 32 days',
            'A month''s counter is needed until the month is over.', '{"parameter": "older_than"}');
    END IF;
    IF prune_quota_usage.max_rows IS NULL OR prune_quota_usage.max_rows NOT BETWEEN 1 AND 1000000 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'max_rows must be between 1 and 1000000', 'The default is 10000.',
            '{"parameter": "max_rows"}');
    END IF;
    DELETE FROM tenancy.quota_usage AS u
     WHERE (u.tenant_id, u.org_id, u.user_id, u.metric, u.period, u.period_start) IN (
               SELECT old.tenant_id, old.org_id, old.user_id, old.metric, old.period, old.period_start
                 FROM tenancy.quota_usage AS old
                WHERE old.period <> 'lifetime' AND old.period_start < now() - least(prune_quota_usage.older_than, interval '4000 years')
                LIMIT prune_quota_usage.max_rows
                  FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;
COMMENT ON FUNCTION tenancy.prune_quota_usage(interval, integer) IS
'Deletes up to max_rows counters of periods that began longer ago than older_than; lifetime ones stay. Returns how many: call it again until it is fewer than max_rows. Errors: 22023, 55000.';
