-- Run units (contract G): what runs of tools cost an organization, and what its plan allows.

COMMENT ON FUNCTION tenancy.run_units(double precision, double precision, text, text) IS
'Run units of a run: the larger of CPU and GPU seconds, times the tier (standard 1, heavy 1.5, ultra 3), plus the tool''s overhead; at least 0.01, rounded to 4 decimals as the original does it. Error: 22023.';

CREATE FUNCTION tenancy.record_run_units(
    tool_name text DEFAULT 'default', cpu_seconds double precision DEFAULT 0, gpu_seconds double precision DEFAULT 0,
    tier text DEFAULT 'standard', thread_id text DEFAULT NULL, latency_ms double precision DEFAULT NULL) RETURNS numeric
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant text := tenancy.require_tenant();
    namespace text := coalesce(tenancy.identity_namespace(), '');
    units numeric;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(record_run_units.tool_name, 'tool_name'), tenancy._require_id(record_run_units.tier, 'tier');
    PERFORM tenancy._require_text(record_run_units.thread_id, 'thread_id', 255);
    IF NOT coalesce(record_run_units.latency_ms BETWEEN 0 AND 1e9, true) THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'latency_ms must be a number of milliseconds',
            'Leave it out where it is not known.', '{"parameter": "latency_ms"}');
    END IF;
    units := tenancy.run_units(record_run_units.cpu_seconds, record_run_units.gpu_seconds, record_run_units.tier,
                               record_run_units.tool_name);
    INSERT INTO tenancy.usage_records (tenant_id, org_id, user_id, thread_id, tool_name, run_units, tier, cpu_seconds,
                                       gpu_seconds, latency_ms, period, created_at)
    VALUES (tenant, coalesce(tenancy._tenant_name(namespace, tenancy.org_id()), ''),
            tenancy._tenant_name(namespace, tenancy.user_id()), record_run_units.thread_id, record_run_units.tool_name,
            units, record_run_units.tier, record_run_units.cpu_seconds, record_run_units.gpu_seconds,
            record_run_units.latency_ms, tenancy._current_month(), clock_timestamp());
    -- The run has been made: it counts, whether or not the plan had room. check_run_units asks before.
    PERFORM tenancy._count_quota('run_units', units, enforce => false);
    RETURN units;
END
$$;
COMMENT ON FUNCTION tenancy.record_run_units(text, double precision, double precision, text, text, double precision) IS
'Records one run of a tool for the identity and returns its run units (tenancy.run_units). Counts against the quota run_units, but is never refused for it: the run has been made (ask tenancy.check_run_units before it). Errors: PT401, 22023, 40001, 55000.';

CREATE FUNCTION tenancy._current_month() RETURNS text
LANGUAGE plpgsql
STABLE
AS $$ BEGIN RETURN to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM'); END $$;
COMMENT ON FUNCTION tenancy._current_month() IS 'The month now, YYYY-MM, UTC.';

CREATE FUNCTION tenancy._require_month(period text) RETURNS text
LANGUAGE plpgsql
STABLE
AS $$
BEGIN
    IF _require_month.period !~ '^[0-9]{4}-(0[1-9]|1[0-2])$' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'period must be a month, YYYY-MM', 'Such as 2026-02; NULL: this month.',
            '{"parameter": "period"}');
    END IF;
    RETURN coalesce(_require_month.period, tenancy._current_month());
END
$$;
COMMENT ON FUNCTION tenancy._require_month(text) IS 'Returns a month YYYY-MM, the current one (UTC) for NULL. Error: 22023.';

CREATE FUNCTION tenancy.check_run_units(estimate numeric DEFAULT 0) RETURNS jsonb
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant text := tenancy.require_tenant();
    state record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(check_run_units.estimate, 'estimate');
    PERFORM tenancy._require_quantity(check_run_units.estimate, 'estimate');
    SELECT * INTO state FROM tenancy._quota_state('run_units', check_run_units.estimate, clock_timestamp());
    RETURN jsonb_build_object(
        -- The original's rule: at the limit is over it.
        'allowed', state.hard IS NULL OR (state.used < state.hard AND state.allowed),
        'current_usage', trim_scale(coalesce(state.used, 0)), 'limit', trim_scale(state.hard),
        'remaining', trim_scale(state.remaining), 'period', tenancy._current_month(), 'org_id', tenancy.org_id(),
        'plan', tenancy._plan_of(tenant, tenancy.organization_id()));
END
$$;
COMMENT ON FUNCTION tenancy.check_run_units(numeric) IS
'Whether the identity''s plan has run units left this month (UTC), and room for an estimate: {allowed, current_usage, limit, remaining, period, org_id, plan}; limit and remaining are null where unlimited. Errors: PT401, 22023, 55000.';

CREATE FUNCTION tenancy.run_units_total(period text DEFAULT NULL) RETURNS numeric
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant text := tenancy.require_tenant();
    org text := coalesce(tenancy._tenant_name(coalesce(tenancy.identity_namespace(), ''), tenancy.org_id()), '');
    total numeric;
BEGIN
    PERFORM tenancy._require_installed();
    SELECT coalesce(sum(r.run_units), 0) INTO total
      FROM tenancy.usage_records AS r
     WHERE r.tenant_id = tenant AND r.org_id = org AND r.period = tenancy._require_month(run_units_total.period);
    RETURN total;
END
$$;
COMMENT ON FUNCTION tenancy.run_units_total(text) IS
'Run units of the identity''s organization (or of its personal tenant) in a month, YYYY-MM in UTC; default: this one. Errors: PT401, 22023, 55000.';

CREATE FUNCTION tenancy.run_units_summary(period text DEFAULT NULL)
RETURNS TABLE (tool_name text, tier text, runs bigint, run_units numeric, cpu_seconds double precision, gpu_seconds double precision)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant text := tenancy.require_tenant();
    org text := coalesce(tenancy._tenant_name(coalesce(tenancy.identity_namespace(), ''), tenancy.org_id()), '');
BEGIN
    PERFORM tenancy._require_installed();
    RETURN QUERY
    SELECT r.tool_name, r.tier, count(*), sum(r.run_units)::numeric, sum(r.cpu_seconds), sum(r.gpu_seconds)
      FROM tenancy.usage_records AS r
     WHERE r.tenant_id = tenant AND r.org_id = org AND r.period = tenancy._require_month(run_units_summary.period)
     GROUP BY r.tool_name, r.tier
     ORDER BY 4 DESC, 1, 2;
END
$$;
COMMENT ON FUNCTION tenancy.run_units_summary(text) IS
'The same month by tool and tier, the largest first. Errors: PT401, 22023, 55000.';

CREATE FUNCTION tenancy.run_units_history(max_rows integer DEFAULT 100, period text DEFAULT NULL)
RETURNS TABLE (id uuid, created_at timestamptz, user_id text, thread_id text, tool_name text, run_units numeric, tier text,
               cpu_seconds double precision, gpu_seconds double precision, latency_ms double precision)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant text := tenancy.require_tenant();
    org text := coalesce(tenancy._tenant_name(coalesce(tenancy.identity_namespace(), ''), tenancy.org_id()), '');
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_month(run_units_history.period);
    IF NOT coalesce(run_units_history.max_rows BETWEEN 1 AND 10000, false) THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'max_rows must be between 1 and 10000', 'Ask for fewer rows.',
            '{"parameter": "max_rows"}');
    END IF;
    RETURN QUERY
    SELECT r.id, r.created_at, r.user_id, r.thread_id, r.tool_name, r.run_units::numeric, r.tier, r.cpu_seconds,
           r.gpu_seconds, r.latency_ms
      FROM tenancy.usage_records AS r
     WHERE r.tenant_id = tenant AND r.org_id = org
       AND (run_units_history.period IS NULL OR r.period = run_units_history.period)
     ORDER BY r.id DESC
     LIMIT run_units_history.max_rows;
END
$$;
COMMENT ON FUNCTION tenancy.run_units_history(integer, text) IS
'The newest runs of the identity''s organization (or of its personal tenant), of one month or all. Errors: PT401, 22023, 55000.';
