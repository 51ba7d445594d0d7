-- Issuing: one claim schema for every kind of token.

CREATE FUNCTION tenancy._token_hash(secret text) RETURNS bytea
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT sha256(convert_to(_token_hash.secret, 'UTF8')) $$;
COMMENT ON FUNCTION tenancy._token_hash(text) IS
'SHA-256 of a whole token, code or key: what is stored in its place. Fit for secrets of 128 bits and more, which nobody guesses.';

CREATE FUNCTION tenancy._find_token_user(profile text, user_id text, OUT namespace text, OUT issuer text, OUT id uuid)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_id(_find_token_user.user_id, 'user_id');
    SELECT i.namespace, i.issuer
      INTO _find_token_user.namespace, _find_token_user.issuer
      FROM tenancy.signing_profiles AS p
      JOIN tenancy.issuers AS i ON i.issuer = p.issuer
     WHERE p.name = _find_token_user.profile;
    IF NOT FOUND THEN
        PERFORM tenancy._raise('55000', 'no_signing_profile', 'There is no signing profile of this name',
            'Make one: SELECT tenancy.add_signing_profile(name => ''default'', issuer => …, audience => …, algorithm => ''EdDSA'', key_id => …);',
            jsonb_build_object('profile', _find_token_user.profile));
    END IF;
    SELECT u.id INTO _find_token_user.id
      FROM tenancy.users AS u
     WHERE u.namespace = _find_token_user.namespace AND u.external_id = _find_token_user.user_id;
END
$$;
COMMENT ON FUNCTION tenancy._find_token_user(text, text) IS
'The namespace and issuer of a signing profile, and the internal id of the user there; NULL where not registered. Errors: 55000 no_signing_profile, 22023.';

CREATE FUNCTION tenancy._require_token_user(id uuid) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF _require_token_user.id IS NULL THEN
        PERFORM tenancy._raise('PT404', 'USER_NOT_FOUND', 'User not found',
            'Register the user first, in the namespace of the profile''s issuer: SELECT tenancy.register_user(user_id => …);');
    END IF;
END
$$;
COMMENT ON FUNCTION tenancy._require_token_user(uuid) IS 'Raises PT404 USER_NOT_FOUND for NULL.';

CREATE FUNCTION tenancy._check_extra(extra jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- What authenticate reads beside our own claims: a caller of an issuing function must not be able to say it.
    reserved CONSTANT text[] := ARRAY['nbf', 'azp', 'typ', 'token_use', 'at_hash', 'c_hash', 'sid', 'tenant_id', 'tid',
        'org_id', 'org', 'o', 'organizations', 'permissions', 'org_permissions', 'correlation_id', 'cnf',
        'extension_token_id'];
    -- What others who verify our tokens take for a right: nobody gives it to themselves. Nor whatever stands under a
    -- name with ':' or '/', as Hasura, Cognito and Auth0 have them, nor an address or number that was not proven.
    rights CONSTANT text[] := ARRAY['role', 'roles', 'scope', 'scp', 'scopes', 'groups', 'entitlements', 'plan_type',
        'app_metadata', 'user_metadata', 'realm_access', 'resource_access', 'wids', 'client_id', 'act', 'may_act',
        'acr', 'amr', 'auth_time', 'admin', 'is_admin', 'email_verified'];
    found_names text[];
BEGIN
    IF jsonb_typeof(coalesce(_check_extra.extra, '{}')) <> 'object' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'extra must be a JSON object', 'Pass claims by name, or leave it out.',
            '{"parameter": "extra"}');
    END IF;
    SELECT array_agg(name ORDER BY name) INTO found_names
      FROM jsonb_object_keys(coalesce(_check_extra.extra, '{}')) AS name
     WHERE name = ANY (reserved);
    IF found_names IS NOT NULL THEN
        PERFORM tenancy._raise('22023', 'reserved_claim', 'extra names claims that decide who the bearer is',
            'Leave them out: the database resolves them.',
            jsonb_build_object('parameter', 'extra', 'claims', found_names));
    END IF;
    SELECT array_agg(name ORDER BY name) INTO found_names
      FROM jsonb_object_keys(coalesce(_check_extra.extra, '{}')) AS name
     WHERE name = ANY (rights) OR name LIKE 'phone\_number%' OR name ~ '[:/]';
    IF found_names IS NOT NULL AND NOT tenancy._caller_has('service') THEN
        PERFORM tenancy._raise('22023', 'reserved_claim', 'extra names claims that say what the bearer may do',
            'Leave them out, or let a role with service access issue the token.',
            jsonb_build_object('parameter', 'extra', 'claims', found_names));
    END IF;
    RETURN coalesce(_check_extra.extra, '{}');
END
$$;
COMMENT ON FUNCTION tenancy._check_extra(jsonb) IS
'Returns extra, claims of the caller''s own, if it is an object without claims that authenticate gives a meaning to, and from a caller without service access without those that others take for a right or for proven (role, scope, groups, plan_type, app_metadata, email_verified, phone_number and the like, and every name with '':'' or ''/''); those that the signing issuer''s claim_paths name, _sign_token refuses. Claims of the schema may stand in it; they are overridden. Errors: 22023 invalid_argument, reserved_claim.';

CREATE FUNCTION tenancy._mint_token(
    profile text,
    namespace text,
    kind text,
    lifetime integer,
    user_id text,
    org_id text,
    claims jsonb,
    extra jsonb,
    require_org boolean,
    token_id uuid,
    session_id text,
    origin text,
    OUT token text,
    OUT expires_at timestamptz,
    OUT tenant_id text
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject record;
    attribution jsonb;
    issued_at bigint := floor(extract(epoch FROM clock_timestamp()));
BEGIN
    SELECT i.issuer, i.namespace, p.audience, u.id, u.email INTO subject
      FROM tenancy.signing_profiles AS p
      JOIN tenancy.issuers AS i ON i.issuer = p.issuer
      LEFT JOIN tenancy.users AS u ON u.namespace = i.namespace AND u.external_id = _mint_token.user_id
     WHERE p.name = _mint_token.profile;
    IF subject.namespace <> _mint_token.namespace THEN
        -- Somebody else bears that id there.
        PERFORM tenancy._raise('55000', 'profile_moved', 'The signing profile''s issuer is of another namespace than what it is to renew',
            'Point the profile back at an issuer of the former namespace, or let the user sign in again.',
            jsonb_build_object('profile', _mint_token.profile));
    END IF;
    PERFORM tenancy._require_token_user(subject.id);

    attribution := tenancy._org_attribution(subject.namespace, _mint_token.user_id, _mint_token.org_id, _mint_token.claims);
    IF attribution IS NULL AND _mint_token.require_org THEN
        PERFORM tenancy._raise('PT403', 'no_seat', 'User does not have an active seat in this organization',
            'Give the user a membership and a seat under an active or trialing subscription, or leave require_org out for a personal token.',
            jsonb_build_object('user_id', _mint_token.user_id, 'org_id', _mint_token.org_id));
    END IF;
    IF attribution IS NULL THEN
        _mint_token.tenant_id := tenancy._tenant_name(subject.namespace, 'user::' || _mint_token.user_id);
    ELSE
        SELECT o.tenant_id INTO _mint_token.tenant_id
          FROM tenancy.organizations AS o
         WHERE o.id = (attribution ->> 'organization_id')::uuid;
    END IF;

    _mint_token.expires_at := to_timestamp(issued_at + _mint_token.lifetime);
    -- The right side wins: nothing in extra overrides a claim of ours.
    _mint_token.token := tenancy._sign_token(_mint_token.profile, (
        tenancy._check_extra(_mint_token.extra)
        || coalesce(attribution, jsonb_build_object(
            'pool', NULL, 'clerk_org_id', NULL, 'organization_id', NULL, 'organization_name', NULL,
            'stripe_customer_id', NULL, 'organization_subscription_id', NULL, 'seat_id', NULL, 'seat_role', NULL,
            'org_role', NULL))
        || jsonb_build_object(
            'iss', subject.issuer, 'aud', subject.audience, 'sub', _mint_token.user_id, 'type', _mint_token.kind,
            'iat', issued_at, 'exp', issued_at + _mint_token.lifetime, 'jti', _mint_token.token_id,
            'session_id', _mint_token.session_id, 'email', subject.email)
        || CASE WHEN _mint_token.origin IS NULL THEN '{}'
                ELSE jsonb_build_object('extension_token_id', _mint_token.origin) END)::text);
END
$$;
COMMENT ON FUNCTION tenancy._mint_token(text, text, text, integer, text, text, jsonb, jsonb, boolean, uuid, text, text) IS
'Signs a token of a kind (the claim type), good for lifetime seconds, with the one claim schema: iss, aud, sub, type, iat, exp, jti, session_id, email and the nine organization claims, always present, NULL where there is nothing. namespace: the user''s, which must be that of the profile''s issuer. Attribution comes from the directory. origin: the extension token it is issued on the strength of, as claim extension_token_id; NULL: none. tenant_id: the tenant its bearer will be in. Errors: PT403 no_seat, PT404 USER_NOT_FOUND, 22023, 55000 profile_moved and those of _sign_token.';

CREATE FUNCTION tenancy._issue_token(
    kind text, lifetime integer, user_id text, org_id text, claims jsonb, extra jsonb, require_org boolean, profile text
) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject record;
    token_id uuid := tenancy.uuid_v7();
    counted jsonb;
    minted text;
    -- The session goes on where it is the user's own, and with it what it came from: revoking it ends both.
    session text := token_id;
    origin text;
    is_live boolean;
BEGIN
    PERFORM tenancy._require_installed();
    subject := tenancy._find_token_user(_issue_token.profile, _issue_token.user_id);
    counted := tenancy._check_token_caller(_issue_token.user_id, subject.namespace, _issue_token.claims);
    IF (tenancy.user_id(), tenancy.identity_namespace()) = (_issue_token.user_id, subject.namespace) THEN
        session := coalesce(tenancy.session_id(), session);
        SELECT e.token_id, e.is_live INTO origin, is_live FROM tenancy._extension_origin() AS e;
        IF NOT is_live THEN
            PERFORM tenancy._raise('PT403', 'extension_token_ended', 'The extension token that this identity came from has ended',
                'Authenticate with the extension token that took its place, or let the user sign in.');
        END IF;
    END IF;
    SELECT m.token INTO minted
      FROM tenancy._mint_token(
        _issue_token.profile, subject.namespace, _issue_token.kind, _issue_token.lifetime, _issue_token.user_id,
        _issue_token.org_id, counted, _issue_token.extra, coalesce(_issue_token.require_org, false), token_id, session,
        origin) AS m;
    RETURN minted;
END
$$;
COMMENT ON FUNCTION tenancy._issue_token(text, integer, text, text, jsonb, jsonb, boolean, text) IS
'What issue_access_token and issue_dashboard_token share. What an extension token has issued is renewed while that token is live, so it lasts a day beyond it at most. Errors: as they.';

CREATE FUNCTION tenancy.issue_access_token(
    user_id text,
    org_id text DEFAULT NULL,
    claims jsonb DEFAULT NULL,
    extra jsonb DEFAULT '{}',
    require_org boolean DEFAULT false,
    profile text DEFAULT 'default'
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN tenancy._issue_token('access', 86400, issue_access_token.user_id, issue_access_token.org_id,
        issue_access_token.claims, issue_access_token.extra, issue_access_token.require_org, issue_access_token.profile);
END
$$;
COMMENT ON FUNCTION tenancy.issue_access_token(text, text, jsonb, jsonb, boolean, text) IS
'Issues an access token, good for 24 hours (claim type: access). org_id: the organization the user asks for; without a membership and an active seat there the token is personal (organization claims NULL), or with require_org refused. claims: verified claims that show memberships, from a role with service access only; for anyone else the claims of the authenticated token count, if a provider issued it (by one of our own the directory decides), and user_id must be the identity''s, which an API key does not give; its token is judged again, as at authenticate. extra: more claims; it never overrides ours, and without service access it names no right and nothing that is to be proven (role, scope, groups, plan_type, email_verified, phone_number, any name with '':'' or ''/'', …). For the bearer of an extension token, or of what one has issued, only while that extension token is live. profile: the signing profile; any caller may name any. Errors: PT401, PT403 as authenticate, no_seat, another_user, api_key_identity, extension_token_ended, PT404 USER_NOT_FOUND, 22023 reserved_claim, invalid_extra, token_too_large, 42501 claims_not_allowed, 55000 no_signing_profile, signing_key_retired, algorithm_not_allowed.';

CREATE FUNCTION tenancy.issue_dashboard_token(
    user_id text,
    org_id text DEFAULT NULL,
    claims jsonb DEFAULT NULL,
    extra jsonb DEFAULT '{}',
    require_org boolean DEFAULT false,
    profile text DEFAULT 'default'
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN tenancy._issue_token('dashboard', 86400, issue_dashboard_token.user_id, issue_dashboard_token.org_id,
        issue_dashboard_token.claims, issue_dashboard_token.extra, issue_dashboard_token.require_org,
        issue_dashboard_token.profile);
END
$$;
COMMENT ON FUNCTION tenancy.issue_dashboard_token(text, text, jsonb, jsonb, boolean, text) IS
'Issues a dashboard token, good for 24 hours (claim type: dashboard). Parameters and errors as issue_access_token.';

CREATE FUNCTION tenancy._revoke_ours(kind text, value text, expires_at timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    signing text;
BEGIN
    -- Keys and not profiles say who signs: what a profile signed before it moved to another issuer is good still. In
    -- order, so that two sessions that revoke the same wait for each other and not in a circle.
    FOR signing IN SELECT DISTINCT k.issuer FROM tenancy.issuer_keys AS k WHERE k.origin = 'signing_profile' ORDER BY k.issuer LOOP
        PERFORM tenancy._revoke(_revoke_ours.kind, signing, _revoke_ours.value, _revoke_ours.expires_at);
    END LOOP;
END
$$;
COMMENT ON FUNCTION tenancy._revoke_ours(text, text, timestamptz) IS
'Revokes a token or a session under every issuer that signing profiles sign for: a session goes on in the tokens that its bearer is issued, whatever the profile.';

CREATE FUNCTION tenancy._audit_token(
    tenant_id text, action text, kind text, token_id uuid, namespace text, user_id text, org_id text, reason text
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO tenancy.token_audit_logs (tenant_id, action, kind, token_id, namespace, user_id, org_id, reason, correlation_id)
    VALUES (coalesce(_audit_token.tenant_id, ''), _audit_token.action, _audit_token.kind, _audit_token.token_id,
            coalesce(_audit_token.namespace, ''), _audit_token.user_id, _audit_token.org_id, _audit_token.reason,
            tenancy.correlation_id());
END
$$;
COMMENT ON FUNCTION tenancy._audit_token(text, text, text, uuid, text, text, text, text) IS
'Writes one row of token_audit_logs. Never pass a token or a hash of one.';

CREATE FUNCTION tenancy._may_note_use() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT current_setting('transaction_read_only') = 'off' AND current_setting('transaction_isolation') = 'read committed'
$$;
COMMENT ON FUNCTION tenancy._may_note_use() IS
'Whether last_used_at can be noted: not in a read-only transaction or on a standby, and not where a concurrent note would be a serialization failure.';
