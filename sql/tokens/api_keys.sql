-- API keys of organizations (contract G): made, rotated, revoked and listed here; authenticate_api_key is in
-- src/tokens/api_keys.rs, the roles' permissions in src/identity/roles.rs.

CREATE FUNCTION tenancy._holds_now(permission text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A role in a token issued here is what the directory said then, and outlasts a demotion by a day; a key, for ever.
    RETURN tenancy.has_permission(_holds_now.permission)
       AND (NOT tenancy._issued_here()
            OR coalesce(_holds_now.permission = ANY (tenancy._role_permissions(tenancy._directory_role())), false));
END
$$;
COMMENT ON FUNCTION tenancy._holds_now(text) IS
'Whether the identity holds a permission of a role: as has_permission says, and where its token was issued here also by its role in the directory, as committed now.';

CREATE FUNCTION tenancy._may_give_role(role text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Nobody gives away, by making or rotating a key, what they do not hold. Only an owner holds everything.
    RETURN CASE _may_give_role.role
        WHEN 'owner' THEN tenancy.org_role() IN ('owner', 'org:owner')
                      AND (NOT tenancy._issued_here() OR tenancy._directory_role() IN ('owner', 'org:owner'))
        ELSE NOT EXISTS (SELECT FROM unnest(tenancy._role_permissions(_may_give_role.role)) AS permission
                          WHERE NOT tenancy._holds_now(permission))
    END IS TRUE;
END
$$;
COMMENT ON FUNCTION tenancy._may_give_role(text) IS
'Whether the identity holds everything that a role permits, as _holds_now says.';

CREATE FUNCTION tenancy._check_key_manager(org_id text, namespace text, role text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF tenancy._caller_has('service', 'operator') THEN
        RETURN;
    END IF;
    IF tenancy.user_id() IS NULL THEN
        PERFORM tenancy._raise('PT401', 'not_authenticated', 'Not authenticated',
            'Begin a transaction and call tenancy.authenticate(token) first.');
    ELSIF (tenancy.org_id(), tenancy.identity_namespace()) IS DISTINCT FROM (_check_key_manager.org_id, _check_key_manager.namespace) THEN
        PERFORM tenancy._raise('PT403', 'another_organization', 'API keys are managed within the identity''s own organization',
            'Authenticate for that organization.');
    END IF;
    PERFORM tenancy._require_good_identity();
    IF NOT tenancy._holds_now('manage_keys') THEN
        PERFORM tenancy._raise('PT403', 'permission_denied', 'Permission denied: requires manage_keys',
            'Ask an admin or owner of the organization.', '{"permission": "manage_keys"}');
    ELSIF _check_key_manager.role IS NOT NULL AND NOT tenancy._may_give_role(_check_key_manager.role) THEN
        PERFORM tenancy._raise('PT403', 'permission_denied', 'Permission denied: the role permits more than the identity does',
            'Ask somebody with that role.', jsonb_build_object('role', _check_key_manager.role));
    END IF;
END
$$;
COMMENT ON FUNCTION tenancy._check_key_manager(text, text, text) IS
'May the caller manage API keys of this organization, up to this role? Service and operator access: of any; application: the identity''s own organization, with permission manage_keys, up to what the identity holds itself (by a token issued here: no more than its role in the directory has now), while its token or key is good. Errors: PT401, PT403 as authenticate, another_organization, permission_denied.';

CREATE FUNCTION tenancy._require_lasting_key() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF tenancy._key_lapses() AND NOT tenancy._caller_has('service', 'operator') THEN
        PERFORM tenancy._raise('PT403', 'lapsing_key', 'A key that was rotated makes and rotates no keys',
            'Authenticate with the key that took its place.');
    END IF;
END
$$;
COMMENT ON FUNCTION tenancy._require_lasting_key() IS
'Refuses an identity by an API key in its grace, by what is committed now: it would outlive itself in the keys it makes; service and operator access is not refused. Error: PT403 lapsing_key.';

CREATE FUNCTION tenancy.create_api_key(
    org_id text,
    user_id text DEFAULT NULL,
    role text DEFAULT 'viewer',
    name text DEFAULT NULL,
    OUT api_key text,
    OUT key_id uuid
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ns text;
    org record;
    made record;
    is_member boolean;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_one_of(create_api_key.role, 'role', ARRAY['viewer', 'operator', 'admin', 'owner']);
    PERFORM tenancy._require_text(create_api_key.name, 'name', 255);
    IF create_api_key.user_id IS NOT NULL THEN
        PERFORM tenancy._require_id(create_api_key.user_id, 'user_id', minted => true);
    END IF;
    ns := tenancy._namespace();
    PERFORM tenancy._require_id(create_api_key.org_id, 'org_id');
    PERFORM tenancy._check_key_manager(create_api_key.org_id, ns, create_api_key.role);
    PERFORM tenancy._require_lasting_key();
    PERFORM tenancy._require_sign_in('service', 'operator');
    IF create_api_key.user_id <> tenancy.user_id() AND NOT tenancy._caller_has('service', 'operator') THEN
        PERFORM tenancy._raise('PT403', 'another_user', 'A key acts as itself or as the authenticated user',
            'Leave user_id out, or let a role with service access make the key.');
    END IF;
    org := tenancy._find_organization(create_api_key.org_id, ns);
    SELECT d.org_role IS NOT NULL OR d.seat_id IS NOT NULL INTO is_member
      FROM tenancy._resolve_directory(ns, create_api_key.user_id, create_api_key.org_id, NULL) AS d;
    -- Membership that a provider's claims alone show ends without the directory: a key would not end with it.
    IF create_api_key.user_id IS NOT NULL AND NOT is_member AND NOT tenancy._caller_has('service', 'operator') THEN
        PERFORM tenancy._raise('PT403', 'not_a_member', 'A key for a user needs a membership in the directory, with which it ends',
            'Register it: SELECT tenancy.set_membership(…); or leave user_id out.');
    END IF;

    SELECT s.secret, s.shown INTO made FROM tenancy._new_secret('api_key') AS s;
    create_api_key.api_key := made.secret;
    create_api_key.key_id := tenancy.uuid_v7();
    INSERT INTO tenancy.api_keys
        (id, key_hash, prefix, tenant_id, namespace, organization_id, org_id, user_id, for_member, role, name, created_by)
    VALUES
        (create_api_key.key_id, tenancy._token_hash(made.secret), made.shown, org.tenant_id, ns, org.id,
         create_api_key.org_id, create_api_key.user_id, is_member,
         create_api_key.role, create_api_key.name, coalesce(tenancy.user_id(), session_user));
    PERFORM tenancy._audit_token(org.tenant_id, 'generated', 'api_key', create_api_key.key_id, ns,
        create_api_key.user_id, create_api_key.org_id, NULL);
END
$$;
COMMENT ON FUNCTION tenancy.create_api_key(text, text, text, text) IS
'Makes an API key of an organization: pgt_, 32 random bytes as base64url, a checksum. Only its SHA-256 is kept; show it once. user_id: whom it acts as; NULL: as itself, by key_id. A key made for a member of the organization ends with the membership. role: viewer (read_config), operator (and manage_modules), admin (and write_config, manage_keys, read_audit) or owner (everything). A role with application access needs an identity of that organization with permission manage_keys and gives no more than it holds (by a token issued here: than its role in the directory has now), and not by an extension token or what one has issued; its token or key is judged again, as at authenticate, and a user it names must be a member in the directory. Errors: PT401, PT403 permission_denied, another_organization, another_user, lapsing_key, extension_token_identity, not_a_member, PT404 organization_not_found, 22023, 55000.';

CREATE FUNCTION tenancy._find_api_key(key_id uuid, OUT tenant_id text, OUT namespace text, OUT org_id text, OUT user_id text,
    OUT role text, OUT name text, OUT status text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_value(_find_api_key.key_id, 'key_id');
    SELECT k.tenant_id, k.namespace, k.org_id, k.user_id, k.role, k.name, k.status
      INTO _find_api_key.tenant_id, _find_api_key.namespace, _find_api_key.org_id, _find_api_key.user_id,
           _find_api_key.role, _find_api_key.name, _find_api_key.status
      FROM tenancy.api_keys AS k
     WHERE k.id = _find_api_key.key_id
       FOR UPDATE;
    -- Another organization's key is answered as one that does not exist.
    IF NOT FOUND OR NOT tenancy._caller_has('service', 'operator')
        AND (tenancy.org_id(), tenancy.identity_namespace()) IS DISTINCT FROM (_find_api_key.org_id, _find_api_key.namespace)
    THEN
        PERFORM tenancy._raise('PT404', 'api_key_not_found', 'API key not found',
            'SELECT * FROM tenancy.list_api_keys(org_id) shows the keys of an organization.');
    END IF;
    PERFORM tenancy._check_key_manager(_find_api_key.org_id, _find_api_key.namespace, _find_api_key.role);
END
$$;
COMMENT ON FUNCTION tenancy._find_api_key(uuid) IS
'A key that the caller may manage, its row locked. Errors: PT404 api_key_not_found (also for another organization''s), PT401, PT403 permission_denied, 22023.';

CREATE FUNCTION tenancy.rotate_api_key(
    key_id uuid,
    grace interval DEFAULT '7 days',
    OUT api_key text,
    OUT new_key_id uuid,
    OUT old_valid_until timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old record;
    made record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(rotate_api_key.grace, 'grace');
    IF rotate_api_key.grace < interval '0' OR rotate_api_key.grace > interval '90 days' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'grace must be between 0 and 90 days', 'The usual is 7 days.',
            '{"parameter": "grace"}');
    END IF;
    old := tenancy._find_api_key(rotate_api_key.key_id);
    PERFORM tenancy._require_lasting_key();
    PERFORM tenancy._require_sign_in('service', 'operator');
    IF old.status <> 'active' THEN
        PERFORM tenancy._raise('PT422', 'not_active', 'Only an active key can be rotated',
            'Make a new one: SELECT * FROM tenancy.create_api_key(…);', jsonb_build_object('status', old.status));
    ELSIF old.user_id <> tenancy.user_id() AND NOT tenancy._caller_has('service', 'operator') THEN
        PERFORM tenancy._raise('PT403', 'another_user', 'A key that acts as a user is rotated by that user only',
            'Let the user or a role with service access rotate it, or revoke it.');
    ELSIF tenancy._is_revoked(NULL, NULL, old.namespace, old.user_id,
                              (SELECT k.created_at FROM tenancy.api_keys AS k WHERE k.id = rotate_api_key.key_id)) THEN
        -- The new key would be younger than the revocation, and good.
        PERFORM tenancy._raise('PT422', 'not_active', 'The key''s user was revoked since it was made',
            'Make a new one: SELECT * FROM tenancy.create_api_key(…);', '{"status": "user_revoked"}');
    END IF;

    SELECT s.secret, s.shown INTO made FROM tenancy._new_secret('api_key') AS s;
    rotate_api_key.api_key := made.secret;
    rotate_api_key.new_key_id := tenancy.uuid_v7();
    rotate_api_key.old_valid_until := now() + rotate_api_key.grace;
    INSERT INTO tenancy.api_keys
        (id, key_hash, prefix, tenant_id, namespace, organization_id, org_id, user_id, for_member, role, name, created_by)
    SELECT rotate_api_key.new_key_id, tenancy._token_hash(made.secret), made.shown, k.tenant_id, k.namespace,
           k.organization_id, k.org_id, k.user_id, k.for_member, k.role, k.name, coalesce(tenancy.user_id(), session_user)
      FROM tenancy.api_keys AS k
     WHERE k.id = rotate_api_key.key_id;
    UPDATE tenancy.api_keys AS k
       SET status = 'rotation_pending', valid_until = rotate_api_key.old_valid_until,
           replaced_by = rotate_api_key.new_key_id, updated_at = now()
     WHERE k.id = rotate_api_key.key_id;
    PERFORM tenancy._audit_token(old.tenant_id, 'refreshed', 'api_key', rotate_api_key.key_id, old.namespace, old.user_id,
        old.org_id, NULL);
END
$$;
COMMENT ON FUNCTION tenancy.rotate_api_key(uuid, interval) IS
'Makes a new key with the same rights; the old one authenticates until old_valid_until (grace, 7 days unless told otherwise) and not a moment longer. A role without service or operator access rotates keys without a user and its own user''s only, and none by an extension token or what one has issued. Errors: PT422 not_active (also where the key''s user was revoked since it was made), PT404 api_key_not_found, PT401, PT403 another_user, lapsing_key, extension_token_identity, permission_denied, 22023, 55000.';

CREATE FUNCTION tenancy.revoke_api_key(key_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old record;
BEGIN
    PERFORM tenancy._require_installed();
    old := tenancy._find_api_key(revoke_api_key.key_id);
    UPDATE tenancy.api_keys AS k
       SET status = 'revoked', updated_at = now()
     WHERE k.id = revoke_api_key.key_id AND k.status <> 'revoked';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM tenancy._audit_token(old.tenant_id, 'revoked', 'api_key', revoke_api_key.key_id, old.namespace, old.user_id,
        old.org_id, 'revoked');
    RETURN true;
END
$$;
COMMENT ON FUNCTION tenancy.revoke_api_key(uuid) IS
'Revokes an API key from this commit on; false where it was revoked before. Errors: PT404 api_key_not_found (also for another organization''s), PT401, PT403 permission_denied, 22023, 55000.';

CREATE FUNCTION tenancy.list_api_keys(org_id text)
RETURNS TABLE (key_id uuid, prefix text, name text, role text, user_id text, status text, valid_until timestamptz,
               last_used_at timestamptz, created_at timestamptz, created_by text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ns text;
BEGIN
    PERFORM tenancy._require_installed();
    ns := tenancy._namespace();
    PERFORM tenancy._require_id(list_api_keys.org_id, 'org_id');
    PERFORM tenancy._check_key_manager(list_api_keys.org_id, ns, NULL);
    RETURN QUERY
        SELECT k.id, k.prefix, k.name, k.role, k.user_id, k.status, k.valid_until, k.last_used_at, k.created_at, k.created_by
          FROM tenancy.api_keys AS k
         WHERE k.organization_id = (tenancy._find_organization(list_api_keys.org_id, ns)).id
           AND k.status <> 'revoked' AND (k.valid_until IS NULL OR k.valid_until > now())
         ORDER BY k.id;
END
$$;
COMMENT ON FUNCTION tenancy.list_api_keys(text) IS
'The API keys of an organization that are good, by the first characters they begin with; revoked and lapsed ones are not shown. Errors: PT401, PT403 permission_denied, another_organization, PT404 organization_not_found, 22023, 55000.';

CREATE FUNCTION tenancy._note_api_key_use(key_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT tenancy._may_note_use() THEN
        RETURN false;
    END IF;
    UPDATE tenancy.api_keys AS k
       SET last_used_at = now()
     WHERE k.id = (SELECT own.id FROM tenancy.api_keys AS own
                    WHERE own.id = _note_api_key_use.key_id
                      AND (own.last_used_at IS NULL OR own.last_used_at < now() - interval '1 minute')
                      FOR NO KEY UPDATE SKIP LOCKED);
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION tenancy._note_api_key_use(uuid) IS
'Notes last_used_at, at most once a minute and without waiting for another session. Not in read-only transactions, on a standby, or above READ COMMITTED.';
