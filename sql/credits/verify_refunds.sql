-- verify_ledger, continued: refunds, caps, keys, conservation, the chain; and the function itself.

CREATE FUNCTION tenancy._verify_refunds(only_pool uuid)
RETURNS TABLE (rule text, pool_id uuid, object text, expected text, found text)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    WITH refund AS (
        SELECT t.pool_id, t.refund_of, sum(t.credits_amount) AS refunded
          FROM tenancy.credit_transactions AS t
         WHERE t.operation_type = 'refund' AND (_verify_refunds.only_pool IS NULL OR t.pool_id = _verify_refunds.only_pool)
         GROUP BY t.pool_id, t.refund_of
    )
    SELECT 'refund_of_charge', r.pool_id, 'credit_transactions ' || r.refund_of::text,
           'at most ' || coalesce(-o.credits_amount, 0)::text, r.refunded::text
      FROM refund AS r
      LEFT JOIN tenancy.credit_transactions AS o
        ON o.pool_id = r.pool_id AND o.id = r.refund_of AND o.operation_type = 'deduction'
     WHERE r.refunded > coalesce(-o.credits_amount, 0)
    UNION ALL
    SELECT 'refund_return', t.pool_id, 'credit_transactions ' || t.id::text, t.credits_amount::text, r.returned::text
      FROM tenancy.credit_transactions AS t
      JOIN tenancy.credit_transactions AS o ON o.pool_id = t.pool_id AND o.id = t.refund_of
     CROSS JOIN LATERAL (SELECT coalesce(sum(r.drawn_to - r.drawn_from), 0) AS returned FROM tenancy.credit_returns AS r
                          WHERE r.pool_id = t.pool_id AND r.refund_id = t.id
                            AND r.drawn_from >= o.drawn_after + o.credits_amount AND r.drawn_to <= o.drawn_after) AS r
     WHERE t.operation_type = 'refund' AND r.returned <> t.credits_amount
       AND (_verify_refunds.only_pool IS NULL OR t.pool_id = _verify_refunds.only_pool)
    UNION ALL
    -- What came back lies over draws of the grant it came back to.
    SELECT 'return_segment', r.pool_id, 'credit_returns ' || r.drawn_to::text, (r.drawn_to - r.drawn_from)::text, d.drawn::text
      FROM tenancy.credit_returns AS r
     CROSS JOIN LATERAL (SELECT coalesce(sum(least(d.drawn_to, r.drawn_to) - greatest(d.drawn_from, r.drawn_from)), 0) AS drawn
                           FROM tenancy.credit_draws AS d
                          WHERE d.pool_id = r.pool_id AND d.grant_id = r.grant_id
                            AND d.drawn_to > r.drawn_from AND d.drawn_from < r.drawn_to) AS d
     WHERE d.drawn <> r.drawn_to - r.drawn_from
       AND (_verify_refunds.only_pool IS NULL OR r.pool_id = _verify_refunds.only_pool)
    UNION ALL
    SELECT 'return_overlap', r.pool_id, 'credit_returns ' || r.drawn_to::text, 'not before ' || r.ends_before::text, r.drawn_from::text
      FROM (SELECT r.pool_id, r.drawn_from, r.drawn_to,
                   lag(r.drawn_to, 1, 0::numeric) OVER (PARTITION BY r.pool_id ORDER BY r.drawn_to) AS ends_before
              FROM tenancy.credit_returns AS r
             WHERE _verify_refunds.only_pool IS NULL OR r.pool_id = _verify_refunds.only_pool) AS r
     WHERE r.drawn_from < r.ends_before;
END
$$;

COMMENT ON FUNCTION tenancy._verify_refunds(uuid) IS
'The part of verify_ledger about what came back: no more than was charged, no part twice, each to the grant it came from.';

CREATE FUNCTION tenancy._verify_rest(only_pool uuid)
RETURNS TABLE (rule text, pool_id uuid, object text, expected text, found text)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    WITH period AS (
        SELECT c.pool_id, c.user_id, c.period, c.used, c.period_start AS begins,
               CASE c.period WHEN 'day' THEN c.period_start + interval '1 day'
                    WHEN 'month' THEN ((c.period_start AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC'
                    ELSE 'infinity' END AS ends
          FROM tenancy.credit_caps AS c
         WHERE _verify_rest.only_pool IS NULL OR c.pool_id = _verify_rest.only_pool
    )
    SELECT 'cap_used', c.pool_id, 'credit_caps ' || c.user_id::text || ' ' || c.period, u.used::text, c.used::text
      FROM period AS c
     CROSS JOIN LATERAL (
        SELECT coalesce(-sum(t.credits_amount), 0) AS used
          FROM tenancy.credit_transactions AS t
          LEFT JOIN tenancy.credit_transactions AS o ON o.pool_id = t.pool_id AND o.id = t.refund_of
         WHERE t.pool_id = c.pool_id AND t.user_id = c.user_id AND t.operation_type IN ('deduction', 'refund')
           AND coalesce(o.created_at, t.created_at) >= c.begins AND coalesce(o.created_at, t.created_at) < c.ends) AS u
     WHERE u.used <> c.used
    UNION ALL
    SELECT 'cap_flag', p.pool_id, 'credit_pools', c.any::text, p.has_caps::text
      FROM tenancy.credit_pools AS p
     CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM tenancy.credit_caps AS c WHERE c.pool_id = p.pool_id)) AS c ("any")
     WHERE p.has_caps <> c.any AND (_verify_rest.only_pool IS NULL OR p.pool_id = _verify_rest.only_pool)
    UNION ALL
    -- A key and what it was answered with are of one moment.
    SELECT 'key_result', i.pool_id, 'credit_idempotency ' || i.key,
           i.operation || ' ' || i.result_id::text || ' of ' || i.created_at::text, NULL
      FROM tenancy.credit_idempotency AS i
     WHERE NOT CASE i.operation
            WHEN 'charge' THEN EXISTS (SELECT FROM tenancy.credit_transactions AS t
                                        WHERE t.pool_id = i.pool_id AND t.id = i.result_id AND t.created_at = i.created_at)
            WHEN 'hold' THEN EXISTS (SELECT FROM tenancy.credit_holds AS h
                                      WHERE h.pool_id = i.pool_id AND h.id = i.result_id AND h.created_at = i.created_at)
            ELSE EXISTS (SELECT FROM tenancy.credit_grants AS g
                          WHERE g.pool_id = i.pool_id AND g.id = i.result_id AND g.created_at = i.created_at) END
       AND (_verify_rest.only_pool IS NULL OR i.pool_id = _verify_rest.only_pool)
    UNION ALL
    SELECT 'pool_tag', p.pool_id, 'credit_pools', t.tag::text, p.tag::text
      FROM tenancy.credit_pools AS p
     CROSS JOIN LATERAL (SELECT ('x' || right(p.pool_id::text, 8))::bit(32)::integer) AS t (tag)
     WHERE p.tag <> t.tag AND (_verify_rest.only_pool IS NULL OR p.pool_id = _verify_rest.only_pool)
    UNION ALL
    -- What belongs to a pool says whose it is as the pool does.
    SELECT f.rule, p.pool_id, f.object, concat_ws(' ', p.tenant_id, p.organization_id, p.user_id),
           concat_ws(' ', f.tenant_id, f.organization_id, f.user_id)
      FROM tenancy.credit_pools AS p
     CROSS JOIN LATERAL (
        SELECT 'hold_owner' AS rule, 'credit_holds ' || h.id::text AS object, h.tenant_id, h.organization_id,
               CASE WHEN p.user_id IS NOT NULL THEN h.user_id END AS user_id
          FROM tenancy.credit_holds AS h WHERE h.pool_id = p.pool_id
        UNION ALL
        SELECT 'grant_owner', 'credit_grants ' || g.id::text, g.tenant_id, p.organization_id, p.user_id
          FROM tenancy.credit_grants AS g WHERE g.pool_id = p.pool_id
        UNION ALL
        SELECT 'cap_owner', 'credit_caps ' || c.user_id::text || ' ' || c.period, c.tenant_id, p.organization_id, p.user_id
          FROM tenancy.credit_caps AS c WHERE c.pool_id = p.pool_id) AS f
     WHERE (f.tenant_id, f.organization_id, f.user_id) IS DISTINCT FROM (p.tenant_id, p.organization_id, p.user_id)
       AND (_verify_rest.only_pool IS NULL OR p.pool_id = _verify_rest.only_pool)
    UNION ALL
    SELECT 'no_money_from_nowhere', NULL, 'all pools', s.entered::text, b.balance::text
      FROM (SELECT coalesce(sum(g.amount) FILTER (WHERE g.is_posted), 0) AS granted FROM tenancy.credit_grants AS g
             WHERE _verify_rest.only_pool IS NULL OR g.pool_id = _verify_rest.only_pool) AS g
     CROSS JOIN (SELECT coalesce(sum(t.credits_amount) FILTER (WHERE t.operation_type IN ('deduction', 'refund', 'expiry')
                                                                  OR t.operation_type = 'adjustment' AND t.grant_id IS NULL), 0) AS moved
                   FROM tenancy.credit_transactions AS t
                  WHERE _verify_rest.only_pool IS NULL OR t.pool_id = _verify_rest.only_pool) AS t
     CROSS JOIN LATERAL (SELECT g.granted + t.moved) AS s (entered)
     CROSS JOIN (SELECT coalesce(sum(p.balance), 0) AS balance FROM tenancy.credit_pools AS p
                  WHERE _verify_rest.only_pool IS NULL OR p.pool_id = _verify_rest.only_pool) AS b
     WHERE s.entered <> b.balance
    UNION ALL
    SELECT 'chain', c.pool_id, 'credit_transactions ' || c.transaction_id::text,
           'entry ' || c.seq::text || ' as it was sealed', 'the first broken link'
      FROM tenancy._verify_chain(_verify_rest.only_pool) AS c;
END
$$;

COMMENT ON FUNCTION tenancy._verify_rest(uuid) IS
'The part of verify_ledger about whose the rows of a pool are, caps, idempotency keys, conservation (grants less charges, plus refunds, less what expired, are the balances) and the hash chain.';

CREATE FUNCTION tenancy.verify_ledger(org_id text DEFAULT NULL, user_id text DEFAULT NULL, namespace text DEFAULT NULL)
RETURNS TABLE (rule text, pool_id uuid, object text, expected text, found text)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    only_pool uuid;
BEGIN
    PERFORM tenancy._require_installed();
    IF verify_ledger.org_id IS NOT NULL AND verify_ledger.user_id IS NOT NULL THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'Name either org_id or user_id',
            'A pool belongs to an organization or to a user; neither means every pool.',
            jsonb_build_object('parameter', 'org_id'));
    END IF;
    IF verify_ledger.org_id IS NOT NULL THEN
        only_pool := (tenancy._find_organization(verify_ledger.org_id, tenancy._namespace(verify_ledger.namespace))).id;
    ELSIF verify_ledger.user_id IS NOT NULL THEN
        only_pool := tenancy._find_user(verify_ledger.user_id, tenancy._namespace(verify_ledger.namespace));
    END IF;
    RETURN QUERY
    SELECT * FROM tenancy._verify_entries(only_pool)
    UNION ALL
    SELECT * FROM tenancy._verify_line(only_pool)
    UNION ALL
    SELECT * FROM tenancy._verify_holds(only_pool)
    UNION ALL
    SELECT * FROM tenancy._verify_refunds(only_pool)
    UNION ALL
    SELECT * FROM tenancy._verify_rest(only_pool);
END
$$;

COMMENT ON FUNCTION tenancy.verify_ledger(text, text, text) IS
'Recomputes every balance, hold, grant, refund, cap and sum of one pool (org_id or user_id) or of all from the ledger, and the hash chain over what seal_ledger sealed. No row: everything agrees. A row names the rule, the pool, the object, what was expected and what was found; for the chain the first broken link. Reads one snapshot and takes no lock; runs on a standby. Errors: PT404 organization_not_found, user_not_found; 22023, 55000.';

COMMENT ON FUNCTION tenancy._verify_chain(uuid) IS
'The first broken link of each pool''s hash chain, or of one pool''s: the number and id of the entry that is not as it was sealed.';

COMMENT ON FUNCTION tenancy.seal_ledger(bigint) IS
'Seals up to max_entries entries that are not sealed yet into the hash chains and returns the newest link of each pool that grew: keep those hashes elsewhere. Takes no lock on pools; run it from time to time. Errors: 55000.';

COMMENT ON FUNCTION tenancy.sweep_credits(integer) IS
'Settles up to max_pools pools in which a grant or hold has expired or a grant became effective, leaving out those that are locked and, with a warning, those that cannot be settled (balance_out_of_range, ledger_inconsistent), and returns how many. Nothing depends on it: whoever charges a pool settles it first. Errors: 55000.';
