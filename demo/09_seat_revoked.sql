\echo
\echo :bold'9. The seat is revoked':plain
\echo
\connect - admin
\set ECHO queries
SELECT tenancy.revoke_seat('org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY', 'user_2NNEqL2nrIRdJ194ndJqAHwEfxC', 'left the team') AS revoked;
\set ECHO none
\connect - worker
\set ON_ERROR_STOP off
\set ECHO queries
SELECT deduct_credits_pooled('user_2NNEqL2nrIRdJ194ndJqAHwEfxC', 25, 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY');
\set ECHO none
\set sqlstate :SQLSTATE
\set message :LAST_ERROR_MESSAGE
\set ON_ERROR_STOP on
\connect - postgres
SELECT demo.shows(
    :'sqlstate' = 'PT403' AND :'message' = 'User does not have an active seat in this organization'
        AND (SELECT available = 975 FROM tenancy.credit_balance(org_id => 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY')),
    'No seat, no spending: SQLSTATE PT403 (an HTTP 403 behind PostgREST), and nothing charged.') AS shows \gset
\echo
\echo '=>' :shows
