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
               -- Not another role that has the name now.
               AND EXISTS (SELECT FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
                            WHERE n.nspname = 'tenancy' AND a.grantee = r.oid));
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
    END IF;
    RETURN coalesce(_check_token_caller.claims,
                    tenancy._own_claims(_check_token_caller.namespace, _check_token_caller.user_id));
END
$$;
COMMENT ON FUNCTION tenancy._check_token_caller(text, text, jsonb) IS
'May the caller have a token issued to this user? Service access: to anybody; application: to the identity''s own user, unless an API key is all it showed. Returns the claims that count: the service role''s, else those of the user''s own sealed token, else NULL. Errors: PT401 not_authenticated, PT403 api_key_identity, another_user, 42501 claims_not_allowed.';
