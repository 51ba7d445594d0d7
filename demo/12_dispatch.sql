\echo
\echo :bold'12. Essays are announced, texts arrive, the assessment is dispatched':plain
\echo
\connect - worker
\echo '-- what another service announced (demo/school/02_essays_registered.json), delivered twice'
\set ECHO queries
SELECT status, result ->> 'status' AS batch FROM tenancy.consume_event(demo.payload('02_essays_registered'));
SELECT status FROM tenancy.consume_event(demo.payload('02_essays_registered'));
SELECT count(tenancy.assign_essay('6b1f0a52-3c44-4a0e-9d57-0d6a2f1c9e10', 'e0000000-0000-4000-8000-00000000000' || n, 'txt-' || n)) AS assigned
FROM generate_series(1, 3) AS n;
SELECT s ->> 'ready_count' AS ready, s ->> 'is_complete' AS is_complete, s ->> 'user_id' AS user_id, s ->> 'org_id' AS org_id
FROM tenancy.get_batch_status('6b1f0a52-3c44-4a0e-9d57-0d6a2f1c9e10') AS s;
SELECT tenancy.dispatch_cj_assessment('6b1f0a52-3c44-4a0e-9d57-0d6a2f1c9e10') IS NOT NULL AS dispatched;
\set ECHO none
\connect - postgres
\set ECHO queries
SELECT jsonb_pretty((payload -> 'data') - 'system_metadata') AS "what went out"
FROM tenancy.event_outbox
WHERE type = 'huleedu.els.cj_assessment.requested.v1';

\set ECHO none
-- Times, and who wrote it when, are of their own.
SELECT demo.shows(
    (SELECT ((payload -> 'data') - '{timestamp,system_metadata}'::text[])
            = ((demo.payload('03_assessment_requested') -> 'data') - '{timestamp,system_metadata}'::text[])
            AND payload #>> '{metadata,org_id}' = 'skola-malmo-01'
     FROM tenancy.event_outbox WHERE type = 'huleedu.els.cj_assessment.requested.v1'),
    'The request is the original''s (03_assessment_requested.json): three essays, the batch''s teacher and school.') AS shows \gset
\echo '=>' :shows
