-- 0014 credit views: who spent what, and the old tables' columns for readers that know them.
-- security_invoker: the reader's own row-level security holds, so a tenant's application role sees its tenant alone.
-- Each goes from credit_pools to the ledger, so the tenant's few pools are found by index and their entries by key.

CREATE VIEW tenancy.credit_usage_by_organization WITH (security_invoker = true) AS
SELECT p.tenant_id,
       p.organization_id,
       o.external_id AS org_id,
       o.name AS organization_name,
       count(*) FILTER (WHERE t.operation_type = 'deduction') AS charges,
       coalesce(-sum(t.credits_amount) FILTER (WHERE t.operation_type = 'deduction'), 0) AS credits_charged,
       coalesce(sum(t.credits_amount) FILTER (WHERE t.operation_type = 'refund'), 0) AS credits_refunded,
       coalesce(-sum(t.credits_amount) FILTER (WHERE t.operation_type IN ('deduction', 'refund')), 0) AS credits_used,
       max(t.created_at) FILTER (WHERE t.operation_type = 'deduction') AS last_charge_at
  FROM tenancy.credit_pools AS p
  JOIN tenancy.organizations AS o ON o.id = p.organization_id
  LEFT JOIN tenancy.credit_transactions AS t ON t.pool_id = p.pool_id
 GROUP BY p.tenant_id, p.organization_id, o.external_id, o.name;

CREATE VIEW tenancy.credit_usage_by_seat WITH (security_invoker = true) AS
SELECT p.tenant_id,
       p.organization_id,
       t.seat_id,
       t.user_id,
       s.role AS seat_role,
       s.status AS seat_status,
       count(*) FILTER (WHERE t.operation_type = 'deduction') AS charges,
       coalesce(-sum(t.credits_amount) FILTER (WHERE t.operation_type = 'deduction'), 0) AS credits_charged,
       coalesce(sum(t.credits_amount) FILTER (WHERE t.operation_type = 'refund'), 0) AS credits_refunded,
       coalesce(-sum(t.credits_amount), 0) AS credits_used,
       max(t.created_at) FILTER (WHERE t.operation_type = 'deduction') AS last_charge_at
  FROM tenancy.credit_pools AS p
  JOIN tenancy.credit_transactions AS t ON t.pool_id = p.pool_id AND t.operation_type IN ('deduction', 'refund')
  LEFT JOIN tenancy.organization_seats AS s ON s.id = t.seat_id
 WHERE p.organization_id IS NOT NULL
 GROUP BY p.tenant_id, p.organization_id, t.seat_id, t.user_id, s.role, s.status;

CREATE VIEW tenancy.credit_usage_by_day WITH (security_invoker = true) AS
SELECT p.tenant_id,
       p.pool_id,
       p.organization_id,
       (t.created_at AT TIME ZONE 'UTC')::date AS day,
       count(*) FILTER (WHERE t.operation_type = 'deduction') AS charges,
       coalesce(-sum(t.credits_amount) FILTER (WHERE t.operation_type = 'deduction'), 0) AS credits_charged,
       coalesce(sum(t.credits_amount) FILTER (WHERE t.operation_type = 'refund'), 0) AS credits_refunded,
       coalesce(-sum(t.credits_amount), 0) AS credits_used,
       count(DISTINCT t.user_id) AS users
  FROM tenancy.credit_pools AS p
  JOIN tenancy.credit_transactions AS t ON t.pool_id = p.pool_id AND t.operation_type IN ('deduction', 'refund')
 GROUP BY p.tenant_id, p.pool_id, p.organization_id, (t.created_at AT TIME ZONE 'UTC')::date;

CREATE VIEW tenancy.seat_utilization WITH (security_invoker = true) AS
SELECT sub.tenant_id,
       sub.organization_id,
       sub.plan_type,
       sub.status,
       sub.seats_total,
       seats.taken AS seats_taken,
       seats.spending AS seats_spending,
       round(seats.taken::numeric / nullif(sub.seats_total, 0), 4) AS utilization
  FROM tenancy.organization_subscriptions AS sub
 CROSS JOIN LATERAL (
    SELECT count(*) AS taken,
           count(*) FILTER (WHERE EXISTS (
               SELECT FROM tenancy.credit_transactions AS t
                -- Ids begin with the entry's time, so that for a seat that spent nothing no older entry is read.
                WHERE t.pool_id = s.organization_id
                  AND t.id >= (lpad(to_hex(floor(extract(epoch FROM now() - interval '30 days') * 1000)::bigint), 12, '0')
                               || '70008000000000000000')::uuid
                  AND t.seat_id = s.id AND t.operation_type = 'deduction'
                  AND t.created_at > now() - interval '30 days')) AS spending
      FROM tenancy.organization_seats AS s
     WHERE s.organization_id = sub.organization_id AND s.status = 'active'
       AND (s.expires_at IS NULL OR s.expires_at > now())) AS seats;

CREATE VIEW tenancy.compat_organization_subscriptions WITH (security_invoker = true) AS
SELECT sub.id,
       sub.organization_id,
       o.external_id AS clerk_org_id,
       o.name AS organization_name,
       o.stripe_customer_id,
       sub.stripe_subscription_id,
       sub.plan_type,
       sub.billing_frequency,
       sub.status,
       sub.seats_total,
       sub.seats_used,
       trim_scale(coalesce(f.total, 0)) AS total_credits,
       trim_scale(coalesce(f.used, 0)) AS used_credits,
       sub.current_period_start,
       sub.current_period_end,
       sub.created_at,
       sub.updated_at
  FROM tenancy.organization_subscriptions AS sub
  JOIN tenancy.organizations AS o ON o.id = sub.organization_id
  LEFT JOIN tenancy.credit_pools AS p ON p.pool_id = sub.organization_id
  LEFT JOIN LATERAL tenancy.pool_figures(p.pool_id) AS f ON true;

CREATE VIEW tenancy.compat_users WITH (security_invoker = true) AS
SELECT u.id,
       u.external_id AS clerk_id,
       u.email,
       trim_scale(coalesce(f.available, 0)) AS credits,
       u.created_at,
       u.updated_at
  FROM tenancy.users AS u
  LEFT JOIN tenancy.credit_pools AS p ON p.pool_id = u.id
  LEFT JOIN LATERAL tenancy.pool_figures(p.pool_id) AS f ON true;

COMMENT ON VIEW tenancy.credit_usage_by_organization IS 'Credits spent from each organization''s pool, ever.';
COMMENT ON COLUMN tenancy.credit_usage_by_organization.tenant_id IS 'The organization''s tenant.';
COMMENT ON COLUMN tenancy.credit_usage_by_organization.organization_id IS 'The organization (organizations.id).';
COMMENT ON COLUMN tenancy.credit_usage_by_organization.org_id IS 'Its external id.';
COMMENT ON COLUMN tenancy.credit_usage_by_organization.organization_name IS 'Its name today.';
COMMENT ON COLUMN tenancy.credit_usage_by_organization.charges IS 'Number of charges.';
COMMENT ON COLUMN tenancy.credit_usage_by_organization.credits_charged IS 'Credits charged.';
COMMENT ON COLUMN tenancy.credit_usage_by_organization.credits_refunded IS 'Credits of them refunded.';
COMMENT ON COLUMN tenancy.credit_usage_by_organization.credits_used IS 'Charged less refunded.';
COMMENT ON COLUMN tenancy.credit_usage_by_organization.last_charge_at IS 'When the last charge was made.';

COMMENT ON VIEW tenancy.credit_usage_by_seat IS 'Credits spent from organizations'' pools by seat; seat_id is NULL for what was consumed without one.';
COMMENT ON COLUMN tenancy.credit_usage_by_seat.tenant_id IS 'The organization''s tenant.';
COMMENT ON COLUMN tenancy.credit_usage_by_seat.organization_id IS 'The organization (organizations.id).';
COMMENT ON COLUMN tenancy.credit_usage_by_seat.seat_id IS 'The seat as of the charge (organization_seats.id).';
COMMENT ON COLUMN tenancy.credit_usage_by_seat.user_id IS 'Who spent (users.id).';
COMMENT ON COLUMN tenancy.credit_usage_by_seat.seat_role IS 'The seat''s role today.';
COMMENT ON COLUMN tenancy.credit_usage_by_seat.seat_status IS 'The seat''s status today.';
COMMENT ON COLUMN tenancy.credit_usage_by_seat.charges IS 'Number of charges.';
COMMENT ON COLUMN tenancy.credit_usage_by_seat.credits_charged IS 'Credits charged.';
COMMENT ON COLUMN tenancy.credit_usage_by_seat.credits_refunded IS 'Credits of them refunded.';
COMMENT ON COLUMN tenancy.credit_usage_by_seat.credits_used IS 'Charged less refunded.';
COMMENT ON COLUMN tenancy.credit_usage_by_seat.last_charge_at IS 'When the last charge was made.';

COMMENT ON VIEW tenancy.credit_usage_by_day IS 'Credits spent from each pool by day (UTC); a refund counts on its own day.';
COMMENT ON COLUMN tenancy.credit_usage_by_day.tenant_id IS 'The pool''s tenant.';
COMMENT ON COLUMN tenancy.credit_usage_by_day.pool_id IS 'The pool (credit_pools.pool_id).';
COMMENT ON COLUMN tenancy.credit_usage_by_day.organization_id IS 'The organization; NULL for a personal pool.';
COMMENT ON COLUMN tenancy.credit_usage_by_day.day IS 'The day in UTC.';
COMMENT ON COLUMN tenancy.credit_usage_by_day.charges IS 'Number of charges.';
COMMENT ON COLUMN tenancy.credit_usage_by_day.credits_charged IS 'Credits charged.';
COMMENT ON COLUMN tenancy.credit_usage_by_day.credits_refunded IS 'Credits refunded.';
COMMENT ON COLUMN tenancy.credit_usage_by_day.credits_used IS 'Charged less refunded.';
COMMENT ON COLUMN tenancy.credit_usage_by_day.users IS 'Number of people who spent or were refunded.';

COMMENT ON VIEW tenancy.seat_utilization IS 'How many of an organization''s seats are taken, and how many of those spent credits in the last 30 days.';
COMMENT ON COLUMN tenancy.seat_utilization.tenant_id IS 'The organization''s tenant.';
COMMENT ON COLUMN tenancy.seat_utilization.organization_id IS 'The organization (organizations.id).';
COMMENT ON COLUMN tenancy.seat_utilization.plan_type IS 'The subscription''s plan.';
COMMENT ON COLUMN tenancy.seat_utilization.status IS 'The subscription''s status.';
COMMENT ON COLUMN tenancy.seat_utilization.seats_total IS 'Seats paid for.';
COMMENT ON COLUMN tenancy.seat_utilization.seats_taken IS 'Active, unexpired seats.';
COMMENT ON COLUMN tenancy.seat_utilization.seats_spending IS 'Those of them that spent credits in the last 30 days.';
COMMENT ON COLUMN tenancy.seat_utilization.utilization IS 'seats_taken / seats_total; NULL for no seats.';

COMMENT ON VIEW tenancy.compat_organization_subscriptions IS
'For readers of contract S''s organization_subscriptions: its columns, with the pool''s total_credits and used_credits.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.id IS 'The subscription.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.organization_id IS 'The organization (organizations.id).';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.clerk_org_id IS 'Its external id.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.organization_name IS 'Its name.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.stripe_customer_id IS 'The payment provider''s customer.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.stripe_subscription_id IS 'The payment provider''s subscription.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.plan_type IS 'The plan.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.billing_frequency IS 'monthly or yearly.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.status IS 'The subscription''s status.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.seats_total IS 'Seats paid for.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.seats_used IS 'Seats taken.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.total_credits IS 'Credits granted, less what expired.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.used_credits IS 'Credits charged and not refunded.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.current_period_start IS 'Begin of the period paid for.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.current_period_end IS 'End of the period paid for.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.created_at IS 'When the subscription was made.';
COMMENT ON COLUMN tenancy.compat_organization_subscriptions.updated_at IS 'When the subscription last changed.';

COMMENT ON VIEW tenancy.compat_users IS 'For readers of contract S''s users: the credits of each user''s own pool.';
COMMENT ON COLUMN tenancy.compat_users.id IS 'The user (users.id).';
COMMENT ON COLUMN tenancy.compat_users.clerk_id IS 'The user''s external id.';
COMMENT ON COLUMN tenancy.compat_users.email IS 'The user''s e-mail address.';
COMMENT ON COLUMN tenancy.compat_users.credits IS 'Available credits of the user''s own pool.';
COMMENT ON COLUMN tenancy.compat_users.created_at IS 'When the user was registered.';
COMMENT ON COLUMN tenancy.compat_users.updated_at IS 'When the user''s row last changed.';
