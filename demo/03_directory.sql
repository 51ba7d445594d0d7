\echo
\echo :bold'3. An organization, its subscription, a pool of 1,000 credits, a seat':plain
\echo
\connect - admin
\set ECHO queries
SELECT tenancy.register_user('user_2NNEqL2nrIRdJ194ndJqAHwEfxC', 'ada@acme.test') AS ada \gset
SELECT tenancy.register_organization('org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY', 'Acme Inc',
    stripe_customer_id => 'cus_Q1w2E3r4') AS organization_id \gset
SELECT tenancy.set_subscription('org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY', 'teams', 'active', 5) AS subscription_id \gset
SELECT tenancy.set_membership('user_2NNEqL2nrIRdJ194ndJqAHwEfxC', 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY', 'org:member');
SELECT tenancy.assign_seat('org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY', 'user_2NNEqL2nrIRdJ194ndJqAHwEfxC') AS seat_id \gset
SELECT tenancy.grant_credits(1000, org_id => 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY', reason => 'first month') IS NOT NULL AS granted;

-- Another customer, to be kept apart from the first.
SELECT tenancy.register_user('user_globex', 'hank@globex.test') IS NOT NULL AS hank;
SELECT tenancy.register_organization('org_globex', 'Globex') AS globex_id \gset
SELECT tenancy.set_subscription('org_globex', 'teams', 'active', 5) AS globex_subscription_id \gset
SELECT tenancy.set_membership('user_globex', 'org_globex', 'org:member');
SELECT tenancy.assign_seat('org_globex', 'user_globex') AS globex_seat_id \gset

\set ECHO none
\connect - postgres
\set ECHO queries
SELECT o.name, o.tenant_id, s.plan_type, s.status, s.seats_used, s.seats_total
FROM tenancy.organizations AS o
JOIN tenancy.organization_subscriptions AS s ON s.organization_id = o.id
ORDER BY o.name;
SELECT * FROM tenancy.credit_balance(org_id => 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY');

\set ECHO none
SELECT demo.shows(
    (SELECT available = 1000 FROM tenancy.credit_balance(org_id => 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY'))
        AND (SELECT count(*) = 2 FROM tenancy.organization_seats WHERE status = 'active'),
    'Two organizations, each a tenant of its own; Acme has 1,000 credits and one seat taken.') AS shows \gset
\echo
\echo '=>' :shows
