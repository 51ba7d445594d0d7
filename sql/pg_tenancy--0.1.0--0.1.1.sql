\echo Use "ALTER EXTENSION pg_tenancy UPDATE" to load this file. \quit


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

COMMENT ON FUNCTION tenancy.start_authorization(text, text, text, text, text, text) IS
'Gives a signed-in user an authorization code for a client that has no secret (PKCE, RFC 7636): ten minutes, single use, bound to user, organization, challenge, state and redirect_uri. code_challenge: base64url(SHA-256(code_verifier)), the only method. A role without service access can start for the authenticated user only, and not by an API key. Errors: 22023 invalid_code_challenge, invalid_state (16 characters or more), invalid_redirect_uri; PT401, PT403 another_user, api_key_identity, PT404 USER_NOT_FOUND, 55000.';

COMMENT ON FUNCTION tenancy._sign_token(text, text) IS
'Signs claims, a JSON object, with the key of a signing profile, if that key and its algorithm are good for the issuer, and if nothing but the claims of our schema stands where the issuer''s claim_paths look. Errors: 55000 no_signing_profile, signing_key_retired, algorithm_not_allowed, master_key_missing; 22023 reserved_claim, invalid_extra, token_too_large.';

COMMENT ON FUNCTION tenancy.sweep_credits(integer) IS
'Settles up to max_pools pools in which a grant or hold has expired or a grant became effective, leaving out those that are locked and, with a warning, those that cannot be settled (balance_out_of_range, ledger_inconsistent), and returns how many. Nothing depends on it: whoever charges a pool settles it first. Errors: 55000.';

COMMENT ON FUNCTION tenancy.grant_credits(numeric, text, text, text, timestamptz, integer, text, timestamptz, numeric, numeric, timestamptz, text) IS
'Gives amount credits to an organization''s pool (org_id) or a user''s own (user_id) and returns the grant''s id. Grants burn by priority (lowest first), then expiry, then creation. expires_at: what remains then leaves the pool; NULL never. effective_at: from when on it can be spent; NULL now. rollover_max, rollover_until: at expiry up to so much of what remains becomes a new grant until then. cost_basis: what one credit cost. idempotency_key: the same grant again returns the first one''s id. namespace: NULL means the identity''s, else the empty one. Errors: PT404 organization_not_found, user_not_found; PT409 idempotency_conflict; 22023 invalid_amount, invalid_argument; 22003 amount_out_of_range, balance_out_of_range (balance, grants to come and this one are more than 999999999999.999999); 55000.';

DO $$
BEGIN
    IF to_regclass('tenancy.schema_migrations') IS NOT NULL THEN
        PERFORM tenancy._changed('schema_migrations');
    END IF;
END
$$;
