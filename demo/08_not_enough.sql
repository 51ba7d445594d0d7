\echo
\echo :bold'8. Not enough credits':plain
\echo
\connect - admin
\set ECHO queries
SELECT tenancy.grant_credits(5000, user_id => 'user_2NNEqL2nrIRdJ194ndJqAHwEfxC', reason => 'her own');
\set ECHO none
\connect - worker
\set ECHO queries
SELECT deduct_credits_pooled('user_2NNEqL2nrIRdJ194ndJqAHwEfxC', 2000, 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY') AS charged \gset
\set ECHO none
SELECT :'charged'::boolean AS charged;
\connect - postgres
\set ECHO queries
SELECT 'Acme' AS pool, available FROM tenancy.credit_balance(org_id => 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY')
UNION ALL
SELECT 'Ada', available FROM tenancy.credit_balance(user_id => 'user_2NNEqL2nrIRdJ194ndJqAHwEfxC');

\set ECHO none
SELECT demo.shows(
    NOT :'charged'::boolean
        AND (SELECT count(*) = 1 FROM tenancy.credit_transactions WHERE operation_type = 'deduction')
        AND (SELECT available = 975 FROM tenancy.credit_balance(org_id => 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY'))
        AND (SELECT available = 5000 FROM tenancy.credit_balance(user_id => 'user_2NNEqL2nrIRdJ194ndJqAHwEfxC')),
    'false, and nothing written: the organization''s bill never falls back on a person''s own credits.') AS shows \gset
\echo '=>' :shows
