\echo
\echo :bold'13. Three comparisons are charged to the school, once':plain
\echo
\connect - worker
\echo '-- 03_assessment_requested.json and 04_consumption.json in one array, then the consumption again'
\set ECHO queries
SELECT status, result
FROM tenancy.consume_event(jsonb_build_array(demo.payload('03_assessment_requested'), demo.payload('04_consumption')));
SELECT status FROM tenancy.consume_event(demo.payload('04_consumption')) \gset again_
\set ECHO none
SELECT :'again_status' AS "the same event again";
\connect - postgres
\set ECHO queries
SELECT * FROM tenancy.credit_balance(org_id => 'skola-malmo-01');
SELECT type, payload #>> '{data,subject,id}' AS subject, coalesce(payload #>> '{data,delta}', payload #>> '{data,amount}') AS amount,
       payload #>> '{data,new_balance}' AS new_balance
FROM tenancy.event_outbox
WHERE type LIKE 'huleedu.entitlements.%'
ORDER BY type;

\set ECHO none
\echo '-- who it was, at every step'
CREATE TEMPORARY VIEW steps AS
SELECT 1 AS step, '01: the batch of the request' AS place, user_id, org_id FROM tenancy.batches WHERE request ? 'cj_default_llm_model'
UNION ALL
SELECT 2, '01: BatchEssaysRegistered', payload #>> '{data,user_id}', payload #>> '{data,org_id}'
FROM tenancy.event_outbox WHERE type = 'huleedu.batch.essays.registered.v1'
UNION ALL
SELECT 3, '02: the batch announced', s ->> 'user_id', s ->> 'org_id'
FROM tenancy.get_batch_status('6b1f0a52-3c44-4a0e-9d57-0d6a2f1c9e10') AS s
UNION ALL
SELECT 4, '03: the assessment dispatched', payload #>> '{data,user_id}', payload #>> '{data,org_id}'
FROM tenancy.event_outbox WHERE type = 'huleedu.els.cj_assessment.requested.v1'
UNION ALL
SELECT 5, '04: the consumption taken', user_id, org_id FROM tenancy.event_inbox WHERE event_type = 'huleedu.resource.consumption.v1'
UNION ALL
SELECT 6, 'the ledger''s row: ' || trim_scale(t.credits_amount), u.external_id, o.external_id
FROM tenancy.credit_transactions AS t
JOIN tenancy.users AS u ON u.id = t.user_id
JOIN tenancy.organizations AS o ON o.id = t.organization_id AND t.pool_id = o.id
WHERE t.correlation_id = '7f0c2d1e-5b7a-4c1d-9f0e-2a6b8c4d1e3f';
SELECT place, user_id, org_id FROM steps ORDER BY step;
SELECT demo.shows(
    :'again_status' = 'duplicate'
        AND (SELECT available = 497 FROM tenancy.credit_balance(org_id => 'skola-malmo-01'))
        AND (SELECT count(*) = 1 FROM tenancy.credit_operations WHERE consumed_from = 'org' AND org_id = 'skola-malmo-01')
        AND (SELECT count(*) = 6 AND bool_and(user_id = 'larare-0017' AND org_id = 'skola-malmo-01') FROM steps)
        AND NOT EXISTS (SELECT FROM tenancy.verify_ledger()),
    'Registered, dispatched, consumed, charged: one teacher and one school from the first step to the ledger.') AS shows \gset
\echo '=>' :shows
\echo
