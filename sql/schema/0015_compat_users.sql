-- 0015 compat_users: a user's own pool is the user's whatever tenant the token is for. Before, the pool's own row-level
-- security hid it from a token for an organization, and the view said 0.

CREATE OR REPLACE VIEW tenancy.compat_users WITH (security_invoker = true) AS
SELECT u.id,
       u.external_id AS clerk_id,
       u.email,
       trim_scale(f.available) AS credits,
       u.created_at,
       u.updated_at
  FROM tenancy.users AS u
  LEFT JOIN LATERAL tenancy.pool_figures(u.id) AS f ON true;
