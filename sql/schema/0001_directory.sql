-- 0001 directory: who belongs to what, with which seat.
-- These tables stay small (one row a tenant, user, organization, membership, subscription, seat), can become Citus
-- reference tables, and never point at a table that grows with use. No triggers: the functions keep updated_at.
-- A row's tenant_id repeats its organization's, held to it by a composite foreign key, so that a policy compares one
-- column with the identity and needs no sub-query.

CREATE TABLE tenancy.tenants (
    tenant_id text NOT NULL,
    id uuid NOT NULL DEFAULT tenancy.uuid_v7(),
    name text NOT NULL,
    status text NOT NULL DEFAULT 'active',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tenants_pkey PRIMARY KEY (tenant_id),
    CONSTRAINT tenants_id_key UNIQUE (id),
    CONSTRAINT tenants_tenant_id_check CHECK (tenant_id <> '' AND tenant_id NOT LIKE 'user::%'),
    CONSTRAINT tenants_status_check CHECK (status IN ('active', 'suspended'))
);

CREATE TABLE tenancy.users (
    id uuid NOT NULL DEFAULT tenancy.uuid_v7(),
    namespace text NOT NULL DEFAULT '',
    external_id text NOT NULL,
    email text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_namespace_external_id_key UNIQUE (namespace, external_id),
    CONSTRAINT users_external_id_check CHECK (external_id <> '' AND strpos(external_id, '::') = 0)
);

CREATE TABLE tenancy.organizations (
    id uuid NOT NULL DEFAULT tenancy.uuid_v7(),
    namespace text NOT NULL DEFAULT '',
    external_id text NOT NULL,
    tenant_id text NOT NULL,
    name text NOT NULL,
    stripe_customer_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT organizations_pkey PRIMARY KEY (id),
    CONSTRAINT organizations_namespace_external_id_key UNIQUE (namespace, external_id),
    CONSTRAINT organizations_tenant_id_id_key UNIQUE (tenant_id, id),
    CONSTRAINT organizations_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenancy.tenants (tenant_id),
    CONSTRAINT organizations_external_id_check CHECK (external_id <> '' AND strpos(external_id, '::') = 0)
);

CREATE TABLE tenancy.organization_memberships (
    tenant_id text NOT NULL,
    organization_id uuid NOT NULL,
    user_id uuid NOT NULL,
    org_role text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT organization_memberships_pkey PRIMARY KEY (organization_id, user_id),
    CONSTRAINT organization_memberships_organization_fkey
        FOREIGN KEY (tenant_id, organization_id) REFERENCES tenancy.organizations (tenant_id, id),
    CONSTRAINT organization_memberships_user_fkey FOREIGN KEY (user_id) REFERENCES tenancy.users (id),
    CONSTRAINT organization_memberships_org_role_check CHECK (org_role <> '')
);
CREATE INDEX organization_memberships_tenant_idx ON tenancy.organization_memberships (tenant_id, organization_id);
CREATE INDEX organization_memberships_user_idx ON tenancy.organization_memberships (user_id);

CREATE TABLE tenancy.organization_subscriptions (
    id uuid NOT NULL DEFAULT tenancy.uuid_v7(),
    tenant_id text NOT NULL,
    organization_id uuid NOT NULL,
    plan_type text NOT NULL,
    billing_frequency text NOT NULL DEFAULT 'monthly',
    status text NOT NULL,
    seats_total integer NOT NULL,
    seats_used integer NOT NULL DEFAULT 0,
    stripe_subscription_id text,
    current_period_start timestamptz,
    current_period_end timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT organization_subscriptions_pkey PRIMARY KEY (id),
    CONSTRAINT organization_subscriptions_organization_key UNIQUE (organization_id),
    CONSTRAINT organization_subscriptions_organization_id_key UNIQUE (organization_id, id),
    CONSTRAINT organization_subscriptions_organization_fkey
        FOREIGN KEY (tenant_id, organization_id) REFERENCES tenancy.organizations (tenant_id, id),
    CONSTRAINT organization_subscriptions_plan_type_check CHECK (plan_type <> ''),
    CONSTRAINT organization_subscriptions_billing_frequency_check CHECK (billing_frequency IN ('monthly', 'yearly')),
    CONSTRAINT organization_subscriptions_status_check CHECK (status IN
        ('trialing', 'active', 'past_due', 'canceled', 'unpaid', 'incomplete', 'incomplete_expired', 'paused')),
    CONSTRAINT organization_subscriptions_seats_check CHECK (seats_used >= 0 AND seats_used <= seats_total),
    CONSTRAINT organization_subscriptions_period_check CHECK (current_period_end > current_period_start)
);
CREATE INDEX organization_subscriptions_tenant_idx ON tenancy.organization_subscriptions (tenant_id, organization_id);

CREATE TABLE tenancy.organization_seats (
    id uuid NOT NULL DEFAULT tenancy.uuid_v7(),
    tenant_id text NOT NULL,
    organization_id uuid NOT NULL,
    organization_subscription_id uuid NOT NULL,
    user_id uuid,
    user_email text,
    user_name text,
    role text NOT NULL DEFAULT 'member',
    status text NOT NULL DEFAULT 'pending',
    assigned_at timestamptz NOT NULL DEFAULT now(),
    assigned_by text NOT NULL DEFAULT session_user,
    expires_at timestamptz,
    revoked_at timestamptz,
    revoked_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT organization_seats_pkey PRIMARY KEY (id),
    CONSTRAINT organization_seats_organization_fkey
        FOREIGN KEY (tenant_id, organization_id) REFERENCES tenancy.organizations (tenant_id, id),
    CONSTRAINT organization_seats_subscription_fkey
        FOREIGN KEY (organization_id, organization_subscription_id)
        REFERENCES tenancy.organization_subscriptions (organization_id, id),
    CONSTRAINT organization_seats_user_fkey FOREIGN KEY (user_id) REFERENCES tenancy.users (id),
    CONSTRAINT organization_seats_holder_check CHECK (user_id IS NOT NULL OR (user_email IS NOT NULL AND status <> 'active')),
    CONSTRAINT organization_seats_role_check CHECK (role IN ('admin', 'member', 'billing_manager')),
    CONSTRAINT organization_seats_status_check CHECK (status IN ('pending', 'active', 'revoked', 'expired')),
    CONSTRAINT organization_seats_revoked_check CHECK ((status = 'revoked') = (revoked_at IS NOT NULL))
);
-- One open seat a person and organization, by user and by e-mail address.
CREATE UNIQUE INDEX organization_seats_open_user_key ON tenancy.organization_seats (organization_id, user_id)
    WHERE status IN ('pending', 'active');
CREATE UNIQUE INDEX organization_seats_open_email_key ON tenancy.organization_seats (organization_id, user_email)
    WHERE status IN ('pending', 'active');
CREATE INDEX organization_seats_tenant_idx ON tenancy.organization_seats (tenant_id, organization_id);
CREATE INDEX organization_seats_user_idx ON tenancy.organization_seats (user_id);

-- Row-level security. Enabled and forced on each; the owner's functions reach the rows through owner_rows, everybody
-- else through what the sealed identity says. The policies name no role: without a grant they open nothing.
-- One comparison with a bare accessor each: no sub-query, no OR, no function of a column.

ALTER TABLE tenancy.tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.tenants TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.tenants FOR SELECT USING (tenant_id = tenancy.tenant_id());

ALTER TABLE tenancy.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.users FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.users TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY own_row ON tenancy.users FOR SELECT
    USING (namespace = tenancy.identity_namespace() AND external_id = tenancy.user_id());

ALTER TABLE tenancy.organizations ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.organizations FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.organizations TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.organizations FOR SELECT USING (tenant_id = tenancy.tenant_id());

ALTER TABLE tenancy.organization_memberships ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.organization_memberships FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.organization_memberships TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.organization_memberships FOR SELECT USING (tenant_id = tenancy.tenant_id());

ALTER TABLE tenancy.organization_subscriptions ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.organization_subscriptions FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.organization_subscriptions TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.organization_subscriptions FOR SELECT USING (tenant_id = tenancy.tenant_id());

ALTER TABLE tenancy.organization_seats ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.organization_seats FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_rows ON tenancy.organization_seats TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenant_rows ON tenancy.organization_seats FOR SELECT USING (tenant_id = tenancy.tenant_id());

COMMENT ON TABLE tenancy.tenants IS
'The isolation boundaries. One row a tenant; changed by register_tenant, register_organization and set_tenant_status.';
COMMENT ON COLUMN tenancy.tenants.tenant_id IS
'The tenant''s id as it stands in tenant columns and tokens; unique over the whole database. In a non-empty namespace it is namespace::id. Personal tenants (user::id) have no row.';
COMMENT ON COLUMN tenancy.tenants.id IS 'Internal id of the row (UUID version 7), as register_tenant returns it.';
COMMENT ON COLUMN tenancy.tenants.name IS 'Name for people.';
COMMENT ON COLUMN tenancy.tenants.status IS 'active, or suspended: nobody is authenticated for a suspended tenant.';
COMMENT ON COLUMN tenancy.tenants.created_at IS 'When the row was made.';
COMMENT ON COLUMN tenancy.tenants.updated_at IS 'When the row last changed.';

COMMENT ON TABLE tenancy.users IS 'The people, each in the namespace of the issuers that know them; changed by register_user.';
COMMENT ON COLUMN tenancy.users.id IS 'Internal id (UUID version 7); also the id of the user''s personal credit pool.';
COMMENT ON COLUMN tenancy.users.namespace IS 'Namespace of the issuer; the empty string is the default one.';
COMMENT ON COLUMN tenancy.users.external_id IS 'The subject (claim sub) as it stands in tokens and events.';
COMMENT ON COLUMN tenancy.users.email IS 'E-mail address, if known; not verified here.';
COMMENT ON COLUMN tenancy.users.created_at IS 'When the row was made.';
COMMENT ON COLUMN tenancy.users.updated_at IS 'When the row last changed.';

COMMENT ON TABLE tenancy.organizations IS
'The billing boundaries, each in exactly one tenant; changed by register_organization.';
COMMENT ON COLUMN tenancy.organizations.id IS 'Internal id (UUID version 7); also the id of the organization''s credit pool.';
COMMENT ON COLUMN tenancy.organizations.namespace IS 'Namespace of the issuer; the empty string is the default one.';
COMMENT ON COLUMN tenancy.organizations.external_id IS 'The organization''s id as it stands in tokens and events.';
COMMENT ON COLUMN tenancy.organizations.tenant_id IS 'The tenant it belongs to; never changes.';
COMMENT ON COLUMN tenancy.organizations.name IS 'Name for people; stands in ledger rows and PT402 errors.';
COMMENT ON COLUMN tenancy.organizations.stripe_customer_id IS 'The payment provider''s customer id, if any.';
COMMENT ON COLUMN tenancy.organizations.created_at IS 'When the row was made.';
COMMENT ON COLUMN tenancy.organizations.updated_at IS 'When the row last changed.';

COMMENT ON TABLE tenancy.organization_memberships IS
'Who is a member of which organization, with which role; changed by set_membership and remove_membership. A membership is no seat.';
COMMENT ON COLUMN tenancy.organization_memberships.tenant_id IS 'The organization''s tenant.';
COMMENT ON COLUMN tenancy.organization_memberships.organization_id IS 'The organization (organizations.id).';
COMMENT ON COLUMN tenancy.organization_memberships.user_id IS 'The member (users.id).';
COMMENT ON COLUMN tenancy.organization_memberships.org_role IS 'The role as it stands in tokens, such as org:admin or org:member.';
COMMENT ON COLUMN tenancy.organization_memberships.created_at IS 'When the row was made.';
COMMENT ON COLUMN tenancy.organization_memberships.updated_at IS 'When the row last changed.';

COMMENT ON TABLE tenancy.organization_subscriptions IS
'What an organization pays for: one row an organization; changed by set_subscription. Its row lock guards the organization''s seats.';
COMMENT ON COLUMN tenancy.organization_subscriptions.id IS 'Internal id (UUID version 7); organization_subscription_id in tokens and ledger rows.';
COMMENT ON COLUMN tenancy.organization_subscriptions.tenant_id IS 'The organization''s tenant.';
COMMENT ON COLUMN tenancy.organization_subscriptions.organization_id IS 'The organization (organizations.id).';
COMMENT ON COLUMN tenancy.organization_subscriptions.plan_type IS 'Name of the plan, such as teams or enterprise.';
COMMENT ON COLUMN tenancy.organization_subscriptions.billing_frequency IS 'monthly or yearly.';
COMMENT ON COLUMN tenancy.organization_subscriptions.status IS
'The payment provider''s state; seats are given and credits spent while it is active or trialing.';
COMMENT ON COLUMN tenancy.organization_subscriptions.seats_total IS 'Seats paid for.';
COMMENT ON COLUMN tenancy.organization_subscriptions.seats_used IS 'Seats pending or active; kept by the functions under this row''s lock, at most seats_total.';
COMMENT ON COLUMN tenancy.organization_subscriptions.stripe_subscription_id IS 'The payment provider''s subscription id, if any.';
COMMENT ON COLUMN tenancy.organization_subscriptions.current_period_start IS 'Begin of the period paid for, if known.';
COMMENT ON COLUMN tenancy.organization_subscriptions.current_period_end IS 'End of the period paid for, if known; later than its begin.';
COMMENT ON COLUMN tenancy.organization_subscriptions.created_at IS 'When the row was made.';
COMMENT ON COLUMN tenancy.organization_subscriptions.updated_at IS 'When the row last changed.';

COMMENT ON TABLE tenancy.organization_seats IS
'Seats given to people: the gate to an organization''s credits. Rows are kept after a seat has ended; changed by assign_seat and revoke_seat.';
COMMENT ON COLUMN tenancy.organization_seats.id IS 'Internal id (UUID version 7); seat_id in tokens and ledger rows.';
COMMENT ON COLUMN tenancy.organization_seats.tenant_id IS 'The organization''s tenant.';
COMMENT ON COLUMN tenancy.organization_seats.organization_id IS 'The organization (organizations.id).';
COMMENT ON COLUMN tenancy.organization_seats.organization_subscription_id IS 'The subscription that pays for it (organization_subscriptions.id).';
COMMENT ON COLUMN tenancy.organization_seats.user_id IS 'Who holds it (users.id); NULL while it waits for a person known by e-mail address only.';
COMMENT ON COLUMN tenancy.organization_seats.user_email IS 'The holder''s e-mail address when the seat was given, if known.';
COMMENT ON COLUMN tenancy.organization_seats.user_name IS 'The holder''s name, if known.';
COMMENT ON COLUMN tenancy.organization_seats.role IS 'admin, member or billing_manager; seat_role in tokens and ledger rows.';
COMMENT ON COLUMN tenancy.organization_seats.status IS 'pending, active, revoked or expired. An active seat past expires_at is no seat.';
COMMENT ON COLUMN tenancy.organization_seats.assigned_at IS 'When it was given.';
COMMENT ON COLUMN tenancy.organization_seats.assigned_by IS 'Who gave it: the authenticated user, else the login (session_user).';
COMMENT ON COLUMN tenancy.organization_seats.expires_at IS 'When it ends by itself; NULL: never.';
COMMENT ON COLUMN tenancy.organization_seats.revoked_at IS 'When it was revoked; set exactly while status is revoked.';
COMMENT ON COLUMN tenancy.organization_seats.revoked_reason IS 'Why it was revoked, if said.';
COMMENT ON COLUMN tenancy.organization_seats.created_at IS 'When the row was made.';
COMMENT ON COLUMN tenancy.organization_seats.updated_at IS 'When the row last changed.';

COMMENT ON POLICY owner_rows ON tenancy.tenants IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.users IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.organizations IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.organization_memberships IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.organization_subscriptions IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY owner_rows ON tenancy.organization_seats IS 'Row-level security is forced: the owner''s functions reach the rows through this.';
COMMENT ON POLICY tenant_rows ON tenancy.tenants IS 'The identity''s own tenant.';
COMMENT ON POLICY own_row ON tenancy.users IS 'The identity''s own user.';
COMMENT ON POLICY tenant_rows ON tenancy.organizations IS 'The organizations of the identity''s tenant.';
COMMENT ON POLICY tenant_rows ON tenancy.organization_memberships IS 'The memberships of the identity''s tenant.';
COMMENT ON POLICY tenant_rows ON tenancy.organization_subscriptions IS 'The subscriptions of the identity''s tenant.';
COMMENT ON POLICY tenant_rows ON tenancy.organization_seats IS 'The seats of the identity''s tenant.';
