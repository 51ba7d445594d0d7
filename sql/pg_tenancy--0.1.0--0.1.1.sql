\echo Use "ALTER EXTENSION pg_tenancy UPDATE" to load this file. \quit


CREATE OR REPLACE FUNCTION tenancy._publish_credit_alert(pool_id uuid, alert jsonb) RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    pool record;
BEGIN
    SELECT p.tenant_id, o.external_id AS org_id, o.name AS organization_name, u.external_id AS user_id
      INTO pool
      FROM tenancy.credit_pools AS p
      LEFT JOIN tenancy.organizations AS o ON o.id = p.organization_id
      LEFT JOIN tenancy.users AS u ON u.id = p.user_id
     WHERE p.pool_id = _publish_credit_alert.pool_id;
    RETURN tenancy._publish(
        tenant_id => pool.tenant_id,
        topic => 'tenancy.credit.balance.low.v1',
        aggregate_type => 'credit_pool',
        aggregate_id => _publish_credit_alert.pool_id::text,
        source_service => 'pg_tenancy',
        data => _publish_credit_alert.alert - 'correlation_id' || jsonb_build_object(
            'pool_id', _publish_credit_alert.pool_id, 'org_id', pool.org_id,
            'organization_name', pool.organization_name, 'user_id', pool.user_id),
        metadata => NULL,
        correlation_id => tenancy._correlation_uuid(_publish_credit_alert.alert ->> 'correlation_id'));
END
$$;

COMMENT ON FUNCTION tenancy._publish_credit_alert(uuid, jsonb) IS
'Publishes tenancy.credit.balance.low.v1 for a pool: alert has threshold, available, pool and seq, and the correlation_id of what crossed it, if any; the owner''s ids are added.';

CREATE OR REPLACE FUNCTION tenancy._health_access()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    bare text;
BEGIN
    IF to_regclass('tenancy.schema_migrations') IS NULL THEN
        RETURN;
    END IF;
    -- DROP EXTENSION … CASCADE takes the policies and leaves the rows.
    SELECT string_agg(c.relname, ', ' ORDER BY c.relname) INTO bare
      FROM tenancy.schema_migrations AS s, unnest(s.relations) AS made
      JOIN pg_class AS c ON c.relnamespace = 'tenancy'::regnamespace AND c.relname = made
     WHERE c.relkind IN ('r', 'p')
       AND (NOT c.relrowsecurity OR NOT c.relforcerowsecurity
            OR NOT EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = c.oid));
    RETURN QUERY SELECT 'row_security'::text,
                        CASE WHEN bare IS NULL THEN 'ok' ELSE 'error' END,
                        coalesce('without forced row-level security or without a policy: ' || bare,
                                 'enabled and forced on every table'),
                        CASE WHEN bare IS NOT NULL THEN 'Restore the policies, for example from a dump.' END;
    RETURN QUERY SELECT 'access_roles'::text, 'warning'::text,
                        format('role "%s" is to have %s access but does not exist', g.role_name, g.access),
                        'Create the role and SELECT tenancy.grant_access(…); or, if it was renamed, SELECT tenancy.grant_access(…) for the new name and delete the row.'::text
                   FROM tenancy.access_grants AS g
                  WHERE NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = g.role_name);
    RETURN QUERY SELECT 'access_roles'::text, 'error'::text,
                        format('role "%s" has %s access and bypasses row-level security', g.role_name, g.access),
                        format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS;', g.role_name)
                   FROM tenancy.access_grants AS g
                   JOIN pg_roles AS r ON r.rolname = g.role_name
                  WHERE g.access = 'application' AND (r.rolsuper OR r.rolbypassrls);
    -- Tables with a floor for everybody (batches) bind an owner that is neither: its functions would find no rows.
    RETURN QUERY SELECT 'owner'::text, 'error'::text,
                        format('role "%s" owns tenancy.batches and is bound by its policies', r.rolname),
                        format('ALTER ROLE %I BYPASSRLS;', r.rolname)
                   FROM pg_class AS c
                   JOIN pg_roles AS r ON r.oid = c.relowner
                  WHERE c.oid = to_regclass('tenancy.batches') AND NOT (r.rolsuper OR r.rolbypassrls);
END
$$;

COMMENT ON FUNCTION tenancy._check_extra(jsonb) IS
'Returns extra, claims of the caller''s own, if it is an object without claims that authenticate gives a meaning to; those that the signing issuer''s claim_paths name, _sign_token refuses. Claims of the schema may stand in it; they are overridden. Errors: 22023 invalid_argument, reserved_claim.';

CREATE OR REPLACE FUNCTION tenancy._issue_token(
    kind text, lifetime integer, user_id text, org_id text, claims jsonb, extra jsonb, require_org boolean, profile text
) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject record;
    token_id uuid := tenancy.uuid_v7();
    counted jsonb;
    minted text;
BEGIN
    PERFORM tenancy._require_installed();
    subject := tenancy._find_token_user(_issue_token.profile, _issue_token.user_id);
    counted := tenancy._check_token_caller(_issue_token.user_id, subject.namespace, _issue_token.claims);
    SELECT m.token INTO minted
      FROM tenancy._mint_token(
        _issue_token.profile, _issue_token.kind, _issue_token.lifetime, _issue_token.user_id, _issue_token.org_id,
        counted, _issue_token.extra, coalesce(_issue_token.require_org, false), token_id,
        -- The provider's session goes on where it is the user's own: revoke_session(our issuer, session) ends both.
        coalesce(CASE WHEN (tenancy.user_id(), tenancy.identity_namespace()) = (_issue_token.user_id, subject.namespace)
                      THEN tenancy.session_id() END, token_id::text)) AS m;
    RETURN minted;
END
$$;

COMMENT ON FUNCTION tenancy.issue_access_token(text, text, jsonb, jsonb, boolean, text) IS
'Issues an access token, good for 24 hours (claim type: access). org_id: the organization the user asks for; without a membership and an active seat there the token is personal (organization claims NULL), or with require_org refused. claims: verified claims that show memberships, from a role with service access only; for anyone else the claims of the authenticated token count, and user_id must be the identity''s, which an API key does not give. extra: more claims; it never overrides ours. profile: the signing profile. Errors: PT401, PT403 no_seat, another_user, api_key_identity, PT404 USER_NOT_FOUND, 22023 reserved_claim, invalid_extra, token_too_large, 42501 claims_not_allowed, 55000 no_signing_profile, signing_key_retired, algorithm_not_allowed.';

COMMENT ON FUNCTION tenancy._take_token_limit(uuid, text) IS
'Raises PT429 RATE_LIMIT_EXCEEDED where the user has had 5 tokens generated, or 3 refreshed, within the hour: counted rows, after the caller has written the user''s row.';

CREATE OR REPLACE FUNCTION tenancy.issue_extension_token(
    user_id text,
    org_id text DEFAULT NULL,
    claims jsonb DEFAULT NULL,
    name text DEFAULT NULL,
    device text DEFAULT NULL,
    address text DEFAULT NULL,
    extra jsonb DEFAULT '{}',
    require_org boolean DEFAULT false,
    profile text DEFAULT 'default',
    OUT token text,
    OUT token_id uuid,
    OUT expires_at timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject record;
    minted record;
    active integer;
    counted jsonb;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_text(issue_extension_token.name, 'name', 255);
    PERFORM tenancy._require_text(issue_extension_token.device, 'device', 1000);
    PERFORM tenancy._require_text(issue_extension_token.address, 'address', 255);
    subject := tenancy._find_token_user(issue_extension_token.profile, issue_extension_token.user_id);
    counted := tenancy._check_token_caller(issue_extension_token.user_id, subject.namespace, issue_extension_token.claims);
    PERFORM tenancy._require_token_user(subject.id);
    UPDATE tenancy.users AS u SET updated_at = u.updated_at WHERE u.id = subject.id;

    SELECT count(*) INTO active
      FROM tenancy.extension_tokens AS t
     WHERE t.user_id = subject.id AND t.revoked_at IS NULL AND t.expires_at > now();
    IF active >= 5 THEN
        PERFORM tenancy._raise('PT409', 'TOKEN_LIMIT_EXCEEDED', 'The user has five active extension tokens',
            'Revoke one first: SELECT tenancy.revoke_extension_token(token_id);', '{"limit": 5}');
    END IF;
    PERFORM tenancy._take_token_limit(subject.id, 'generated');

    issue_extension_token.token_id := tenancy.uuid_v7();
    minted := tenancy._mint_token(
        issue_extension_token.profile, 'extension_long_lived', 10368000, issue_extension_token.user_id,
        issue_extension_token.org_id, counted, issue_extension_token.extra,
        coalesce(issue_extension_token.require_org, false), issue_extension_token.token_id,
        issue_extension_token.token_id::text);
    PERFORM tenancy._take_token_limit_again(subject.namespace, issue_extension_token.user_id, 'generated');
    issue_extension_token.token := minted.token;
    issue_extension_token.expires_at := minted.expires_at;
    INSERT INTO tenancy.extension_tokens
        (id, token_hash, tenant_id, namespace, user_id, org_id, profile, name, sealed_device, sealed_address, expires_at)
    VALUES
        (issue_extension_token.token_id, tenancy._token_hash(minted.token), minted.tenant_id, subject.namespace,
         subject.id, issue_extension_token.org_id, issue_extension_token.profile, issue_extension_token.name,
         tenancy._seal_note(issue_extension_token.device, 'device', issue_extension_token.token_id),
         tenancy._seal_note(issue_extension_token.address, 'address', issue_extension_token.token_id),
         minted.expires_at);
    PERFORM tenancy._audit_token(minted.tenant_id, 'generated', 'extension_token', issue_extension_token.token_id,
        subject.namespace, issue_extension_token.user_id, issue_extension_token.org_id, NULL);
END
$$;

COMMENT ON FUNCTION tenancy.issue_extension_token(text, text, jsonb, text, text, text, jsonb, boolean, text) IS
'Issues a long-lived token for an editor extension: 120 days (claim type: extension_long_lived). Only its SHA-256 is kept; show it once. name: what the user calls it. device and address: kept sealed under the master key. The other parameters as issue_access_token. Errors: PT409 TOKEN_LIMIT_EXCEEDED (five active), PT429 RATE_LIMIT_EXCEEDED (five an hour), 40001 (above READ COMMITTED, where another session issued meanwhile), and those of issue_access_token.';

CREATE OR REPLACE FUNCTION tenancy.refresh_extension_token(
    token text,
    OUT new_token text,
    OUT token_id uuid,
    OUT expires_at timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old_id uuid;
    old record;
    minted record;
BEGIN
    PERFORM tenancy._require_installed();
    old_id := tenancy._find_extension_token(refresh_extension_token.token, 'NO_ACTIVE_TOKEN');
    SELECT t.user_id INTO old FROM tenancy.extension_tokens AS t WHERE t.id = old_id;
    UPDATE tenancy.users AS u SET updated_at = u.updated_at WHERE u.id = old.user_id;
    SELECT t.*, u.external_id, p.issuer INTO old
      FROM tenancy.extension_tokens AS t
      JOIN tenancy.users AS u ON u.id = t.user_id
      JOIN tenancy.signing_profiles AS p ON p.name = t.profile
     WHERE t.id = old_id
       FOR UPDATE OF t;
    -- Judged again under the lock: another session may have refreshed or revoked it meanwhile.
    IF old.revoked_at IS NOT NULL THEN
        PERFORM tenancy._raise('PT404', 'NO_ACTIVE_TOKEN', 'There is no active token to refresh',
            'Let the user sign in and issue a new token.');
    ELSIF old.expires_at > now() + interval '30 days' THEN
        PERFORM tenancy._raise('PT422', 'TOO_EARLY_TO_REFRESH', 'A token is refreshed in its last 30 days only',
            'Keep using the token; DETAIL says from when on it can be refreshed.',
            jsonb_build_object('refresh_from', old.expires_at - interval '30 days'));
    END IF;
    PERFORM tenancy._take_token_limit(old.user_id, 'refreshed');

    refresh_extension_token.token_id := tenancy.uuid_v7();
    minted := tenancy._mint_token(old.profile, 'extension_long_lived', 10368000, old.external_id, old.org_id, NULL, '{}',
        false, refresh_extension_token.token_id, refresh_extension_token.token_id::text);
    PERFORM tenancy._take_token_limit_again(old.namespace, old.external_id, 'refreshed');
    refresh_extension_token.new_token := minted.token;
    refresh_extension_token.expires_at := minted.expires_at;
    PERFORM tenancy._end_extension_token(old_id, 'refreshed');
    INSERT INTO tenancy.extension_tokens
        (id, token_hash, tenant_id, namespace, user_id, org_id, profile, name, sealed_device, sealed_address,
         refresh_count, expires_at)
    VALUES
        (refresh_extension_token.token_id, tenancy._token_hash(minted.token), minted.tenant_id, old.namespace,
         old.user_id, old.org_id, old.profile, old.name,
         tenancy._seal_note(tenancy._open_note(old.sealed_device, 'device', old_id), 'device', refresh_extension_token.token_id),
         tenancy._seal_note(tenancy._open_note(old.sealed_address, 'address', old_id), 'address', refresh_extension_token.token_id),
         old.refresh_count + 1, minted.expires_at);
    PERFORM tenancy._audit_token(minted.tenant_id, 'refreshed', 'extension_token', refresh_extension_token.token_id,
        old.namespace, old.external_id, old.org_id, NULL);
END
$$;

COMMENT ON FUNCTION tenancy.refresh_extension_token(text) IS
'Exchanges a long-lived token in its last 30 days for a new one of 120 days and revokes it, in one transaction. Organization claims are resolved anew from the directory. Errors: PT422 TOO_EARLY_TO_REFRESH, PT429 RATE_LIMIT_EXCEEDED (three an hour), 40001, PT404 NO_ACTIVE_TOKEN, USER_NOT_FOUND, PT401 as validate_extension_token, 55000.';

CREATE OR REPLACE FUNCTION tenancy._end_extension_token(token_id uuid, reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ended record;
    issuer text;
BEGIN
    UPDATE tenancy.extension_tokens AS t
       SET revoked_at = now(), revoked_reason = _end_extension_token.reason
     WHERE t.id = _end_extension_token.token_id AND t.revoked_at IS NULL
    RETURNING t.profile, t.expires_at INTO ended;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- authenticate looks into revocations, by jti; validate_extension_token at the row.
    SELECT p.issuer INTO issuer FROM tenancy.signing_profiles AS p WHERE p.name = ended.profile;
    PERFORM tenancy._revoke('token', issuer, _end_extension_token.token_id::text, ended.expires_at);
    IF _end_extension_token.reason = 'revoked' THEN
        -- It is a session of its own, and what was issued to its bearer on the strength of it lives a day at most.
        PERFORM tenancy._revoke('session', issuer, _end_extension_token.token_id::text, now() + interval '1 day');
    END IF;
    RETURN true;
END
$$;

COMMENT ON FUNCTION tenancy._end_extension_token(uuid, text) IS
'Revokes a token for validate_extension_token and for authenticate, and for the reason revoked also the access and dashboard tokens issued to its bearer; false where it was revoked before.';

CREATE OR REPLACE FUNCTION tenancy.revoke_extension_token(token_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(revoke_extension_token.token_id, 'token_id');
    SELECT t.tenant_id, t.namespace, t.org_id, u.external_id INTO known
      FROM tenancy.extension_tokens AS t
      JOIN tenancy.users AS u ON u.id = t.user_id
     WHERE t.id = revoke_extension_token.token_id;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- Another user's token is answered as one that does not exist.
    IF NOT tenancy._caller_has('service')
       AND (known.external_id, known.namespace) IS DISTINCT FROM (tenancy.user_id(), tenancy.identity_namespace())
    THEN
        PERFORM tenancy._audit_token(known.tenant_id, 'refused', 'extension_token', revoke_extension_token.token_id,
            tenancy.identity_namespace(), tenancy.user_id(), tenancy.org_id(), 'another_user');
        RETURN false;
    END IF;
    PERFORM tenancy._check_token_caller(known.external_id, known.namespace, NULL);
    IF NOT tenancy._end_extension_token(revoke_extension_token.token_id, 'revoked') THEN
        RETURN false;
    END IF;
    PERFORM tenancy._audit_token(known.tenant_id, 'revoked', 'extension_token', revoke_extension_token.token_id,
        known.namespace, known.external_id, known.org_id, 'revoked');
    RETURN true;
END
$$;

COMMENT ON FUNCTION tenancy.revoke_extension_token(uuid) IS
'Revokes a long-lived token, for validate_extension_token and authenticate alike, and the access and dashboard tokens issued to its bearer; true where it was live. A role without service access can revoke the authenticated user''s own only; any other token is answered false. Errors: 22023, PT403 api_key_identity (an API key revokes none), 55000.';

COMMENT ON FUNCTION tenancy.list_extension_tokens(text, text) IS
'A user''s live long-lived tokens, to show and to revoke them by token_id; profile says in whose namespace the user is. A role without service access lists the authenticated user''s own only, and nothing by an API key. Errors: PT401, PT403 another_user, api_key_identity, 22023, 55000.';

CREATE OR REPLACE FUNCTION tenancy.add_signing_profile(
    name text,
    issuer text,
    audience text,
    algorithm text,
    key_id text,
    key bytea DEFAULT NULL,
    refresh_max_age interval DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known record;
    made record;
    configured record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(add_signing_profile.name, 'name');
    PERFORM tenancy._require_id(add_signing_profile.issuer, 'issuer');
    PERFORM tenancy._require_id(add_signing_profile.audience, 'audience');
    PERFORM tenancy._require_id(add_signing_profile.key_id, 'key_id');
    PERFORM tenancy._require_value(add_signing_profile.algorithm, 'algorithm');
    IF add_signing_profile.refresh_max_age NOT BETWEEN '1 hour' AND '3660 days' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'refresh_max_age must be between an hour and ten years',
            'The usual is 90 days.', '{"parameter": "refresh_max_age"}');
    END IF;

    -- The profile makes its own tokens authenticate here: its issuer is configured, with its audience.
    SELECT i.profile, i.audiences, i.algorithms INTO configured
      FROM tenancy.issuers AS i WHERE i.issuer = add_signing_profile.issuer FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM tenancy.add_issuer(add_signing_profile.issuer, ARRAY[add_signing_profile.audience], 'pooled');
    ELSIF configured.profile <> 'pooled' THEN
        -- Other profiles would read organization_id, an internal id, as the organization.
        PERFORM tenancy._raise('PT409', 'issuer_not_pooled', 'The issuer is configured with another profile than pooled',
            'Sign under an issuer of the product''s own, or change it: SELECT tenancy.add_issuer(issuer => …, profile => ''pooled'', …);',
            jsonb_build_object('issuer', add_signing_profile.issuer, 'profile', configured.profile));
    ELSIF configured.algorithms <> '{}' AND add_signing_profile.algorithm <> ALL (configured.algorithms) THEN
        PERFORM tenancy._raise('PT409', 'algorithm_not_allowed', 'The issuer''s configuration does not allow the algorithm',
            'Allow it: SELECT tenancy.add_issuer(issuer => …, algorithms => …);',
            jsonb_build_object('issuer', add_signing_profile.issuer, 'algorithm', add_signing_profile.algorithm));
    ELSIF add_signing_profile.audience <> ALL (configured.audiences) THEN
        UPDATE tenancy.issuers AS i
           SET audiences = i.audiences || add_signing_profile.audience, updated_at = now()
         WHERE i.issuer = add_signing_profile.issuer;
        PERFORM tenancy._changed('issuers');
    END IF;

    SELECT p.issuer, p.audience, p.algorithm, p.key_id INTO known
      FROM tenancy.signing_profiles AS p WHERE p.name = add_signing_profile.name FOR UPDATE;
    IF known.issuer = add_signing_profile.issuer AND known.key_id = add_signing_profile.key_id
       AND known.algorithm = add_signing_profile.algorithm AND add_signing_profile.key IS NULL THEN
        IF NOT EXISTS (SELECT FROM tenancy.issuer_keys AS k
                        WHERE k.issuer = known.issuer AND k.kid = known.key_id AND k.retired_at IS NULL) THEN
            PERFORM tenancy._raise('55000', 'signing_key_retired', 'The profile''s signing key is retired',
                'Give the profile a new key: the same call with a key_id of its own.',
                jsonb_build_object('profile', add_signing_profile.name, 'key_id', known.key_id));
        END IF;
        UPDATE tenancy.signing_profiles AS p
           SET audience = add_signing_profile.audience,
               refresh_max_age = coalesce(add_signing_profile.refresh_max_age, p.refresh_max_age), updated_at = now()
         WHERE p.name = add_signing_profile.name
           AND (p.audience <> add_signing_profile.audience
                OR p.refresh_max_age <> add_signing_profile.refresh_max_age);
        IF NOT FOUND THEN
            RAISE NOTICE 'signing profile "%" is there already, with this key', add_signing_profile.name;
        END IF;
        RETURN add_signing_profile.key_id;
    END IF;

    SELECT m.sealed_key, m.sealed_secret, m.public_jwk INTO made
      FROM tenancy._make_signing_key(
        add_signing_profile.algorithm, add_signing_profile.key_id, add_signing_profile.key,
        tenancy._signing_context(add_signing_profile.name, add_signing_profile.key_id),
        tenancy._secret_context(add_signing_profile.issuer, add_signing_profile.key_id)) AS m;
    PERFORM tenancy._insert_key(add_signing_profile.issuer, add_signing_profile.key_id, add_signing_profile.algorithm,
        made.public_jwk::jsonb, made.sealed_secret, 'signing_profile', NULL, NULL);
    UPDATE tenancy.signing_profiles AS p
       SET issuer = add_signing_profile.issuer, audience = add_signing_profile.audience,
           algorithm = add_signing_profile.algorithm, key_id = add_signing_profile.key_id,
           sealed_key = made.sealed_key,
           refresh_max_age = coalesce(add_signing_profile.refresh_max_age, p.refresh_max_age), updated_at = now()
     WHERE p.name = add_signing_profile.name;
    IF NOT FOUND THEN
        INSERT INTO tenancy.signing_profiles (name, issuer, audience, algorithm, key_id, sealed_key, refresh_max_age)
        VALUES (add_signing_profile.name, add_signing_profile.issuer, add_signing_profile.audience,
                add_signing_profile.algorithm, add_signing_profile.key_id, made.sealed_key,
                coalesce(add_signing_profile.refresh_max_age, '90 days'));
    END IF;
    PERFORM tenancy._changed('signing_profiles');
    RETURN add_signing_profile.key_id;
END
$$;

COMMENT ON FUNCTION tenancy.add_signing_profile(text, text, text, text, text, bytea, interval) IS
'Makes a signing profile, or gives it a new key or audience, and returns the kid. Its tokens authenticate here from then on: issuer is configured with profile pooled and this audience, the key is added to it. algorithm: EdDSA or ES256 for new users, HS256 for contract S; RS256 and the rest of tenancy.add_key''s work too. key: the secret itself for HS256 (32 bytes or more), PKCS#8, PKCS#1 or SEC 1 as DER or PEM for the others; NULL makes one inside, which never leaves. Sealed under the master key. refresh_max_age: how long after signing in refresh tokens can be exchanged at most, however often they are (90 days unless told otherwise; NULL keeps what was set). A new key_id rotates: what the old key signed still verifies until tenancy.retire_key(issuer, kid). Errors: 22023 with the reason; PT409 duplicate_kid, issuer_not_pooled, algorithm_not_allowed; 55000 signing_key_retired, and where the master key is missing.';

CREATE OR REPLACE FUNCTION tenancy._caller_has(VARIADIC accesses text[]) RETURNS boolean
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

CREATE OR REPLACE FUNCTION tenancy._check_token_caller(user_id text, namespace text, claims jsonb) RETURNS jsonb
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

COMMENT ON FUNCTION tenancy.start_authorization(text, text, text, text, text, text) IS
'Gives a signed-in user an authorization code for a client that has no secret (PKCE, RFC 7636): ten minutes, single use, bound to user, organization, challenge, state and redirect_uri. code_challenge: base64url(SHA-256(code_verifier)), the only method. A role without service access can start for the authenticated user only, and not by an API key. Errors: 22023 invalid_code_challenge, invalid_state (16 characters or more), invalid_redirect_uri; PT401, PT403 another_user, api_key_identity, PT404 USER_NOT_FOUND, 55000.';

CREATE OR REPLACE FUNCTION tenancy._reconcile_operator_policies() RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    operators oid[];
    target record;
BEGIN
    SELECT coalesce(array_agg(r.oid ORDER BY r.oid), '{}') INTO operators
      FROM tenancy.access_grants AS g
      JOIN pg_roles AS r ON r.rolname = g.role_name
     WHERE g.access = 'operator'
       AND EXISTS (SELECT FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
                    WHERE n.nspname = 'tenancy' AND a.grantee = r.oid);
    -- Only where something changes: replacing a policy locks its table.
    FOR target IN
        SELECT c.oid::regclass AS name, p.oid IS NOT NULL AS has_policy
          FROM tenancy._table_access() AS t
          JOIN pg_class AS c ON c.oid = to_regclass(format('tenancy.%I', t.relation))
          LEFT JOIN pg_policy AS p ON p.polrelid = c.oid AND p.polname = 'operator_rows'
         WHERE t.access = 'operator'
           AND c.relkind IN ('r', 'p')
           AND coalesce(ARRAY(SELECT role FROM unnest(p.polroles) AS role ORDER BY role), '{}') <> operators
         ORDER BY c.relname
    LOOP
        IF target.has_policy THEN
            EXECUTE format('DROP POLICY operator_rows ON %s', target.name);
        END IF;
        IF operators <> '{}' THEN
            EXECUTE format('CREATE POLICY operator_rows ON %s FOR SELECT TO %s USING (true)', target.name,
                           (SELECT string_agg(role::regrole::text, ', ') FROM unnest(operators) AS role));
            EXECUTE format('COMMENT ON POLICY operator_rows ON %s IS %L', target.name,
                           'Operators read every tenant''s rows; kept by grant_access and revoke_access.');
        END IF;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION tenancy.grant_access(role regrole, access text) RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target record;
    granted integer;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(grant_access.role, 'role');
    PERFORM tenancy._require_one_of(grant_access.access, 'access', ARRAY['application', 'service', 'operator', 'metrics']);
    SELECT r.rolname, r.rolsuper, r.rolbypassrls INTO target FROM pg_roles AS r WHERE r.oid = grant_access.role;
    IF NOT FOUND THEN
        PERFORM tenancy._raise('22023', 'role_not_found', 'The role does not exist', 'Create it first: CREATE ROLE …;');
    END IF;
    IF target.rolsuper THEN
        PERFORM tenancy._raise('22023', 'superuser_role',
            format('Role "%s" is a superuser: no policy binds it and it may call everything already', target.rolname),
            'Grant access to an ordinary role, and let the application connect as that one.',
            jsonb_build_object('role', target.rolname));
    END IF;
    IF target.rolbypassrls AND grant_access.access = 'application' THEN
        PERFORM tenancy._raise('22023', 'bypassrls_role',
            format('Role "%s" has BYPASSRLS: it would see the rows of every tenant', target.rolname),
            'ALTER ROLE … NOBYPASSRLS, or grant access to another role.', jsonb_build_object('role', target.rolname));
    END IF;

    -- One session at a time changes privileges: two at once fail on the same catalog row.
    LOCK TABLE tenancy.access_grants IN SHARE ROW EXCLUSIVE MODE;
    -- What is recorded under its name for a role that was dropped or renamed is not this one's.
    DELETE FROM tenancy.access_grants AS g
     WHERE g.role_name = target.rolname
       AND NOT EXISTS (SELECT FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
                        WHERE n.nspname = 'tenancy' AND a.grantee = grant_access.role);
    INSERT INTO tenancy.access_grants (role_name, access)
    VALUES (target.rolname, grant_access.access)
    ON CONFLICT ON CONSTRAINT access_grants_pkey DO NOTHING;
    granted := tenancy._reconcile_access(target.rolname);
    IF grant_access.access = 'operator' THEN
        PERFORM tenancy._reconcile_operator_policies();
    END IF;
    RETURN granted;
END
$$;

COMMENT ON FUNCTION tenancy.grant_access(regrole, text) IS
'Gives a role one access and returns how many functions it may call now. access: application (authenticate, accessors, spend, own rows), service (application''s, and acts for users), operator (application''s, and administers), metrics (figures only). A role may have several. Recorded in tenancy.access_grants by the role''s name and granted again by migrate(); after ALTER ROLE … RENAME grant it again. What is recorded for another role that had the name before is forgotten. Other privileges the role has in schema tenancy are taken. For the extension''s owner and superusers. Errors: 22023 invalid_argument, role_not_found, superuser_role, bypassrls_role; 55000; 42501.';

CREATE OR REPLACE FUNCTION tenancy.revoke_access(role regrole, access text) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target name;
    was_granted boolean;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(revoke_access.role, 'role');
    PERFORM tenancy._require_one_of(revoke_access.access, 'access', ARRAY['application', 'service', 'operator', 'metrics']);
    SELECT r.rolname INTO target FROM pg_roles AS r WHERE r.oid = revoke_access.role;

    LOCK TABLE tenancy.access_grants IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM tenancy.access_grants AS g
     WHERE g.role_name = target AND g.access = revoke_access.access;
    was_granted := FOUND;
    IF target IS NULL THEN
        RETURN was_granted;
    END IF;
    -- Whatever the record says: a role that was renamed holds what is recorded under its old name.
    was_granted := was_granted
        OR NOT EXISTS (SELECT FROM tenancy.access_grants AS g WHERE g.role_name = target)
           AND EXISTS (SELECT FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
                        WHERE n.nspname = 'tenancy' AND a.grantee = revoke_access.role);
    PERFORM tenancy._reconcile_access(target);
    PERFORM tenancy._reconcile_operator_policies();
    RETURN was_granted;
END
$$;

COMMENT ON FUNCTION tenancy.revoke_access(regrole, text) IS
'Takes one access from a role, keeps what its other recorded accesses give and nothing else, and returns whether it had been granted. Accesses are recorded by name: of a role that was renamed since, nothing is recorded, so everything it had is taken. For the extension''s owner and superusers. Errors: 22023, 55000, 42501.';

CREATE OR REPLACE FUNCTION tenancy.publish_event(
    event_type text,
    data jsonb,
    aggregate_type text,
    aggregate_id text,
    metadata jsonb DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind record;
    who record;
    named_user text;
    named_org text;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(publish_event.event_type, 'event_type');
    PERFORM tenancy._require_id(publish_event.aggregate_type, 'aggregate_type');
    PERFORM tenancy._require_id(publish_event.aggregate_id, 'aggregate_id');
    IF jsonb_typeof(publish_event.data) IS DISTINCT FROM 'object'
       OR jsonb_typeof(coalesce(publish_event.metadata, '{}')) <> 'object' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'data must be a JSON object, metadata one or NULL',
            'Pass data as {"key": "value"}.');
    END IF;
    SELECT * INTO kind FROM tenancy._event_kind(publish_event.event_type, publish_event.data::text);
    IF kind.reserved THEN
        PERFORM tenancy._raise('PT403', 'reserved_event_type', 'Events of this type come from the extension''s own functions only',
            'Call tenancy.report_consumption() for consumption; what begins with tenancy. or huleedu.entitlements. is the extension''s own.',
            jsonb_build_object('event_type', publish_event.event_type));
    END IF;
    IF kind.topic IS NOT NULL THEN
        PERFORM tenancy._require_model(kind.topic, publish_event.data, 'data');
    END IF;
    named_user := coalesce(tenancy._named(publish_event.data, 'user_id', 'data'),
                           tenancy._named(publish_event.metadata, 'user_id', 'metadata'));
    named_org := coalesce(tenancy._named(publish_event.data, 'org_id', 'data'),
                          tenancy._named(publish_event.metadata, 'org_id', 'metadata'));
    IF publish_event.metadata ->> 'user_id' <> named_user OR publish_event.metadata ->> 'org_id' <> named_org THEN
        PERFORM tenancy._raise('PT403', 'identity_mismatch', 'data and metadata name different users or organizations',
            'Leave user_id and org_id out of metadata: they are written there.');
    END IF;
    who := tenancy._attribute(named_user, named_org);
    RETURN tenancy._publish(who.tenant_id, publish_event.event_type, publish_event.aggregate_type, publish_event.aggregate_id,
        coalesce(publish_event.metadata ->> 'source_service', 'pg_tenancy'), publish_event.data,
        coalesce(publish_event.metadata, '{}') - 'namespace' || tenancy._context(who.user_id, who.org_id, who.namespace),
        coalesce(who.correlation_id, tenancy._correlation_uuid(publish_event.metadata ->> 'correlation_id')));
END
$$;

COMMENT ON FUNCTION tenancy.publish_event(text, jsonb, text, text, jsonb) IS
'Publishes an event in the caller''s transaction and returns its id. It is attributed to the identity: a user_id or org_id in data or metadata must equal it; without an identity the service role names them there. Both are written into the envelope''s metadata, with their namespace unless it is empty. data of an event of contract H are checked. Errors: PT401 not_authenticated, no_identity; PT403 identity_mismatch, reserved_event_type (events of consumption, and whatever begins with tenancy. or huleedu.entitlements.); 22023; 55000.';

COMMENT ON FUNCTION tenancy._library_version() IS 'The version of the library (the shared object) this backend has loaded. Error: 0A000 encoding_not_utf8, as of every function of the library.';

CREATE OR REPLACE FUNCTION tenancy._lock_schema() RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    keeper oid := (SELECT e.extowner FROM pg_extension AS e WHERE e.extname = 'pg_tenancy');
    stranger name;
BEGIN
    -- A schema's owner may drop what is in it, and whoever put something there beforehand may have put it in our way.
    SELECT r.rolname INTO stranger
      FROM (SELECT n.nspowner FROM pg_namespace AS n WHERE n.nspname = 'tenancy'
            UNION SELECT p.proowner FROM pg_proc AS p WHERE p.pronamespace = 'tenancy'::regnamespace
            UNION SELECT c.relowner FROM pg_class AS c WHERE c.relnamespace = 'tenancy'::regnamespace) AS o (owner)
      JOIN pg_roles AS r ON r.oid = o.owner
     WHERE r.oid <> keeper AND NOT r.rolsuper
     LIMIT 1;
    IF FOUND THEN
        -- Every argument with its type: a function of the stranger's that has the same name fits no better.
        PERFORM tenancy._raise('42501'::text, 'schema_owned_by_another'::text,
            format('Schema tenancy, or something in it, belongs to role "%s", who could drop the ledger', stranger),
            format('Look what is in it and drop what is not of pg_tenancy; then ALTER SCHEMA tenancy OWNER TO %s;', keeper::regrole),
            jsonb_build_object('role', stranger));
    END IF;

    -- Only one session at a time installs, migrates or uninstalls; the others wait. Before install() there is no table
    -- whose lock could serve, so this is an advisory lock of the transaction.
    PERFORM pg_advisory_xact_lock(hashtext('pg_tenancy'), hashtext('schema'));
END
$$;

COMMENT ON FUNCTION tenancy._lock_schema() IS
'Makes install, migrate and uninstall wait for each other until the end of the transaction. Error: 42501 schema_owned_by_another, where the schema or something in it belongs to neither the extension''s owner nor a superuser.';

CREATE OR REPLACE FUNCTION tenancy._apply_migrations(through integer DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql
AS $$
DECLARE
    version text := tenancy._require_matching_code();
    newest integer;
    applied integer := 0;
    before_relations oid[];
    made text[];
    recorded_name text;
    migration record;
BEGIN
    IF to_regclass('tenancy.schema_migrations') IS NULL THEN
        PERFORM tenancy._create_schema_migrations();
    ELSIF NOT EXISTS (SELECT FROM tenancy.schema_migrations) THEN
        -- The table exists but this transaction's snapshot is older than its rows.
        PERFORM tenancy._raise('40001', 'installed_meanwhile', 'Another session installed the tables meanwhile',
            'Run it again in a new transaction.');
    END IF;

    SELECT max(m.number) INTO newest FROM tenancy._migrations() AS m;
    IF EXISTS (SELECT FROM tenancy.schema_migrations AS s WHERE s.number > newest) THEN
        PERFORM tenancy._raise('55000', 'schema_ahead', 'The tables are newer than this version of pg_tenancy',
            'Install the newer package and run ALTER EXTENSION pg_tenancy UPDATE.');
    END IF;
    FOR migration IN
        SELECT s.number, s.name
          FROM tenancy.schema_migrations AS s
          LEFT JOIN tenancy._migrations() AS m ON m.number = s.number
         WHERE m.sha256 IS DISTINCT FROM s.sha256
         ORDER BY s.number
    LOOP
        PERFORM tenancy._raise('55000', 'migration_changed',
            format('Migration %s (%s) is not the one that made these tables', migration.number, migration.name),
            'Install a package whose released migrations are unchanged. A database of a development version has to be made anew.',
            jsonb_build_object('number', migration.number, 'name', migration.name));
    END LOOP;

    FOR migration IN
        SELECT m.number, m.name, m.sql, m.sha256
          FROM tenancy._migrations() AS m
         WHERE NOT EXISTS (SELECT FROM tenancy.schema_migrations AS s WHERE s.number = m.number)
           AND m.number <= coalesce(_apply_migrations.through, newest)
         ORDER BY m.number
    LOOP
        SELECT coalesce(array_agg(c.oid), '{}') INTO before_relations
          FROM pg_class AS c WHERE c.relnamespace = 'tenancy'::regnamespace;
        EXECUTE migration.sql;
        SELECT coalesce(array_agg(c.relname::text ORDER BY c.oid), '{}') INTO made
          FROM pg_class AS c
         WHERE c.relnamespace = 'tenancy'::regnamespace
           AND c.relkind IN ('r', 'p', 'v', 'm')
           AND NOT c.oid = ANY (before_relations);
        PERFORM tenancy._close_relation(relation) FROM unnest(made) AS relation;
        INSERT INTO tenancy.schema_migrations (number, name, sha256, relations, extension_version)
        VALUES (migration.number, migration.name, migration.sha256, made, version);
        applied := applied + 1;
    END LOOP;

    -- Also where nothing was pending: an update may have brought functions, or moved one to another level.
    -- The lock is grant_access's: two sessions that change privileges at once fail on the same catalog row.
    LOCK TABLE tenancy.access_grants IN SHARE ROW EXCLUSIVE MODE;
    FOR recorded_name IN SELECT DISTINCT g.role_name FROM tenancy.access_grants AS g ORDER BY 1 LOOP
        -- A name is no role: what grant_access gave stands in the schema's privileges, by the role's own id, through
        -- renaming and restoring. A role that has none of it there is another of the same name.
        IF EXISTS (SELECT FROM pg_roles AS r, pg_namespace AS n, aclexplode(n.nspacl) AS a
                    WHERE r.rolname = recorded_name AND n.nspname = 'tenancy' AND a.grantee = r.oid) THEN
            PERFORM tenancy._reconcile_access(recorded_name);
        ELSIF EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = recorded_name) THEN
            RAISE WARNING 'role "%" is recorded in tenancy.access_grants but holds nothing in schema tenancy: nothing granted', recorded_name
                USING HINT = 'It may be another role of the same name. If it is to have access: SELECT tenancy.grant_access(…); else SELECT tenancy.revoke_access(…).';
        ELSE
            RAISE WARNING 'role "%" is recorded in tenancy.access_grants but does not exist: nothing granted', recorded_name
                USING HINT = 'Create the role and call tenancy.grant_access(…), or delete the row. If it was renamed, do both for the new name.';
        END IF;
    END LOOP;
    PERFORM tenancy._reconcile_operator_policies();
    PERFORM tenancy._close_row_types();
    IF applied > 0 THEN
        PERFORM tenancy._changed('schema_migrations');
    END IF;
    RETURN applied;
END
$$;

COMMENT ON FUNCTION tenancy.install() IS
'Makes the tables, views, policies and grants of pg_tenancy as ordinary objects of the extension''s owner, and returns the version. A second call changes nothing; where tables of an older version exist it brings them up to date. For the extension''s owner and superusers. Errors: 42501 (schema_owned_by_another: the schema, or something in it, belongs to neither the extension''s owner nor a superuser), 0A000 encoding_not_utf8, 55000 extension_behind, library_behind, schema_ahead, migration_changed.';

COMMENT ON FUNCTION tenancy.migrate() IS
'Brings the tables to the version this code expects, grants again what tenancy.access_grants records to the roles of these names that still hold something in schema tenancy (another role of the same name gets a warning and nothing), and returns the version. Run it after ALTER EXTENSION pg_tenancy UPDATE, and after a restored dump (which leaves USAGE on row types open). For the extension''s owner and superusers. Errors: 42501 (as install), 0A000, 55000 schema_missing, extension_behind, library_behind, schema_ahead, migration_changed.';

COMMENT ON FUNCTION tenancy.uninstall(text) IS
'Drops every table and view that install() and migrate() made, with all rows, takes back what grant_access() gave, and returns how many tables and views went. confirm: the name of this database. The functions stay. Refused (2BP01) while an object of your own depends on a table. For the extension''s owner and superusers. Errors: 22023 not_confirmed, 55000 schema_missing, 42501 (as install).';

COMMENT ON FUNCTION tenancy._sign_token(text, text) IS
'Signs claims, a JSON object, with the key of a signing profile, if that key and its algorithm are good for the issuer, and if nothing but the claims of our schema stands where the issuer''s claim_paths look. Errors: 55000 no_signing_profile, signing_key_retired, algorithm_not_allowed, master_key_missing; 22023 reserved_claim, invalid_extra, token_too_large.';

COMMENT ON FUNCTION tenancy.sweep_credits(integer) IS
'Settles up to max_pools pools in which a grant or hold has expired or a grant became effective, leaving out those that are locked and, with a warning, those that cannot be settled (balance_out_of_range, ledger_inconsistent), and returns how many. Nothing depends on it: whoever charges a pool settles it first. Errors: 55000.';

COMMENT ON FUNCTION tenancy.set_rate_limit(text, integer, interval, integer, text) IS
'Sets how fast something may be done: max_requests in each period, at most burst at once (default: max_requests). tenant_id: for that tenant; without: for every tenant that has none of its own. Within any time t no more than burst + max_requests × t / period are admitted. Of a burst that would take more than 146,000 years to come back, as many are admitted at once as come back in that time. Returns whether it changed. Errors: 22023, 55000.';

COMMENT ON FUNCTION tenancy.grant_credits(numeric, text, text, text, timestamptz, integer, text, timestamptz, numeric, numeric, timestamptz, text) IS
'Gives amount credits to an organization''s pool (org_id) or a user''s own (user_id) and returns the grant''s id. Grants burn by priority (lowest first), then expiry, then creation. expires_at: what remains then leaves the pool; NULL never. effective_at: from when on it can be spent; NULL now. rollover_max, rollover_until: at expiry up to so much of what remains becomes a new grant until then. cost_basis: what one credit cost. idempotency_key: the same grant again returns the first one''s id. namespace: NULL means the identity''s, else the empty one. Errors: PT404 organization_not_found, user_not_found; PT409 idempotency_conflict; 22023 invalid_amount, invalid_argument; 22003 amount_out_of_range, balance_out_of_range (balance, grants to come and this one are more than 999999999999.999999); 55000.';

CREATE OR REPLACE FUNCTION tenancy._close_functions() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    object record;
BEGIN
    -- The first call into the library: in a database of another encoding than UTF8 the extension is not made.
    PERFORM tenancy._library_version();
    FOR object IN
        SELECT 'FUNCTION' AS kind, p.oid::regprocedure::text AS name, a.grantee
          FROM pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
         WHERE p.pronamespace = 'tenancy'::regnamespace AND p.prokind <> 'p' AND a.grantee <> p.proowner
        UNION ALL
        SELECT 'PROCEDURE', p.oid::regprocedure::text, a.grantee
          FROM pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
         WHERE p.pronamespace = 'tenancy'::regnamespace AND p.prokind = 'p' AND a.grantee <> p.proowner
        UNION ALL
        SELECT 'TYPE', t.oid::regtype::text, a.grantee
          FROM pg_type AS t, aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) AS a
         WHERE t.typnamespace = 'tenancy'::regnamespace AND t.typelem = 0 AND a.grantee <> t.typowner
    LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM %s', object.kind, object.name,
                       CASE object.grantee WHEN 0 THEN 'PUBLIC' ELSE object.grantee::regrole::text END);
    END LOOP;
    REVOKE ALL ON SCHEMA tenancy FROM PUBLIC;
END
$$;

DO $$
BEGIN
    IF to_regclass('tenancy.schema_migrations') IS NOT NULL THEN
        PERFORM tenancy._changed('schema_migrations');
    END IF;
END
$$;
