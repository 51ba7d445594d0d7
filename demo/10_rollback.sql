\echo
\echo :bold'10. The charge belongs to the transaction':plain
\echo
\connect - admin
\set ECHO queries
SELECT tenancy.assign_seat('org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY', 'user_2NNEqL2nrIRdJ194ndJqAHwEfxC');
\set ECHO none
\connect - web
\set ECHO queries
BEGIN;
SELECT tenancy.authenticate(:'token') AS user_id;
INSERT INTO essays (title) VALUES ('On second thoughts');
SELECT status, pool, charged, balance_after FROM tenancy.spend_credits(100, 'A long essay');
\set ECHO none
SELECT count(*) = 3 AS written FROM essays \gset
\set ECHO queries
ROLLBACK;

\set ECHO none
\connect - postgres
\set ECHO queries
SELECT available, (SELECT count(*) FROM essays) AS essays
FROM tenancy.credit_balance(org_id => 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY');

\set ECHO none
SELECT demo.shows(
    :'written'
        AND (SELECT available = 975 FROM tenancy.credit_balance(org_id => 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY'))
        AND (SELECT count(*) = 3 FROM essays)
        AND (SELECT count(*) = 1 FROM tenancy.credit_transactions WHERE operation_type = 'deduction'),
    'The work is undone, and so is the charge: verified, isolated and paid together, or not at all.') AS shows \gset
\echo '=>' :shows
\echo
