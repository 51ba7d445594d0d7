\echo
\echo :bold'6. Four forgeries':plain
\echo
\connect - web
\set ON_ERROR_STOP off
\echo '-- writing the identity oneself'
\set ECHO queries
SET tenancy.identity = '{"user_id": "user_2NNEqL2nrIRdJ194ndJqAHwEfxC", "tenant_id": "org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY"}';
\set ECHO none
\set forged_setting :SQLSTATE
SELECT tenancy.tenant_id() IS NULL AS no_identity_1 \gset

\echo
\echo '-- the setting that PostgREST and Supabase read'
\set ECHO queries
SET request.jwt.claims = '{"sub": "user_2NNEqL2nrIRdJ194ndJqAHwEfxC", "org_id": "org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY"}';
SELECT tenancy.user_id(), (SELECT count(*) FROM essays) AS rows_seen;
\set ECHO none
SELECT tenancy.user_id() IS NULL AND NOT EXISTS (SELECT FROM essays) AS no_identity_2 \gset

\setenv CLAIMS :claims
\set forged_token `"$DEMO_SIGN" "$DEMO_OTHER_KEY"`
\echo '-- the same claims, signed by somebody who does not have the key'
\set ECHO queries
BEGIN;
SELECT tenancy.authenticate(:'forged_token');
\set ECHO none
\set other_key :SQLSTATE
\set ECHO queries
ROLLBACK;
\set ECHO none

\set unsigned_token `"$DEMO_SIGN" none`
\echo
\echo '-- the same claims, alg none'
\set ECHO queries
BEGIN;
SELECT tenancy.authenticate(:'unsigned_token');
\set ECHO none
\set alg_none :SQLSTATE
\set ECHO queries
ROLLBACK;
\set ECHO none
\set ON_ERROR_STOP on

SELECT demo.shows(
    :'forged_setting' = '42501' AND :'no_identity_1' AND :'no_identity_2'
        AND :'other_key' = 'PT401' AND :'alg_none' = 'PT401' AND tenancy.user_id() IS NULL,
    'SET of the identity, request.jwt.claims, another key, alg none: each refused or without effect.') AS shows \gset
\echo
\echo '=>' :shows
