-- Organizations up to number :size, each with a tenant, a member, a subscription and a seat; no pools.
\set ON_ERROR_STOP on
INSERT INTO tenancy.tenants (tenant_id, name) SELECT 'org_' || i, 'Org ' || i FROM generate_series(64, :size - 1) AS i;
INSERT INTO tenancy.users (external_id) SELECT 'user_' || i FROM generate_series(64, :size - 1) AS i;
INSERT INTO tenancy.organizations (external_id, tenant_id, name)
SELECT t.tenant_id, t.tenant_id, t.name FROM tenancy.tenants AS t
 WHERE NOT EXISTS (SELECT FROM tenancy.organizations AS o WHERE o.tenant_id = t.tenant_id);
INSERT INTO tenancy.organization_subscriptions (tenant_id, organization_id, plan_type, status, seats_total, seats_used)
SELECT o.tenant_id, o.id, 'teams', 'active', 5, 1 FROM tenancy.organizations AS o
 WHERE NOT EXISTS (SELECT FROM tenancy.organization_subscriptions AS sub WHERE sub.organization_id = o.id);
WITH member AS (
    SELECT o.tenant_id, o.id AS organization_id, u.id AS user_id, sub.id AS subscription_id
      FROM tenancy.organizations AS o
      JOIN tenancy.users AS u ON u.external_id = replace(o.external_id, 'org_', 'user_')
      JOIN tenancy.organization_subscriptions AS sub ON sub.organization_id = o.id
     WHERE NOT EXISTS (SELECT FROM tenancy.organization_seats AS s WHERE s.organization_id = o.id)),
seat AS (
    INSERT INTO tenancy.organization_seats
        (tenant_id, organization_id, organization_subscription_id, user_id, status)
    SELECT m.tenant_id, m.organization_id, m.subscription_id, m.user_id, 'active' FROM member AS m)
INSERT INTO tenancy.organization_memberships (tenant_id, organization_id, user_id, org_role)
SELECT m.tenant_id, m.organization_id, m.user_id, 'member' FROM member AS m;
VACUUM ANALYZE;
CHECKPOINT;
