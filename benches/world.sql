-- The world of the benchmarks: 64 organizations with one seat each, twice: once ours, once the baseline's.
\set ON_ERROR_STOP on
CREATE EXTENSION pg_tenancy;
SELECT tenancy.install() \g /dev/null
\ir baseline.sql
CREATE ROLE app LOGIN;
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
         'iat', extract(epoch FROM now())::bigint, 'exp', extract(epoch FROM now())::bigint + 86400, 'jti', i), convert_to(repeat('benchmark-secret', 2), 'UTF8')) AS token
  FROM generate_series(0, 19999) AS i;
ALTER TABLE bench.tokens ADD PRIMARY KEY (id);
GRANT SELECT ON bench.tokens TO app;

-- 1,000,000 rows of 1,000 tenants, once for each way to isolate them.
CREATE TABLE bench.rows_plain AS
SELECT 'org_' || i % 1000 AS tenant_id, i AS id, repeat('x', 60) AS body FROM generate_series(0, 999999) AS i;
ALTER TABLE bench.rows_plain ALTER tenant_id SET NOT NULL, ADD PRIMARY KEY (tenant_id, id);
CREATE TABLE bench.rows_ours (LIKE bench.rows_plain INCLUDING ALL);
INSERT INTO bench.rows_ours SELECT * FROM bench.rows_plain;
CREATE TABLE bench.rows_setting (LIKE bench.rows_plain INCLUDING ALL);
INSERT INTO bench.rows_setting SELECT * FROM bench.rows_plain;
CREATE TABLE bench.rows_claim (LIKE bench.rows_plain INCLUDING ALL);
INSERT INTO bench.rows_claim SELECT * FROM bench.rows_plain;
CREATE TABLE bench.memberships (user_id text, tenant_id text, PRIMARY KEY (user_id, tenant_id));
INSERT INTO bench.memberships SELECT 'user_' || i, 'org_' || i FROM generate_series(0, 999) AS i;
CREATE TABLE bench.rows_members (LIKE bench.rows_plain INCLUDING ALL);
INSERT INTO bench.rows_members SELECT * FROM bench.rows_plain;
GRANT SELECT ON ALL TABLES IN SCHEMA bench TO app;
SELECT count(*) FROM tenancy.protect_table('bench.rows_ours') \g /dev/null
ALTER TABLE bench.rows_setting ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON bench.rows_setting USING (tenant_id = current_setting('app.tenant_id', true));
ALTER TABLE bench.rows_claim ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON bench.rows_claim USING (tenant_id = (SELECT current_setting('request.jwt.claims', true)::jsonb ->> 'tenant_id'));
ALTER TABLE bench.rows_members ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON bench.rows_members
    USING (tenant_id IN (SELECT m.tenant_id FROM bench.memberships AS m WHERE m.user_id = current_setting('app.user_id', true)));
VACUUM ANALYZE;
CHECKPOINT;
