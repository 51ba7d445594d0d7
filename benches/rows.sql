-- 1,000,000 rows of 1,000 tenants, three times: without a policy, under protect_table, and under the policies that
-- users write, each for its own role.
\set ON_ERROR_STOP on
CREATE TABLE bench.rows_plain AS
SELECT 'org_' || i % 1000 AS tenant_id, i AS id, repeat('x', 60) AS body FROM generate_series(0, 999999) AS i;
ALTER TABLE bench.rows_plain ALTER tenant_id SET NOT NULL, ADD PRIMARY KEY (tenant_id, id);
CREATE TABLE bench.rows_ours (LIKE bench.rows_plain INCLUDING ALL);
INSERT INTO bench.rows_ours SELECT * FROM bench.rows_plain;
CREATE TABLE bench.rows_policy (LIKE bench.rows_plain INCLUDING ALL);
INSERT INTO bench.rows_policy SELECT * FROM bench.rows_plain;
CREATE TABLE bench.memberships (user_id text, tenant_id text, PRIMARY KEY (user_id, tenant_id));
INSERT INTO bench.memberships SELECT 'user_' || i, 'org_' || i FROM generate_series(0, 999) AS i;
GRANT SELECT ON bench.rows_plain, bench.rows_ours TO app;
GRANT SELECT ON bench.rows_policy, bench.memberships TO setting, claim, claim_bare, members;
SELECT count(*) FROM tenancy.protect_table('bench.rows_ours') \g /dev/null
ALTER TABLE bench.rows_policy ENABLE ROW LEVEL SECURITY;
CREATE POLICY setting ON bench.rows_policy TO setting USING (tenant_id = current_setting('app.tenant_id', true));
CREATE POLICY claim ON bench.rows_policy TO claim
    USING (tenant_id = (SELECT current_setting('request.jwt.claims', true)::jsonb ->> 'tenant_id'));
CREATE POLICY claim_bare ON bench.rows_policy TO claim_bare
    USING (tenant_id = current_setting('request.jwt.claims', true)::jsonb ->> 'tenant_id');
CREATE POLICY members ON bench.rows_policy TO members
    USING (tenant_id IN (SELECT m.tenant_id FROM bench.memberships AS m WHERE m.user_id = current_setting('app.user_id', true)));
VACUUM ANALYZE;
CHECKPOINT;
