-- A database that has been in use: something of every domain, for tests that carry a database elsewhere (upgrades,
-- dumps, replicas). Run by the superuser in a database of the harness. Has an index and a column of the user's own.
SELECT tenancy.register_tenant('acme', 'Acme'), tenancy.register_tenant('gone', 'Gone'), tenancy.set_tenant_status('gone', 'suspended');
SELECT tenancy.register_user(id) FROM unnest(ARRAY['ada', 'bea', 'zoe']) AS id;
SELECT tenancy.register_organization('org_acme', 'Acme Inc', 'acme', 'cus_1'), tenancy.register_organization('org_bolt', 'Bolt');
SELECT tenancy.set_membership('ada', 'org_acme', 'admin'), tenancy.set_subscription('org_acme', 'teams', 'active', 5);
SELECT tenancy.assign_seat('org_acme', 'ada'), tenancy.assign_seat('org_acme', 'bea');
SELECT tenancy.revoke_seat('org_acme', 'bea', 'left');

SELECT tenancy.grant_credits(1000, org_id => 'org_acme', reason => 'bought'), tenancy.grant_credits(50, user_id => 'zoe');
SELECT tenancy.grant_credits(20, org_id => 'org_acme', expires_at => now() + interval '1 year', idempotency_key => 'gift');
SELECT tenancy.set_member_cap('org_acme', 'ada', 900, 'month'), tenancy.set_credit_cost('comparison', 0.25);
SELECT tenancy.deduct_credits('ada', n, 'org_acme', 'Work', 'ref-' || n, 'key-' || n, jsonb_build_object('n', n))
  FROM generate_series(1, 20) AS n;
SELECT tenancy.deduct_credits_pooled('zoe', 1.5);
SELECT tenancy.capture_hold(tenancy.hold_credits('ada', 10, 'org_acme', idempotency_key => 'hold-1'), 7.25);
SELECT tenancy.void_hold(tenancy.hold_credits('ada', 3, 'org_acme'));
SELECT tenancy.hold_credits('ada', 5, 'org_acme', '1 day', 'still open');
SELECT tenancy.refund_credits((SELECT id FROM tenancy.credit_transactions WHERE reference_id = 'ref-20'), 5, 'half back');
SELECT count(*) FROM tenancy.seal_ledger();

SELECT tenancy.add_signing_profile('default', 'https://product.test', 'product', 'ES256', 'sign-1');
SELECT tenancy.revoke_session('https://issuer.test', 'session-0');
SELECT tenancy.set_rate_limit('calls', 100, '1 minute'), tenancy.set_quota('pages', 10, 20, 'month', tenant_id => 'acme');
SELECT tenancy.set_llm_price('openai', 'gpt', 1, 2);

BEGIN;
SELECT tenancy.act_as('ada', 'org_acme', reason => 'a lived-in database');
SELECT tenancy.publish_event('essay.graded.v1', '{"user_id": "ada", "org_id": "org_acme", "n": 1}', 'essay', 'e-1');
SELECT tenancy.create_api_key('org_acme', role => 'viewer', name => 'robot') IS NOT NULL;
SELECT tenancy.record_llm_usage('openai', 'gpt', 1000, 100, request_id => 'r-1');
SELECT tenancy.register_batch('{"expected_essay_count": 2, "course_code": "ENG5", "user_id": "ada", "org_id": "org_acme"}') IS NOT NULL;
COMMIT;

-- The user's own: a column, an index, and a protected table of the product.
ALTER TABLE tenancy.users ADD COLUMN nickname text DEFAULT 'none';
UPDATE tenancy.users SET nickname = 'a' WHERE external_id = 'ada';
CREATE INDEX of_the_users_own ON tenancy.users (nickname);
CREATE TABLE public.essays (id bigint PRIMARY KEY, tenant_id text NOT NULL, body text);
INSERT INTO public.essays SELECT n, CASE WHEN n % 2 = 0 THEN 'acme' ELSE 'org_bolt' END, 'essay ' || n FROM generate_series(1, 10) AS n;
GRANT SELECT, INSERT ON public.essays TO app;
SELECT count(*) FROM tenancy.protect_table('public.essays');
