-- The world of the benchmarks: 64 organizations with one seat each, twice: once ours, once the baseline's.
\set ON_ERROR_STOP on
CREATE EXTENSION pg_tenancy;
SELECT tenancy.install() \g /dev/null
\ir baseline.sql
CREATE ROLE app LOGIN;
-- Readers of bench.rows_policy, each with the policy of its name.
CREATE ROLE setting LOGIN;
CREATE ROLE claim LOGIN;
CREATE ROLE claim_bare LOGIN;
CREATE ROLE members LOGIN;
GRANT USAGE ON SCHEMA bench TO setting, claim, claim_bare, members;
SELECT tenancy.grant_access('app', 'application'), tenancy.grant_access('app', 'service') \g /dev/null
GRANT USAGE ON SCHEMA bench TO app;
GRANT ALL ON ALL TABLES IN SCHEMA bench TO app;
DO $$
DECLARE org_uuid uuid; user_uuid uuid; sub_uuid uuid;
BEGIN
    FOR i IN 0..63 LOOP
        PERFORM tenancy.register_user('user_' || i);
        PERFORM tenancy.register_organization('org_' || i, 'Org ' || i, stripe_customer_id => 'cus_' || i);
        PERFORM tenancy.set_membership('user_' || i, 'org_' || i, 'member');
        PERFORM tenancy.set_subscription('org_' || i, 'teams', 'active', 5);
        PERFORM tenancy.assign_seat('org_' || i, 'user_' || i);
        PERFORM tenancy.grant_credits(100000000, org_id => 'org_' || i);
        INSERT INTO bench.users (clerk_id) VALUES ('user_' || i) RETURNING id INTO user_uuid;
        INSERT INTO bench.organizations (clerk_org_id, name, stripe_customer_id)
        VALUES ('org_' || i, 'Org ' || i, 'cus_' || i) RETURNING id INTO org_uuid;
        INSERT INTO bench.organization_subscriptions (organization_id, clerk_org_id, total_credits)
        VALUES (org_uuid, 'org_' || i, 100000000) RETURNING id INTO sub_uuid;
        INSERT INTO bench.organization_seats (organization_subscription_id, clerk_org_id, clerk_user_id)
        VALUES (sub_uuid, 'org_' || i, 'user_' || i);
    END LOOP;
END
$$;
SELECT tenancy.add_issuer('bench', ARRAY['bench']) \g /dev/null
SELECT tenancy.add_secret('bench', 'k', 'HS256', convert_to(repeat('benchmark-secret', 2), 'UTF8')) \g /dev/null
CREATE TABLE bench.tokens AS
SELECT i AS id, bench.sign(jsonb_build_object('iss', 'bench', 'aud', 'bench', 'sub', 'user_' || i % 64, 'org_id', 'org_' || i % 64,
         'iat', extract(epoch FROM now())::bigint, 'exp', extract(epoch FROM now())::bigint + 86400, 'jti', i::text), convert_to(repeat('benchmark-secret', 2), 'UTF8')) AS token
  FROM generate_series(0, 19999) AS i;
ALTER TABLE bench.tokens ADD PRIMARY KEY (id);
GRANT SELECT ON bench.tokens TO PUBLIC;
VACUUM ANALYZE;
