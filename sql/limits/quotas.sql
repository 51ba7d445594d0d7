-- Quotas: the rules, and the calendar they follow. What is used: usage.sql.

CREATE FUNCTION tenancy._period_start(period text, at timestamptz, time_zone text) RETURNS timestamptz
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF _period_start.period = 'lifetime' THEN
        RETURN '-infinity';
    END IF;
    RETURN date_trunc(_period_start.period, _period_start.at, _period_start.time_zone);
END
$$;
COMMENT ON FUNCTION tenancy._period_start(text, timestamptz, text) IS
'Begin of the calendar period (hour, day, week from Monday, month) that a time lies in, by the calendar of a time zone; -infinity for lifetime.';

CREATE FUNCTION tenancy._period_end(period text, at timestamptz, time_zone text) RETURNS timestamptz
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE _period_end.period
        WHEN 'lifetime' THEN 'infinity'
        -- An hour is an hour, also where the clocks change; the others are as long as the zone's calendar makes them.
        -- A day may begin at 01:00, where midnight is skipped: count from the calendar's day, not from its first moment.
        WHEN 'hour' THEN date_trunc('hour', _period_end.at, _period_end.time_zone) + interval '1 hour'
        ELSE (date_trunc(_period_end.period, _period_end.at AT TIME ZONE _period_end.time_zone)
              + ('1 ' || _period_end.period)::interval) AT TIME ZONE _period_end.time_zone
    END;
END
$$;
COMMENT ON FUNCTION tenancy._period_end(text, timestamptz, text) IS
'End of the calendar period that a time lies in: the begin of the next one; infinity for lifetime.';

CREATE FUNCTION tenancy._require_quota(metric text, soft numeric, hard numeric, period text, time_zone text) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tenancy._require_value(_require_quota.metric, 'metric');
    PERFORM tenancy._require_text(_require_quota.metric, 'metric', 100);
    PERFORM tenancy._require_one_of(_require_quota.period, 'period', ARRAY['hour', 'day', 'week', 'month', 'lifetime']);
    PERFORM tenancy._require_quantity(_require_quota.soft, 'soft'), tenancy._require_quantity(_require_quota.hard, 'hard');
    IF _require_quota.soft > _require_quota.hard THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'soft must not be above hard',
            'The soft quota is reached first, and publishes an event.', '{"parameter": "soft"}');
    END IF;
    IF _require_quota.time_zone IS NULL
       OR NOT EXISTS (SELECT FROM pg_timezone_names AS z WHERE z.name = _require_quota.time_zone) THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'time_zone must be the name of a time zone',
            'Names of zones are in pg_timezone_names, such as Europe/Stockholm.', '{"parameter": "time_zone"}');
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION tenancy._require_quota(text, numeric, numeric, text, text) IS
'True for what can be a quota. Error: 22023 invalid_argument.';

CREATE FUNCTION tenancy._require_quantity(value numeric, parameter text) RETURNS numeric
LANGUAGE plpgsql
IMMUTABLE
AS $$
BEGIN
    -- NaN is above every number.
    IF _require_quantity.value < 0 OR _require_quantity.value >= 1e18
       OR scale(trim_scale(_require_quantity.value)) > 6 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument',
            format('%s must be at least 0, below 10^18, with at most 6 decimals', _require_quantity.parameter),
            'It is never rounded.', jsonb_build_object('parameter', _require_quantity.parameter));
    END IF;
    RETURN _require_quantity.value;
END
$$;
COMMENT ON FUNCTION tenancy._require_quantity(numeric, text) IS
'Returns value if it is NULL or a quantity: 0 or more, below 10^18, at most 6 decimals. Error: 22023 invalid_argument.';

CREATE FUNCTION tenancy._quota_subject(id text, namespace text, parameter text) RETURNS text
LANGUAGE plpgsql
AS $$
BEGIN
    IF _quota_subject.id IS NULL THEN
        RETURN '';
    END IF;
    IF _quota_subject.id = '*' THEN
        RETURN '*';
    END IF;
    PERFORM tenancy._require_id(_quota_subject.id, _quota_subject.parameter);
    RETURN tenancy._tenant_name(tenancy._require_namespace(_quota_subject.namespace), _quota_subject.id);
END
$$;
COMMENT ON FUNCTION tenancy._quota_subject(text, text, text) IS
'How quotas and quota_usage write an organization or user: with its namespace; empty for none, * for each.';

CREATE FUNCTION tenancy.set_quota(
    metric text, soft numeric, hard numeric, period text,
    tenant_id text DEFAULT NULL, org_id text DEFAULT NULL, user_id text DEFAULT NULL,
    time_zone text DEFAULT 'UTC', namespace text DEFAULT '') RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_quota(set_quota.metric, set_quota.soft, set_quota.hard, set_quota.period, set_quota.time_zone);
    PERFORM tenancy._require_limit_scope(set_quota.metric, set_quota.tenant_id);
    INSERT INTO tenancy.quotas AS q (tenant_id, org_id, user_id, metric, period, soft, hard, time_zone)
    VALUES (coalesce(set_quota.tenant_id, '*'),
            tenancy._quota_subject(set_quota.org_id, set_quota.namespace, 'org_id'),
            tenancy._quota_subject(set_quota.user_id, set_quota.namespace, 'user_id'),
            set_quota.metric, set_quota.period, set_quota.soft, set_quota.hard, set_quota.time_zone)
    ON CONFLICT ON CONSTRAINT quotas_pkey DO UPDATE
       SET soft = EXCLUDED.soft, hard = EXCLUDED.hard, time_zone = EXCLUDED.time_zone, updated_at = now()
     WHERE (q.soft, q.hard, q.time_zone) IS DISTINCT FROM (EXCLUDED.soft, EXCLUDED.hard, EXCLUDED.time_zone);
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION tenancy.set_quota(text, numeric, numeric, text, text, text, text, text, text) IS
'Sets how much of a metric may be used in a calendar period (hour, day, week, month or lifetime, in time_zone). soft: reaching it publishes one event a period; hard: take_quota raises PT429 beyond it; NULL: none. Counts the whole tenant, or an organization, or a user (in an organization, where both are named); org_id or user_id ''*'': each by itself. Without tenant_id: for every tenant that has none of its own. Returns whether it changed. Errors: 22023, 55000.';

CREATE FUNCTION tenancy.remove_quota(
    metric text, period text, tenant_id text DEFAULT NULL, org_id text DEFAULT NULL, user_id text DEFAULT NULL,
    namespace text DEFAULT '') RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    DELETE FROM tenancy.quotas AS q
     WHERE q.tenant_id = coalesce(remove_quota.tenant_id, '*')
       AND q.org_id = tenancy._quota_subject(remove_quota.org_id, remove_quota.namespace, 'org_id')
       AND q.user_id = tenancy._quota_subject(remove_quota.user_id, remove_quota.namespace, 'user_id')
       AND q.metric = remove_quota.metric
       AND q.period = remove_quota.period;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION tenancy.remove_quota(text, text, text, text, text, text) IS
'Removes the quota that set_quota made with the same scope. What was counted stays. Returns whether there was one. Errors: 22023, 55000.';

CREATE FUNCTION tenancy.set_plan_quota(
    plan_type text, metric text, soft numeric, hard numeric, period text, time_zone text DEFAULT 'UTC') RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(set_plan_quota.plan_type, 'plan_type');
    PERFORM tenancy._require_quota(set_plan_quota.metric, set_plan_quota.soft, set_plan_quota.hard,
                                   set_plan_quota.period, set_plan_quota.time_zone);
    INSERT INTO tenancy.quota_plans AS p (plan_type, metric, period, soft, hard, time_zone)
    VALUES (set_plan_quota.plan_type, set_plan_quota.metric, set_plan_quota.period, set_plan_quota.soft,
            set_plan_quota.hard, set_plan_quota.time_zone)
    ON CONFLICT ON CONSTRAINT quota_plans_pkey DO UPDATE
       SET soft = EXCLUDED.soft, hard = EXCLUDED.hard, time_zone = EXCLUDED.time_zone, updated_at = now()
     WHERE (p.soft, p.hard, p.time_zone) IS DISTINCT FROM (EXCLUDED.soft, EXCLUDED.hard, EXCLUDED.time_zone);
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION tenancy.set_plan_quota(text, text, numeric, numeric, text, text) IS
'Sets the quota that comes with a plan (organization_subscriptions.plan_type), for whoever has none of their own for the metric and period. Plan free is also that of an unknown plan and of nobody''s. Returns whether it changed. Errors: 22023, 55000.';

CREATE FUNCTION tenancy._plan_of(tenant_id text, organization_id uuid) RETURNS text
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    plan text;
BEGIN
    SELECT s.plan_type INTO plan
      FROM tenancy.organization_subscriptions AS s
     WHERE s.organization_id = _plan_of.organization_id
       AND s.tenant_id = _plan_of.tenant_id
       AND s.status IN ('active', 'trialing');
    IF plan IS NULL OR NOT EXISTS (SELECT FROM tenancy.quota_plans AS p WHERE p.plan_type = plan) THEN
        RETURN 'free';
    END IF;
    RETURN plan;
END
$$;
COMMENT ON FUNCTION tenancy._plan_of(text, uuid) IS
'The plan of an organization''s live subscription; free without one, or where the plan is not in quota_plans.';

CREATE FUNCTION tenancy._quotas_for(metric text)
RETURNS TABLE (org_id text, user_id text, period text, time_zone text, soft numeric, hard numeric)
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    namespace text := coalesce(tenancy.identity_namespace(), '');
    own_tenant text := tenancy.tenant_id();
    own_org text := tenancy._tenant_name(namespace, tenancy.org_id());
    own_user text := tenancy._tenant_name(namespace, tenancy.user_id());
BEGIN
    RETURN QUERY
    WITH own AS (
        -- The tenant's own row wins over everybody's, an organization's over each organization's, and so on.
        SELECT DISTINCT ON (1, 2, 3)
               CASE q.org_id WHEN '' THEN '' ELSE own_org END AS org_id,
               CASE q.user_id WHEN '' THEN '' ELSE own_user END AS user_id,
               q.period, q.time_zone, q.soft::numeric AS soft, q.hard::numeric AS hard
          FROM tenancy.quotas AS q
         WHERE q.metric = _quotas_for.metric
           AND q.tenant_id IN (own_tenant, '*')
           AND (q.org_id = '' OR (own_org IS NOT NULL AND q.org_id IN (own_org, '*')))
           AND q.user_id IN ('', own_user, '*')
         ORDER BY 1, 2, 3, q.tenant_id = '*', q.org_id = '*', q.user_id = '*'
    )
    SELECT o.org_id, o.user_id, o.period, o.time_zone, o.soft, o.hard FROM own AS o
    UNION ALL
    SELECT coalesce(own_org, ''), '', p.period, p.time_zone, p.soft::numeric, p.hard::numeric
      FROM tenancy.quota_plans AS p
     WHERE p.metric = _quotas_for.metric
       AND p.plan_type = tenancy._plan_of(own_tenant, tenancy.organization_id())
       AND NOT EXISTS (SELECT FROM own AS o
                        WHERE o.org_id = coalesce(own_org, '') AND o.user_id = '' AND o.period = p.period)
     -- Everybody locks the counters of a metric in this order.
     ORDER BY 1, 2, 3;
END
$$;
COMMENT ON FUNCTION tenancy._quotas_for(text) IS
'The quotas of a metric that bind the identity: which counters (org_id and user_id as in quota_usage), and how much. In the order in which counters are locked.';
