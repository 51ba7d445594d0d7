-- Alerts: an event when a pool's available credits fall below a threshold.

CREATE FUNCTION tenancy.set_credit_alerts(
    thresholds numeric[],
    org_id text DEFAULT NULL,
    user_id text DEFAULT NULL,
    namespace text DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    locked_pool uuid;
    wanted numeric[] := coalesce(set_credit_alerts.thresholds, '{}');
BEGIN
    PERFORM tenancy._require_installed();
    IF EXISTS (SELECT FROM unnest(wanted) AS t (threshold)
                WHERE t.threshold IS NULL OR t.threshold <= 0 OR t.threshold > 999999999999.999999
                   OR t.threshold <> round(t.threshold, 6))
       OR cardinality(wanted) > 20
    THEN
        PERFORM tenancy._raise('22023', 'invalid_argument',
            'thresholds must be at most 20 positive amounts of credits with at most six decimals',
            'Pass an array such as ''{100,20}'', or an empty one for no alerts.',
            jsonb_build_object('parameter', 'thresholds'));
    END IF;
    locked_pool := tenancy._lock_credit_pool(set_credit_alerts.org_id, set_credit_alerts.user_id, set_credit_alerts.namespace);
    UPDATE tenancy.credit_pools AS p
       SET alert_thresholds = wanted,
           -- Armed below what is there: a threshold above it has been crossed already.
           alert_below = coalesce((SELECT max(t.threshold) FROM unnest(wanted) AS t (threshold)
                                    WHERE t.threshold <= p.balance - p.held), 0)
     WHERE p.pool_id = locked_pool;
    RETURN cardinality(wanted);
END
$$;

COMMENT ON FUNCTION tenancy.set_credit_alerts(numeric[], text, text, text) IS
'Sets the thresholds of a pool and returns how many: whenever the available credits fall below one, the event tenancy.credit.balance.low.v1 is published, once until they have risen to it again. An empty array or NULL ends the alerts. namespace: NULL means the identity''s, else the empty one. Errors: PT404 organization_not_found, user_not_found; 22023, 55000.';

CREATE FUNCTION tenancy._publish_credit_alert(pool_id uuid, alert jsonb) RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    pool record;
BEGIN
    SELECT p.tenant_id, o.external_id AS org_id, o.name AS organization_name, u.external_id AS user_id
      INTO pool
      FROM tenancy.credit_pools AS p
      LEFT JOIN tenancy.organizations AS o ON o.id = p.organization_id
      LEFT JOIN tenancy.users AS u ON u.id = p.user_id
     WHERE p.pool_id = _publish_credit_alert.pool_id;
    RETURN tenancy._publish(
        tenant_id => pool.tenant_id,
        topic => 'tenancy.credit.balance.low.v1',
        aggregate_type => 'credit_pool',
        aggregate_id => _publish_credit_alert.pool_id::text,
        source_service => 'pg_tenancy',
        data => _publish_credit_alert.alert - 'correlation_id' || jsonb_build_object(
            'pool_id', _publish_credit_alert.pool_id, 'org_id', pool.org_id,
            'organization_name', pool.organization_name, 'user_id', pool.user_id),
        metadata => NULL,
        correlation_id => tenancy._correlation_uuid(_publish_credit_alert.alert ->> 'correlation_id'));
END
$$;

COMMENT ON FUNCTION tenancy._publish_credit_alert(uuid, jsonb) IS
'Publishes tenancy.credit.balance.low.v1 for a pool: alert has threshold, available, pool and seq, and the correlation_id of what crossed it, if any; the owner''s ids are added.';
