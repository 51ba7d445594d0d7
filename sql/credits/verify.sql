-- verify_ledger: everything recomputed from the ledger, by set-based queries that share nothing with the code that keeps
-- the figures. STABLE: all of it reads one snapshot, so it may run beside a load.

CREATE FUNCTION tenancy._verify_entries(only_pool uuid)
RETURNS TABLE (rule text, pool_id uuid, object text, expected text, found text)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    WITH entry AS (
        SELECT t.pool_id, t.id, t.seq, t.credits_amount, t.balance_after, t.granted_after, t.created_at, t.tenant_id,
               t.organization_id, t.operation_type,
               lag(t.seq, 1, 0::bigint) OVER in_pool AS seq_before,
               lag(t.balance_after, 1, 0::numeric) OVER in_pool AS balance_before,
               lag(t.granted_after, 1, 0::numeric) OVER in_pool AS granted_before,
               lag(t.created_at, 1, '-infinity'::timestamptz) OVER in_pool AS created_before
          FROM tenancy.credit_transactions AS t
         WHERE _verify_entries.only_pool IS NULL OR t.pool_id = _verify_entries.only_pool
        WINDOW in_pool AS (PARTITION BY t.pool_id ORDER BY t.id)
    ), problem AS (
        SELECT 'entry_sequence' AS rule, e.pool_id, e.id, (e.seq_before + 1)::text AS expected, e.seq::text AS found
          FROM entry AS e WHERE e.seq <> e.seq_before + 1
        UNION ALL
        SELECT 'entry_balance', e.pool_id, e.id, (e.balance_before + e.credits_amount)::text, e.balance_after::text
          FROM entry AS e WHERE e.balance_after <> e.balance_before + e.credits_amount
        UNION ALL
        SELECT 'entry_granted', e.pool_id, e.id, g.granted::text, e.granted_after::text
          FROM entry AS e
         CROSS JOIN LATERAL (SELECT e.granted_before + CASE WHEN e.operation_type IN ('deduction', 'refund') THEN 0
                                                            ELSE e.credits_amount END) AS g (granted)
         WHERE e.granted_after <> g.granted
        UNION ALL
        SELECT 'entry_time', e.pool_id, e.id, 'not before ' || e.created_before::text, e.created_at::text
          FROM entry AS e WHERE e.created_at < e.created_before
        UNION ALL
        SELECT 'entry_owner', e.pool_id, e.id, concat_ws(' ', p.tenant_id, p.organization_id), concat_ws(' ', e.tenant_id, e.organization_id)
          FROM entry AS e LEFT JOIN tenancy.credit_pools AS p ON p.pool_id = e.pool_id
         WHERE p.tenant_id IS DISTINCT FROM e.tenant_id OR p.organization_id IS DISTINCT FROM e.organization_id
    )
    SELECT p.rule, p.pool_id, 'credit_transactions ' || p.id::text, p.expected, p.found FROM problem AS p;

    RETURN QUERY
    WITH sums AS (
        SELECT t.pool_id, count(*) AS entries, sum(t.credits_amount) AS balance, max(t.created_at) AS newest,
               coalesce(sum(t.credits_amount) FILTER (WHERE t.operation_type NOT IN ('deduction', 'refund')), 0) AS granted
          FROM tenancy.credit_transactions AS t
         WHERE _verify_entries.only_pool IS NULL OR t.pool_id = _verify_entries.only_pool
         GROUP BY t.pool_id
    )
    SELECT f.rule, p.pool_id, 'credit_pools', f.expected, f.found
      FROM tenancy.credit_pools AS p
      LEFT JOIN sums AS s ON s.pool_id = p.pool_id
     CROSS JOIN LATERAL (VALUES
        ('pool_balance', coalesce(s.balance, 0)::text, p.balance::text, coalesce(s.balance, 0) = p.balance),
        ('pool_granted', coalesce(s.granted, 0)::text, p.granted_total::text, coalesce(s.granted, 0) = p.granted_total),
        ('pool_sequence', coalesce(s.entries, 0)::text, p.seq::text, coalesce(s.entries, 0) = p.seq),
        ('pool_time', 'not before ' || s.newest::text, p.last_entry_at::text, s.newest IS NULL OR p.last_entry_at >= s.newest),
        ('pool_alert', coalesce((SELECT max(t.threshold) FROM unnest(p.alert_thresholds) AS t (threshold)
                                  WHERE t.threshold <= p.balance - p.held), 0)::text, p.alert_below::text,
            p.alert_below = coalesce((SELECT max(t.threshold) FROM unnest(p.alert_thresholds) AS t (threshold)
                                       WHERE t.threshold <= p.balance - p.held), 0))
     ) AS f (rule, expected, found, ok)
     WHERE NOT f.ok AND (_verify_entries.only_pool IS NULL OR p.pool_id = _verify_entries.only_pool);
END
$$;

COMMENT ON FUNCTION tenancy._verify_entries(uuid) IS
'The part of verify_ledger about entries: each follows from the one before it, and the pool''s row says what they add up to.';

CREATE FUNCTION tenancy._verify_line(only_pool uuid)
RETURNS TABLE (rule text, pool_id uuid, object text, expected text, found text)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Charges, captures' holds and corrections lie end to end on the line, and so do the draws under its settled part.
    RETURN QUERY
    WITH segment AS (
        SELECT t.pool_id, 'credit_transactions ' || t.id::text AS object, t.drawn_after + t.credits_amount AS begins, t.drawn_after AS ends
          FROM tenancy.credit_transactions AS t
         WHERE t.drawn_after IS NOT NULL AND t.hold_id IS NULL
        UNION ALL
        SELECT h.pool_id, 'credit_holds ' || h.id::text, h.drawn_after - h.amount, h.drawn_after
          FROM tenancy.credit_holds AS h
    ), placed AS (
        SELECT s.pool_id, s.object, s.begins, s.ends,
               lag(s.ends, 1, 0::numeric) OVER (PARTITION BY s.pool_id ORDER BY s.ends, s.begins) AS ends_before
          FROM segment AS s
         WHERE _verify_line.only_pool IS NULL OR s.pool_id = _verify_line.only_pool
    ), reach AS (
        SELECT p.pool_id, p.drawn_total, p.burned_total,
               coalesce((SELECT max(s.ends) FROM placed AS s WHERE s.pool_id = p.pool_id), 0) AS drawn,
               coalesce((SELECT max(d.drawn_to) FROM tenancy.credit_draws AS d WHERE d.pool_id = p.pool_id), 0) AS burned
          FROM tenancy.credit_pools AS p
         WHERE _verify_line.only_pool IS NULL OR p.pool_id = _verify_line.only_pool
    ), draw AS (
        SELECT d.pool_id, d.drawn_from, d.drawn_to,
               lag(d.drawn_to, 1, 0::numeric) OVER (PARTITION BY d.pool_id ORDER BY d.drawn_to) AS ends_before
          FROM tenancy.credit_draws AS d
         WHERE _verify_line.only_pool IS NULL OR d.pool_id = _verify_line.only_pool
    )
    SELECT 'line_segment', p.pool_id, p.object, p.ends_before::text, p.begins::text
      FROM placed AS p WHERE p.begins <> p.ends_before
    UNION ALL
    SELECT 'line_end', r.pool_id, 'credit_pools', r.drawn::text, r.drawn_total::text
      FROM reach AS r WHERE r.drawn <> r.drawn_total
    UNION ALL
    SELECT 'draw_segment', d.pool_id, 'credit_draws ' || d.drawn_to::text, d.ends_before::text, d.drawn_from::text
      FROM draw AS d WHERE d.drawn_from <> d.ends_before
    UNION ALL
    SELECT 'draw_end', r.pool_id, 'credit_pools', r.burned::text, r.burned_total::text
      FROM reach AS r WHERE r.burned <> r.burned_total;

    RETURN QUERY
    WITH moved AS (
        SELECT g.pool_id, g.id, g.amount, g.remaining, g.is_posted, g.is_open,
               coalesce((SELECT sum(d.drawn_to - d.drawn_from) FROM tenancy.credit_draws AS d
                          WHERE d.pool_id = g.pool_id AND d.grant_id = g.id), 0) AS drawn,
               coalesce((SELECT sum(r.drawn_to - r.drawn_from) FROM tenancy.credit_returns AS r
                          WHERE r.pool_id = g.pool_id AND r.grant_id = g.id), 0) AS returned
          FROM tenancy.credit_grants AS g
         WHERE _verify_line.only_pool IS NULL OR g.pool_id = _verify_line.only_pool
    ), posted AS (
        SELECT t.pool_id, t.grant_id,
               sum(t.credits_amount) FILTER (WHERE t.operation_type <> 'expiry') AS granted,
               coalesce(-sum(t.credits_amount) FILTER (WHERE t.operation_type = 'expiry'), 0) AS expired
          FROM tenancy.credit_transactions AS t
         WHERE t.grant_id IS NOT NULL AND (_verify_line.only_pool IS NULL OR t.pool_id = _verify_line.only_pool)
         GROUP BY t.pool_id, t.grant_id
    )
    SELECT f.rule, m.pool_id, 'credit_grants ' || m.id::text, f.expected, f.found
      FROM moved AS m
      LEFT JOIN posted AS p ON p.pool_id = m.pool_id AND p.grant_id = m.id
     CROSS JOIN LATERAL (VALUES
        ('grant_posted', CASE WHEN m.is_posted THEN m.amount::text END, p.granted::text,
            p.granted IS NOT DISTINCT FROM CASE WHEN m.is_posted THEN m.amount END),
        ('grant_remaining', (coalesce(p.granted, 0) - m.drawn + m.returned - coalesce(p.expired, 0))::text, m.remaining::text,
            m.remaining = coalesce(p.granted, 0) - m.drawn + m.returned - coalesce(p.expired, 0)),
        ('grant_open', (NOT m.is_posted OR m.remaining > 0)::text, m.is_open::text,
            m.is_open = (NOT m.is_posted OR m.remaining > 0))
     ) AS f (rule, expected, found, ok)
     WHERE NOT f.ok;

    RETURN QUERY
    SELECT 'grants_sum', p.pool_id, 'credit_pools', (p.balance - p.held + p.drawn_total - p.burned_total)::text, g.remaining::text
      FROM tenancy.credit_pools AS p
     CROSS JOIN LATERAL (SELECT coalesce(sum(g.remaining), 0) AS remaining
                           FROM tenancy.credit_grants AS g WHERE g.pool_id = p.pool_id) AS g
     WHERE g.remaining <> p.balance - p.held + p.drawn_total - p.burned_total
       AND (_verify_line.only_pool IS NULL OR p.pool_id = _verify_line.only_pool);
END
$$;

COMMENT ON FUNCTION tenancy._verify_line(uuid) IS
'The part of verify_ledger about grants: what was drawn lies end to end, and each grant has what its draws, returns and expiries leave.';

CREATE FUNCTION tenancy._verify_holds(only_pool uuid)
RETURNS TABLE (rule text, pool_id uuid, object text, expected text, found text)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT 'pool_held', p.pool_id, 'credit_pools', h.held::text, p.held::text
      FROM tenancy.credit_pools AS p
     CROSS JOIN LATERAL (SELECT coalesce(sum(h.amount), 0) AS held FROM tenancy.credit_holds AS h
                          WHERE h.pool_id = p.pool_id AND h.status = 'held') AS h
     WHERE h.held <> p.held AND (_verify_holds.only_pool IS NULL OR p.pool_id = _verify_holds.only_pool)
    UNION ALL
    -- May be early, never late: a charge would spend what has expired.
    SELECT 'pool_boundary', p.pool_id, 'credit_pools', 'not after ' || b.boundary::text, p.next_expiry_at::text
      FROM tenancy.credit_pools AS p
     CROSS JOIN LATERAL (
        SELECT least((SELECT min(h.expires_at) FROM tenancy.credit_holds AS h WHERE h.pool_id = p.pool_id AND h.status = 'held'),
                     (SELECT min(CASE WHEN g.is_posted THEN g.expires_at ELSE g.effective_at END)
                        FROM tenancy.credit_grants AS g WHERE g.pool_id = p.pool_id AND g.is_open)) AS boundary) AS b
     WHERE p.next_expiry_at > b.boundary
       AND (_verify_holds.only_pool IS NULL OR p.pool_id = _verify_holds.only_pool)
    UNION ALL
    SELECT 'hold_capture', h.pool_id, 'credit_holds ' || h.id::text, h.captured::text, c.charged::text
      FROM tenancy.credit_holds AS h
     CROSS JOIN LATERAL (SELECT coalesce(-sum(t.credits_amount), 0) AS charged FROM tenancy.credit_transactions AS t
                          WHERE t.pool_id = h.pool_id AND t.id = h.transaction_id AND t.hold_id = h.id) AS c
     WHERE h.captured <> c.charged AND (_verify_holds.only_pool IS NULL OR h.pool_id = _verify_holds.only_pool)
    UNION ALL
    SELECT 'hold_return', h.pool_id, 'credit_holds ' || h.id::text,
           CASE WHEN h.status = 'held' THEN 0 ELSE h.amount - h.captured END::text, r.returned::text
      FROM tenancy.credit_holds AS h
     CROSS JOIN LATERAL (SELECT coalesce(sum(r.drawn_to - r.drawn_from), 0) AS returned FROM tenancy.credit_returns AS r
                          WHERE r.pool_id = h.pool_id AND r.hold_id = h.id
                            AND r.drawn_from >= h.drawn_after - h.amount + h.captured AND r.drawn_to <= h.drawn_after) AS r
     WHERE r.returned <> CASE WHEN h.status = 'held' THEN 0 ELSE h.amount - h.captured END
       AND (_verify_holds.only_pool IS NULL OR h.pool_id = _verify_holds.only_pool)
    UNION ALL
    SELECT 'capture_without_hold', t.pool_id, 'credit_transactions ' || t.id::text, t.hold_id::text, h.transaction_id::text
      FROM tenancy.credit_transactions AS t
      LEFT JOIN tenancy.credit_holds AS h ON h.pool_id = t.pool_id AND h.id = t.hold_id
     WHERE t.hold_id IS NOT NULL AND h.transaction_id IS DISTINCT FROM t.id
       AND (_verify_holds.only_pool IS NULL OR t.pool_id = _verify_holds.only_pool);
END
$$;

COMMENT ON FUNCTION tenancy._verify_holds(uuid) IS
'The part of verify_ledger about holds: what is held, captured and returned agrees with the pool and the ledger.';
