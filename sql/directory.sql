-- Directory: tenants, users, organizations and memberships. Seats and subscriptions: directory/seats.sql; what other
-- domains read: directory/resolve.sql.
--
-- Row locks are FOR NO KEY UPDATE: they exclude each other and leave the foreign keys' checks alone.
-- Lock order of the domain, always downwards: tenants → users → organizations → organization_subscriptions →
-- organization_memberships → organization_seats. Nothing here locks a pool, so a debit may read a seat under its pool's lock.

CREATE FUNCTION tenancy._find_user(user_id text, namespace text) RETURNS uuid
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    found_id uuid;
BEGIN
    PERFORM tenancy._require_id(_find_user.user_id, 'user_id');
    SELECT users.id INTO found_id
      FROM tenancy.users
     WHERE users.namespace = _find_user.namespace
       AND users.external_id = _find_user.user_id;
    IF found_id IS NULL THEN
        PERFORM tenancy._raise('PT404', 'user_not_found', 'User not found',
            'Register the user first: SELECT tenancy.register_user(user_id => …);',
            jsonb_build_object('user_id', _find_user.user_id));
    END IF;
    RETURN found_id;
END
$$;

COMMENT ON FUNCTION tenancy._find_user(text, text) IS
'The internal id of a registered user. Errors: PT404 user_not_found, 22023.';

CREATE FUNCTION tenancy._find_organization(org_id text, namespace text, OUT id uuid, OUT tenant_id text, OUT name text)
LANGUAGE plpgsql
STABLE
AS $$
BEGIN
    PERFORM tenancy._require_id(_find_organization.org_id, 'org_id');
    SELECT organizations.id, organizations.tenant_id, organizations.name
      INTO _find_organization.id, _find_organization.tenant_id, _find_organization.name
      FROM tenancy.organizations
     WHERE organizations.namespace = _find_organization.namespace
       AND organizations.external_id = _find_organization.org_id;
    IF _find_organization.id IS NULL THEN
        PERFORM tenancy._raise('PT404', 'organization_not_found', 'Organization not found',
            'Register the organization first: SELECT tenancy.register_organization(org_id => …, name => …);',
            jsonb_build_object('org_id', _find_organization.org_id));
    END IF;
END
$$;

COMMENT ON FUNCTION tenancy._find_organization(text, text) IS
'Internal id, tenant and name of a registered organization. Errors: PT404 organization_not_found, 22023.';

CREATE FUNCTION tenancy.register_tenant(tenant_id text, name text, namespace text DEFAULT '') RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    full_id text;
    registered uuid;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(register_tenant.tenant_id, 'tenant_id', minted => true);
    PERFORM tenancy._require_value(register_tenant.name, 'name');
    PERFORM tenancy._require_text(register_tenant.name, 'name', 255);
    full_id := tenancy._tenant_name(tenancy._require_namespace(register_tenant.namespace), register_tenant.tenant_id);

    INSERT INTO tenancy.tenants AS t (tenant_id, name)
    VALUES (full_id, register_tenant.name)
    ON CONFLICT ON CONSTRAINT tenants_pkey DO UPDATE
       SET name = EXCLUDED.name, updated_at = now()
     WHERE t.name <> EXCLUDED.name
    RETURNING t.id INTO registered;
    IF registered IS NULL THEN  -- a repeat with nothing new
        SELECT t.id INTO registered FROM tenancy.tenants AS t WHERE t.tenant_id = full_id;
    ELSE
        PERFORM tenancy._changed('tenants');
    END IF;
    RETURN registered;
END
$$;

COMMENT ON FUNCTION tenancy.register_tenant(text, text, text) IS
'Registers a tenant, or renames it, and returns its internal id. tenant_id: the id tokens and rows carry, at most 255 characters, without "::"; in a namespace the tenant is written namespace::tenant_id. A repeat returns the same id. Errors: 22023 invalid_argument, 55000 not installed.';

CREATE FUNCTION tenancy.set_tenant_status(tenant_id text, status text) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before text;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(set_tenant_status.tenant_id, 'tenant_id');
    PERFORM tenancy._require_one_of(set_tenant_status.status, 'status', ARRAY['active', 'suspended']);

    SELECT t.status INTO before FROM tenancy.tenants AS t
     WHERE t.tenant_id = set_tenant_status.tenant_id FOR NO KEY UPDATE;
    IF before IS NULL THEN
        PERFORM tenancy._raise('PT404', 'tenant_not_found', 'Tenant not found',
            'Register the tenant first: SELECT tenancy.register_tenant(tenant_id => …, name => …);',
            jsonb_build_object('tenant_id', set_tenant_status.tenant_id));
    END IF;
    IF before = set_tenant_status.status THEN
        RETURN false;
    END IF;
    UPDATE tenancy.tenants AS t
       SET status = set_tenant_status.status, updated_at = now()
     WHERE t.tenant_id = set_tenant_status.tenant_id;
    PERFORM tenancy._changed('tenants');
    RETURN true;
END
$$;

COMMENT ON FUNCTION tenancy.set_tenant_status(text, text) IS
'Suspends a tenant (status suspended: nobody is authenticated for it) or takes it up again (active). tenant_id as it is stored, with its namespace. Returns whether the status changed. Errors: PT404 tenant_not_found, 22023, 55000.';

CREATE FUNCTION tenancy.register_user(user_id text, email text DEFAULT NULL, namespace text DEFAULT '') RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    registered uuid;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(register_user.user_id, 'user_id', minted => true);
    PERFORM tenancy._require_text(register_user.email, 'email', 320);
    PERFORM tenancy._require_namespace(register_user.namespace);

    INSERT INTO tenancy.users AS u (namespace, external_id, email)
    VALUES (register_user.namespace, register_user.user_id, register_user.email)
    ON CONFLICT ON CONSTRAINT users_namespace_external_id_key DO UPDATE
       SET email = EXCLUDED.email, updated_at = now()
     WHERE EXCLUDED.email IS NOT NULL AND u.email IS DISTINCT FROM EXCLUDED.email
    RETURNING u.id INTO registered;
    IF registered IS NULL THEN  -- a repeat with nothing new
        SELECT u.id INTO registered FROM tenancy.users AS u
         WHERE u.namespace = register_user.namespace AND u.external_id = register_user.user_id;
    ELSE
        PERFORM tenancy._changed('users');
    END IF;
    RETURN registered;
END
$$;

COMMENT ON FUNCTION tenancy.register_user(text, text, text) IS
'Registers a user, or changes the e-mail address, and returns the internal id. user_id: the subject as it stands in tokens, at most 255 characters, without "::". email: at most 320 characters; NULL leaves what is there. A repeat returns the same id. Errors: 22023 invalid_argument, 55000.';

CREATE FUNCTION tenancy._own_tenant(namespace text, org_id text, name text) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    own_id text := tenancy._tenant_name(_own_tenant.namespace, _own_tenant.org_id);
    made text;
BEGIN
    -- Waits for a session that registers the same id at this moment; NULL then, or where it is registered already.
    INSERT INTO tenancy.tenants AS t (tenant_id, name)
    VALUES (own_id, _own_tenant.name)
    ON CONFLICT ON CONSTRAINT tenants_pkey DO NOTHING
    RETURNING t.tenant_id INTO made;
    RETURN made;
END
$$;

COMMENT ON FUNCTION tenancy._own_tenant(text, text, text) IS
'Makes the tenant that an organization registered without one gets: the same external id. NULL where a tenant of that id is there already.';

CREATE FUNCTION tenancy.register_organization(
    org_id text,
    name text,
    tenant_id text DEFAULT NULL,
    stripe_customer_id text DEFAULT NULL,
    namespace text DEFAULT ''
) RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known record;
    home text;
    registered uuid;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(register_organization.org_id, 'org_id', minted => true);
    PERFORM tenancy._require_value(register_organization.name, 'name');
    PERFORM tenancy._require_text(register_organization.name, 'name', 255);
    PERFORM tenancy._require_text(register_organization.stripe_customer_id, 'stripe_customer_id', 255);
    PERFORM tenancy._require_namespace(register_organization.namespace);
    IF register_organization.tenant_id IS NOT NULL THEN
        PERFORM tenancy._require_id(register_organization.tenant_id, 'tenant_id');
    END IF;

    -- Twice at most: the second round finds what another session registered while this one waited for it.
    FOR attempt IN 1..2 LOOP
        SELECT o.id, o.tenant_id INTO known FROM tenancy.organizations AS o
         WHERE o.namespace = register_organization.namespace
           AND o.external_id = register_organization.org_id
           FOR NO KEY UPDATE;
        IF FOUND THEN
            IF register_organization.tenant_id IS NOT NULL AND known.tenant_id <> register_organization.tenant_id THEN
                PERFORM tenancy._raise('PT409', 'tenant_fixed',
                    'The organization belongs to another tenant, and an organization''s tenant never changes',
                    'Leave tenant_id out to keep the tenant, or register another organization in the new one.',
                    jsonb_build_object('org_id', register_organization.org_id));
            END IF;
            UPDATE tenancy.organizations AS o
               SET name = register_organization.name,
                   stripe_customer_id = coalesce(register_organization.stripe_customer_id, o.stripe_customer_id),
                   updated_at = now()
             WHERE o.id = known.id
               AND (o.name <> register_organization.name
                    OR o.stripe_customer_id IS DISTINCT FROM
                       coalesce(register_organization.stripe_customer_id, o.stripe_customer_id));
            IF FOUND THEN
                PERFORM tenancy._changed('organizations');
            END IF;
            RETURN known.id;
        END IF;

        IF register_organization.tenant_id IS NULL THEN
            home := tenancy._own_tenant(register_organization.namespace, register_organization.org_id,
                                        register_organization.name);
            CONTINUE WHEN home IS NULL;
            PERFORM tenancy._changed('tenants');
        ELSE
            SELECT t.tenant_id INTO home FROM tenancy.tenants AS t
             WHERE t.tenant_id = register_organization.tenant_id FOR KEY SHARE;
            IF NOT FOUND THEN
                PERFORM tenancy._raise('PT404', 'tenant_not_found', 'Tenant not found',
                    'Register the tenant first: SELECT tenancy.register_tenant(tenant_id => …, name => …);',
                    jsonb_build_object('tenant_id', register_organization.tenant_id));
            END IF;
        END IF;

        INSERT INTO tenancy.organizations AS o (namespace, external_id, tenant_id, name, stripe_customer_id)
        VALUES (register_organization.namespace, register_organization.org_id, home,
                register_organization.name, register_organization.stripe_customer_id)
        ON CONFLICT ON CONSTRAINT organizations_namespace_external_id_key DO NOTHING
        RETURNING o.id INTO registered;
        IF FOUND THEN
            PERFORM tenancy._changed('organizations');
            RETURN registered;
        END IF;
    END LOOP;

    PERFORM tenancy._raise('PT403', 'tenant_taken',
        'A tenant with this organization''s id is registered already, and it is not this organization''s',
        'If the organization belongs to that tenant, say so: register_organization(org_id => …, name => …, tenant_id => …).',
        jsonb_build_object('org_id', register_organization.org_id));
END
$$;

COMMENT ON FUNCTION tenancy.register_organization(text, text, text, text, text) IS
'Registers an organization, or changes its name and stripe_customer_id (NULL leaves it), and returns the internal id. tenant_id: a registered tenant; NULL gives a new organization a tenant of its own with the same external id (namespace::org_id in a namespace). A repeat returns the same id. Errors: PT403 tenant_taken (a tenant of that id exists: name it explicitly), PT404 tenant_not_found, PT409 tenant_fixed (an organization never changes its tenant), 22023, 55000.';

CREATE FUNCTION tenancy.set_membership(user_id text, org_id text, org_role text, namespace text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ns text;
    member uuid;
    org record;
BEGIN
    PERFORM tenancy._require_installed();
    ns := tenancy._namespace(set_membership.namespace);
    PERFORM tenancy._require_value(set_membership.org_role, 'org_role');
    PERFORM tenancy._require_text(set_membership.org_role, 'org_role', 64);
    member := tenancy._find_user(set_membership.user_id, ns);
    org := tenancy._find_organization(set_membership.org_id, ns);

    INSERT INTO tenancy.organization_memberships AS m (tenant_id, organization_id, user_id, org_role)
    VALUES (org.tenant_id, org.id, member, set_membership.org_role)
    ON CONFLICT ON CONSTRAINT organization_memberships_pkey DO UPDATE
       SET org_role = EXCLUDED.org_role, updated_at = now()
     WHERE m.org_role <> EXCLUDED.org_role;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM tenancy._changed('organization_memberships');
    RETURN true;
END
$$;

COMMENT ON FUNCTION tenancy.set_membership(text, text, text, text) IS
'Makes a user a member of an organization, or changes the role. org_role: as it stands in tokens (org:admin), at most 64 characters. namespace: NULL means the identity''s, else the empty one. Returns whether anything changed. Errors: PT404 user_not_found, organization_not_found, 22023, 55000.';

CREATE FUNCTION tenancy.remove_membership(user_id text, org_id text, namespace text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ns text;
    member uuid;
    org record;
BEGIN
    PERFORM tenancy._require_installed();
    ns := tenancy._namespace(remove_membership.namespace);
    member := tenancy._find_user(remove_membership.user_id, ns);
    org := tenancy._find_organization(remove_membership.org_id, ns);

    -- The subscription before the membership: _revoke_open_seat takes its lock, and the lock order is one.
    PERFORM tenancy._lock_subscription(org.id);
    DELETE FROM tenancy.organization_memberships AS m
     WHERE m.organization_id = org.id AND m.user_id = member;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- Who is no member any more must not go on spending the organization's credits.
    PERFORM tenancy._revoke_open_seat(org.id, member, 'membership removed');
    PERFORM tenancy._changed('organization_memberships');
    RETURN true;
END
$$;

COMMENT ON FUNCTION tenancy.remove_membership(text, text, text) IS
'Ends a membership, and with it the member''s seat (reason "membership removed"). namespace: NULL means the identity''s, else the empty one. Returns whether there was a membership; without one nothing changes, seats included. Errors: PT404 user_not_found, organization_not_found, 22023, 55000.';
