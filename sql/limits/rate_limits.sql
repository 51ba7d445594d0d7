-- Rate limits: the rules. What is taken is kept in shared memory: src/limits/.

CREATE FUNCTION tenancy._store_rate_limit(
    tenant_id text, name text, max_requests integer, period interval, burst integer) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO tenancy.rate_limits AS r (tenant_id, name, max_requests, period, burst)
    VALUES (coalesce(_store_rate_limit.tenant_id, '*'), _store_rate_limit.name, _store_rate_limit.max_requests,
            _store_rate_limit.period, _store_rate_limit.burst)
    ON CONFLICT ON CONSTRAINT rate_limits_pkey DO UPDATE
       SET max_requests = EXCLUDED.max_requests, period = EXCLUDED.period, burst = EXCLUDED.burst, updated_at = now()
     WHERE (r.max_requests, r.period, r.burst) IS DISTINCT FROM (EXCLUDED.max_requests, EXCLUDED.period, EXCLUDED.burst);
    IF FOUND THEN
        PERFORM tenancy._changed('rate_limits');
        RETURN true;
    END IF;
    RETURN false;
END
$$;
COMMENT ON FUNCTION tenancy._store_rate_limit(text, text, integer, interval, integer) IS
'Writes a checked rate limit (tenant_id NULL: every tenant; max_requests, period and burst NULL: unlimited) and tells every backend. Whether it changed.';

CREATE FUNCTION tenancy._require_limit_scope(name text, tenant_id text) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tenancy._require_value(_require_limit_scope.name, 'name');
    PERFORM tenancy._require_text(_require_limit_scope.name, 'name', 100);
    IF _require_limit_scope.tenant_id IS NOT NULL THEN
        PERFORM tenancy._require_id(_require_limit_scope.tenant_id, 'tenant_id');
        IF _require_limit_scope.tenant_id = '*' THEN
            PERFORM tenancy._raise('22023', 'invalid_argument', 'tenant_id must not be "*"',
                'Leave tenant_id out for every tenant.', '{"parameter": "tenant_id"}');
        END IF;
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION tenancy._require_limit_scope(text, text) IS
'True for a name of 1 to 100 characters and a tenant id or NULL. Error: 22023 invalid_argument.';

CREATE FUNCTION tenancy.set_rate_limit(
    name text, max_requests integer, period interval, burst integer DEFAULT NULL, tenant_id text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_limit_scope(set_rate_limit.name, set_rate_limit.tenant_id);
    PERFORM tenancy._require_value(set_rate_limit.max_requests, 'max_requests');
    PERFORM tenancy._require_value(set_rate_limit.period, 'period');
    IF set_rate_limit.max_requests < 1 OR coalesce(set_rate_limit.burst, 1) < 1 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'max_requests and burst must be at least 1',
            'To close something to everybody, take away the access to it.', '{"parameter": "max_requests"}');
    END IF;
    IF set_rate_limit.period < interval '1 ms' OR set_rate_limit.period > interval '366 days' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'period must be between 1 ms and 366 days',
            'For longer spans set a quota: SELECT tenancy.set_quota(…).', '{"parameter": "period"}');
    END IF;
    RETURN tenancy._store_rate_limit(set_rate_limit.tenant_id, set_rate_limit.name, set_rate_limit.max_requests,
        set_rate_limit.period, coalesce(set_rate_limit.burst, set_rate_limit.max_requests));
END
$$;
COMMENT ON FUNCTION tenancy.set_rate_limit(text, integer, interval, integer, text) IS
'Sets how fast something may be done: max_requests in each period, at most burst at once (default: max_requests). tenant_id: for that tenant; without: for every tenant that has none of its own. Within any time t no more than burst + max_requests × t / period are admitted. Of a burst that would take more than 146,000 years to come back, as many are admitted at once as come back in that time. Returns whether it changed. Errors: 22023, 55000.';

CREATE FUNCTION tenancy.set_rate_limit_policy(name text, policy text, tenant_id text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parsed record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_limit_scope(set_rate_limit_policy.name, set_rate_limit_policy.tenant_id);
    PERFORM tenancy._require_value(set_rate_limit_policy.policy, 'policy');
    SELECT p.max_requests, make_interval(secs => p.seconds) AS period INTO parsed
      FROM tenancy._parse_rate_limit(set_rate_limit_policy.policy) AS p;
    RETURN tenancy._store_rate_limit(set_rate_limit_policy.tenant_id, set_rate_limit_policy.name,
        parsed.max_requests, parsed.period, parsed.max_requests);
END
$$;
COMMENT ON FUNCTION tenancy.set_rate_limit_policy(text, text, text) IS
'set_rate_limit with a policy string: 60/hour, 10000/day, 1/week, 5/month (30 days), or unlimited. Errors: 22023 invalid_rate_limit (no slash, no whole number above 0), invalid_rate_limit_period (another unit: there is no minute); 55000.';

CREATE FUNCTION tenancy.remove_rate_limit(name text, tenant_id text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_limit_scope(remove_rate_limit.name, remove_rate_limit.tenant_id);
    DELETE FROM tenancy.rate_limits AS r
     WHERE r.tenant_id = coalesce(remove_rate_limit.tenant_id, '*') AND r.name = remove_rate_limit.name;
    IF FOUND THEN
        PERFORM tenancy._changed('rate_limits');
        RETURN true;
    END IF;
    RETURN false;
END
$$;
COMMENT ON FUNCTION tenancy.remove_rate_limit(text, text) IS
'Removes a tenant''s own rate limit (then the one for every tenant counts), or without tenant_id the one for every tenant. Returns whether there was one. Errors: 22023, 55000.';

COMMENT ON FUNCTION tenancy.take_rate_limit(text, integer, text) IS
'Takes cost requests from the identity''s tenant''s limit of that name, for its own key if one is given (a user, an address). allowed; remaining: how many may follow at once (NULL: unlimited); retry_after: when the same would be allowed, zero when it is. Not undone by a rollback, lost at a restart. Needs shared_preload_libraries. Errors: PT401, PT404 rate_limit_not_found (see tenancy.unknown_limits), PT429 limiter_full, 22023, 55000 preload_required.';
COMMENT ON FUNCTION tenancy.peek_rate_limit(text, integer, text) IS
'What take_rate_limit would say, without taking; remaining: how many are left now. Errors as take_rate_limit, but never limiter_full.';
COMMENT ON FUNCTION tenancy.take_rate_limit_for(text, text, integer, text) IS
'take_rate_limit for a tenant that the caller names: for services that limit before anybody is authenticated. Errors as take_rate_limit.';
COMMENT ON FUNCTION tenancy._take_fixed_limit(text, text, text, integer, interval) IS
'Takes one from a limit of the extension''s own, with a tenant, a name and a key; how long to wait, or NULL where it is admitted or there is no shared memory (or no room in it). Not undone by a rollback: the companion of an exact limit that counts rows.';
COMMENT ON FUNCTION tenancy._parse_rate_limit(text) IS
'Reads a policy string: requests and seconds, both NULL for unlimited. Errors: 22023 invalid_rate_limit, invalid_rate_limit_period.';
