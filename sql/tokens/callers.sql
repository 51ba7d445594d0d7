-- Who calls: the service role acts for users, an application for the user it is authenticated as.

CREATE FUNCTION tenancy._caller_has(VARIADIC accesses text[]) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- SECURITY DEFINER hides the caller in current_user; SET ROLE shows in the setting, a login in session_user.
    -- Somebody's own SECURITY DEFINER wrapper counts as whoever called it: the narrower of the two.
    caller name := coalesce(nullif(nullif(current_setting('role', true), 'none'), ''), session_user);
BEGIN
    -- current_user is the extension's owner here: this function is called by SECURITY DEFINER functions only.
    RETURN pg_has_role(caller, current_user, 'USAGE')
        OR EXISTS (
            SELECT FROM tenancy.access_grants AS g
              JOIN pg_roles AS r ON r.rolname = g.role_name
             WHERE g.access = ANY (_caller_has.accesses) AND pg_has_role(caller, r.oid, 'USAGE')
               AND tenancy._holds_access(r.oid, g.access));
END
$$;
COMMENT ON FUNCTION tenancy._caller_has(text[]) IS
'Whether the role that called the extension has one of these accesses by grant_access, itself or by membership; the extension''s owner and superusers have every one.';

CREATE FUNCTION tenancy._check_token_caller(user_id text, namespace text, claims jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_own boolean := tenancy.user_id() = _check_token_caller.user_id
                      AND tenancy.identity_namespace() = _check_token_caller.namespace;
BEGIN
    IF NOT tenancy._caller_has('service') THEN
        IF tenancy.user_id() IS NULL THEN
            PERFORM tenancy._raise('PT401', 'not_authenticated', 'Not authenticated',
                'Begin a transaction and call tenancy.authenticate(token) first.');
        ELSIF (SELECT p.source FROM tenancy._provenance() AS p) = 'api_key' THEN
            -- A key is for one organization, with one role, until it is revoked; a token of its user would be for all.
            PERFORM tenancy._raise('PT403', 'api_key_identity', 'An API key issues, lists and revokes no tokens of its user',
                'Let the user sign in, or let a role with service access do it.');
        ELSIF is_own IS NOT TRUE THEN
            PERFORM tenancy._raise('PT403', 'another_user', 'A token is issued to the authenticated user only',
                'Pass the identity''s own user_id, or let a role with service access issue for others.');
        ELSIF _check_token_caller.claims IS NOT NULL THEN
            PERFORM tenancy._raise('42501', 'claims_not_allowed', 'Claims are taken from a role with service access only',
                'Leave claims out: the claims of the authenticated token count.');
        END IF;
        PERFORM tenancy._require_good_identity();
    END IF;
    RETURN coalesce(_check_token_caller.claims,
                    tenancy._own_claims(_check_token_caller.namespace, _check_token_caller.user_id));
END
$$;
COMMENT ON FUNCTION tenancy._check_token_caller(text, text, jsonb) IS
'May the caller have a token issued to this user? Service access: to anybody; application: to the identity''s own user, unless an API key is all it showed, or its token is no longer good. Returns the claims that count: the service role''s, else those of the user''s own sealed token where a provider issued it, else NULL. Errors: PT401 not_authenticated, PT401 and PT403 as authenticate, PT403 api_key_identity, another_user, 42501 claims_not_allowed.';

CREATE FUNCTION tenancy._require_sign_in(VARIADIC exempt text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM tenancy._extension_origin()) AND NOT tenancy._caller_has(VARIADIC _require_sign_in.exempt) THEN
        PERFORM tenancy._raise('PT403', 'extension_token_identity', 'An extension token gives access and dashboard tokens only',
            'Let the user sign in: what is asked for would outlive the extension token''s revocation.');
    END IF;
END
$$;
COMMENT ON FUNCTION tenancy._require_sign_in(text[]) IS
'Refuses an identity that came from an extension token, or from what one has issued, unless the caller has one of these accesses. Error: PT403 extension_token_identity.';
