\echo
\echo :bold'4. A signed token says who is asking':plain
\echo
-- The token is what the product's token service hands out today: same claims, same key, HS256 (demo/sign signs it).
SELECT jsonb_build_object(
    'sub', 'user_2NNEqL2nrIRdJ194ndJqAHwEfxC', 'type', 'extension_long_lived',
    'iat', floor(extract(epoch FROM now())), 'exp', floor(extract(epoch FROM now())) + 10368000,
    'iss', 'softcodes.ai', 'aud', 'vscode-extension', 'pool', 'organization',
    'clerk_org_id', 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY', 'organization_id', :'organization_id',
    'organization_name', 'Acme Inc', 'stripe_customer_id', 'cus_Q1w2E3r4',
    'organization_subscription_id', :'subscription_id', 'seat_id', :'seat_id',
    'seat_role', 'member', 'org_role', 'org:member') AS claims \gset
\setenv CLAIMS :claims
\set token `"$DEMO_SIGN" "$DEMO_KEY"`
SELECT :'claims'::jsonb || jsonb_build_object(
    'sub', 'user_globex', 'clerk_org_id', 'org_globex', 'organization_id', :'globex_id',
    'organization_name', 'Globex', 'stripe_customer_id', NULL,
    'organization_subscription_id', :'globex_subscription_id', 'seat_id', :'globex_seat_id') AS globex_claims \gset
\setenv CLAIMS :globex_claims
\set globex_token `"$DEMO_SIGN" "$DEMO_KEY"`

SELECT jsonb_pretty(:'claims'::jsonb) AS "claims of the token";
\connect - web
\set ECHO queries
BEGIN;
SELECT tenancy.authenticate(:'token') AS user_id;
SELECT tenancy.tenant_id(), tenancy.org_id(), tenancy.org_role(), tenancy.pool(), tenancy.organization_id();

\set ECHO none
SELECT tenancy.user_id() = 'user_2NNEqL2nrIRdJ194ndJqAHwEfxC'
    AND tenancy.org_id() = 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY'
    AND tenancy.tenant_id() = 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY'
    AND tenancy.organization_id() = :'organization_id' AS inside \gset
\set ECHO queries
COMMIT;
SELECT tenancy.user_id() AS "user after the COMMIT";

\set ECHO none
SELECT demo.shows(:'inside' AND tenancy.user_id() IS NULL,
    'The identity is the verified token''s, and lasts exactly as long as the transaction.') AS shows \gset
\echo '=>' :shows
