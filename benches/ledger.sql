-- :size debits of one credit each in org_0's pool, as the ledger would hold them had they been made one by one, a
-- microsecond apart.
\set ON_ERROR_STOP on
INSERT INTO tenancy.credit_transactions
    (pool_id, id, seq, tenant_id, organization_id, user_id, seat_id, subscription_id, credits_amount, operation_type,
     description, reference_id, metadata, balance_after, granted_after, drawn_after, created_at)
SELECT p.pool_id,
       (lpad(to_hex((t.micros + 946684800000000) / 1000), 12, '0') || lpad(to_hex(28672 + (t.micros % 1000) * 4096 / 1000), 4, '0')
        || to_hex(2147483648 + p.seq + i) || right(p.pool_id::text, 8))::uuid,
       p.seq + i, p.tenant_id, p.organization_id, s.user_id, s.id, sub.id, -1, 'deduction', 'bench', 'ref',
       jsonb_build_object('pool', 'organization', 'clerk_org_id', 'org_0', 'organization_id', p.organization_id,
           'organization_name', 'Org 0', 'stripe_customer_id', 'cus_0', 'organization_subscription_id', sub.id,
           'seat_id', s.id, 'seat_role', s.role),
       p.balance - i, p.granted_total, p.drawn_total + i, p.last_entry_at + i * interval '1 microsecond'
  FROM tenancy.credit_pools AS p
  JOIN tenancy.organizations AS o ON o.id = p.organization_id AND o.external_id = 'org_0'
  JOIN tenancy.organization_seats AS s ON s.organization_id = o.id
  JOIN tenancy.organization_subscriptions AS sub ON sub.organization_id = o.id
 CROSS JOIN generate_series(1, :size) AS i
 CROSS JOIN LATERAL (SELECT (extract(epoch FROM p.last_entry_at - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint + i AS micros) AS t;
UPDATE tenancy.credit_pools AS p
   SET seq = p.seq + :size, balance = p.balance - :size, drawn_total = p.drawn_total + :size,
       last_entry_at = p.last_entry_at + :size * interval '1 microsecond'
  FROM tenancy.organizations AS o
 WHERE o.id = p.organization_id AND o.external_id = 'org_0';
VACUUM ANALYZE tenancy.credit_transactions;
CHECKPOINT;
