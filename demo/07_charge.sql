\echo
\echo :bold'7. A pooled deduction with its full attribution':plain
\echo
\connect - worker
\set ECHO queries
BEGIN;
SELECT tenancy.authenticate(:'token') AS user_id;
SELECT deduct_credits_pooled(
    p_clerk_user_id => 'user_2NNEqL2nrIRdJ194ndJqAHwEfxC',
    p_amount => 25,
    p_clerk_org_id => 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY',
    p_description => 'Code generation',
    p_reference_id => 'req_01JH8Z') AS charged \gset
\set ECHO none
SELECT :'charged'::boolean AS charged;
\set ECHO queries
COMMIT;

\set ECHO none
\connect - postgres
\set ECHO queries
SELECT credits_amount, operation_type, description, reference_id, jsonb_pretty(metadata) AS metadata
FROM tenancy.credit_transactions
WHERE operation_type = 'deduction';
SELECT * FROM tenancy.credit_balance(org_id => 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY');

\set ECHO none
SELECT demo.shows(
    :'charged'::boolean
        AND (SELECT count(*) = 1 FROM tenancy.credit_transactions WHERE operation_type = 'deduction')
        AND (SELECT credits_amount = -25 AND description = 'Code generation' AND reference_id = 'req_01JH8Z'
                AND metadata = jsonb_build_object(
                    'pool', 'organization',
                    'clerk_org_id', 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY',
                    'organization_id', :'organization_id',
                    'organization_name', 'Acme Inc',
                    'stripe_customer_id', 'cus_Q1w2E3r4',
                    'organization_subscription_id', :'subscription_id',
                    'seat_id', :'seat_id',
                    'seat_role', 'member')
             FROM tenancy.credit_transactions WHERE operation_type = 'deduction')
        AND (SELECT available = 975 FROM tenancy.credit_balance(org_id => 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY')),
    '25 of 1,000 credits are gone, and one row says who spent them, from which pool, on which seat.') AS shows \gset
\echo '=>' :shows
