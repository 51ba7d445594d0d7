\echo
\echo :bold'3. An organization, its subscription, a pool of 1,000 credits, a seat':plain
\echo
\connect - admin
\set ECHO queries
SELECT tenancy.register_user('user_2NNEqL2nrIRdJ194ndJqAHwEfxC', 'ada@acme.test');
SELECT tenancy.register_organization('org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY', 'Acme Inc',
    stripe_customer_id => 'cus_Q1w2E3r4');
SELECT tenancy.set_subscription('org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY', 'teams', 'active', 5);
SELECT tenancy.set_membership('user_2NNEqL2nrIRdJ194ndJqAHwEfxC', 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY', 'org:member');
SELECT tenancy.assign_seat('org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY', 'user_2NNEqL2nrIRdJ194ndJqAHwEfxC');
SELECT tenancy.grant_credits(1000, org_id => 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY', reason => 'first month');
\set ECHO none
\echo '-- another customer, to be kept apart from the first'
\set ECHO queries
SELECT tenancy.register_user('user_globex', 'hank@globex.test');
SELECT tenancy.register_organization('org_globex', 'Globex');
SELECT tenancy.set_subscription('org_globex', 'teams', 'active', 5);
SELECT tenancy.set_membership('user_globex', 'org_globex', 'org:member');
SELECT tenancy.assign_seat('org_globex', 'user_globex');

\set ECHO none
\connect - postgres
SELECT o.id AS organization_id, s.id AS subscription_id, t.id AS seat_id
FROM tenancy.organizations AS o
JOIN tenancy.organization_subscriptions AS s ON s.organization_id = o.id
JOIN tenancy.organization_seats AS t ON t.organization_id = o.id
WHERE o.external_id = 'org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY' \gset
SELECT o.id AS globex_id, s.id AS globex_subscription_id, t.id AS globex_seat_id
FROM tenancy.organizations AS o
JOIN tenancy.organization_subscriptions AS s ON s.organization_id = o.id
JOIN tenancy.organization_seats AS t ON t.organization_id = o.id
WHERE o.external_id = 'org_globex' \gset
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
\echo '=>' :shows
