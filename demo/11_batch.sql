\echo
\echo :bold'11. The second story: a school registers a batch of essays':plain
\echo
\connect - postgres
\echo '-- the school''s gateway signs tokens of its own'
\set ECHO queries
SELECT tenancy.add_issuer(issuer => 'huleedu-identity-service', audiences => ARRAY['huleedu-platform']);
SELECT tenancy.add_secret('huleedu-identity-service', 'demo-key', 'HS256', pg_read_binary_file('issuer.key'));
\set ECHO none
\connect - admin
\set ECHO queries
SELECT tenancy.register_organization('skola-malmo-01', 'Malmö School');
SELECT tenancy.grant_credits(500, org_id => 'skola-malmo-01', reason => 'autumn term');
\set ECHO none
SELECT jsonb_build_object('sub', 'larare-0017', 'org', 'skola-malmo-01', 'roles', ARRAY['teacher'],
    'exp', floor(extract(epoch FROM now())) + 3600,
    'iss', 'huleedu-identity-service', 'aud', 'huleedu-platform') AS teacher_claims \gset
\setenv CLAIMS :teacher_claims
\set teacher_token `"$DEMO_SIGN" "$DEMO_KEY"`
\connect - postgres
-- What services send each other, unchanged, by the name of its file in demo/school.
CREATE TABLE demo.payloads (name text PRIMARY KEY, body jsonb);
CREATE FUNCTION demo.payload(name text) RETURNS jsonb STABLE LANGUAGE sql
AS 'SELECT p.body FROM demo.payloads AS p WHERE p.name = payload.name';
GRANT SELECT ON demo.payloads TO PUBLIC;
\set registration `cat "$DEMO_SCHOOL/01_registration.json"`
\set essays_registered `cat "$DEMO_SCHOOL/02_essays_registered.json"`
\set assessment_requested `cat "$DEMO_SCHOOL/03_assessment_requested.json"`
\set consumption `cat "$DEMO_SCHOOL/04_consumption.json"`
INSERT INTO demo.payloads VALUES
    ('01_registration', :'registration'), ('02_essays_registered', :'essays_registered'),
    ('03_assessment_requested', :'assessment_requested'), ('04_consumption', :'consumption');
\echo '-- the request, as a client of the original sends it (demo/school/01_registration.json)'
\echo :registration
\connect - web
\set ECHO queries
BEGIN;
SELECT tenancy.authenticate(:'teacher_token') AS user_id;
SELECT batch_id, status FROM tenancy.register_batch(demo.payload('01_registration')) \gset registered_
SELECT jsonb_pretty(tenancy.get_batch_status(:'registered_batch_id')) AS "status of the batch";
COMMIT;

\set ECHO none
\connect - postgres
SELECT demo.shows(
    :'registered_status' = 'registered'
        AND (SELECT b.user_id = 'larare-0017' AND b.org_id = 'skola-malmo-01' AND b.request = demo.payload('01_registration')
             FROM tenancy.batches AS b)
        AND (SELECT payload #>> '{data,user_id}' = 'larare-0017' AND payload #>> '{data,org_id}' = 'skola-malmo-01'
             FROM tenancy.event_outbox WHERE type = 'huleedu.batch.essays.registered.v1'),
    'The batch and the event about it name the verified teacher and school, written in one transaction.') AS shows \gset
\echo '=>' :shows
