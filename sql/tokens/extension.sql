-- Long-lived extension tokens: four months, at most five a user.
-- Lock order: the user's row, then the token's. The user's row makes one user's issuing and refreshing wait for each
-- other, so that two sessions cannot both take the fifth place. It is written, as it was, and not only locked: who
-- counts by a snapshot from before the other's commit fails with 40001 instead of counting too few.

CREATE FUNCTION tenancy._take_token_limit(user_id uuid, action text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    allowed integer := tenancy._token_limit(_take_token_limit.action);
    made integer;
    oldest timestamptz;
BEGIN
    SELECT count(*), min(t.created_at) INTO made, oldest
      FROM tenancy.extension_tokens AS t
     WHERE t.user_id = _take_token_limit.user_id
       AND t.created_at > now() - interval '1 hour'
       AND (t.refresh_count > 0) = (_take_token_limit.action = 'refreshed');
    IF made >= allowed THEN
        PERFORM tenancy._raise_token_limit(allowed, oldest + interval '1 hour' - now());
    END IF;
END
$$;
COMMENT ON FUNCTION tenancy._take_token_limit(uuid, text) IS
'Raises PT429 RATE_LIMIT_EXCEEDED where the user has had 5 tokens generated, or 3 refreshed, within the hour: counted rows, after the caller has written the user''s row.';

CREATE FUNCTION tenancy._take_token_limit_again(namespace text, user_id text, action text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    allowed integer := tenancy._token_limit(_take_token_limit_again.action);
    wait interval := tenancy._take_fixed_limit(
        tenancy._tenant_name(_take_token_limit_again.namespace, 'user::' || _take_token_limit_again.user_id),
        'extension_token_' || _take_token_limit_again.action, _take_token_limit_again.user_id, allowed, '1 hour');
BEGIN
    IF wait IS NOT NULL THEN
        PERFORM tenancy._raise_token_limit(allowed, wait);
    END IF;
END
$$;
COMMENT ON FUNCTION tenancy._take_token_limit_again(text, text, text) IS
'The same limit by the rate limiter, where there is shared memory: it counts tokens whose transaction was rolled back, too, for those were signed and shown all the same. Error: PT429 RATE_LIMIT_EXCEEDED.';

CREATE FUNCTION tenancy._token_limit(action text) RETURNS integer
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE _token_limit.action WHEN 'generated' THEN 5 ELSE 3 END $$;
COMMENT ON FUNCTION tenancy._token_limit(text) IS 'Extension tokens a user may have in an hour: 5 generated, 3 refreshed (contract S).';

CREATE FUNCTION tenancy._raise_token_limit(allowed integer, wait interval) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._raise('PT429', 'RATE_LIMIT_EXCEEDED', 'Rate limit exceeded',
        'Try again later: DETAIL says in how many seconds.',
        jsonb_build_object('limit', _raise_token_limit.allowed,
                           'retry_after', ceil(extract(epoch FROM _raise_token_limit.wait))));
END
$$;
COMMENT ON FUNCTION tenancy._raise_token_limit(integer, interval) IS 'Raises PT429 RATE_LIMIT_EXCEEDED.';

CREATE FUNCTION tenancy.issue_extension_token(
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
    PERFORM tenancy._require_sign_in('service');
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
        issue_extension_token.profile, subject.namespace, 'extension_long_lived', 10368000,
        issue_extension_token.user_id, issue_extension_token.org_id, counted, issue_extension_token.extra,
        coalesce(issue_extension_token.require_org, false), issue_extension_token.token_id,
        issue_extension_token.token_id::text, NULL);
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
'Issues a long-lived token for an editor extension: 120 days (claim type: extension_long_lived). Only its SHA-256 is kept; show it once. name: what the user calls it. device and address: kept sealed under the master key. The other parameters as issue_access_token. A role without service access gets none for an identity that came from an extension token. Errors: PT403 extension_token_identity, PT409 TOKEN_LIMIT_EXCEEDED (five active), PT429 RATE_LIMIT_EXCEEDED (five an hour), 40001 (above READ COMMITTED, where another session issued meanwhile), and those of issue_access_token.';

CREATE FUNCTION tenancy._seal_note(note text, what text, token_id uuid) RETURNS bytea
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF _seal_note.note IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN tenancy._seal(convert_to(_seal_note.note, 'UTF8'),
                         format('extension_tokens %s %s', _seal_note.what, _seal_note.token_id));
END
$$;
COMMENT ON FUNCTION tenancy._seal_note(text, text, uuid) IS
'Seals a device or address for its column (what) and row; the context is extension_tokens <what> <id>. NULL stays NULL.';

CREATE FUNCTION tenancy._find_extension_token(token text, otherwise text) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    checked record;
    known_id uuid;
    is_revoked boolean;
    known_end timestamptz;
    refusal text;
    cause text;
BEGIN
    IF coalesce(_find_extension_token.token, '') = '' THEN
        PERFORM tenancy._raise('PT401', 'MISSING_AUTH_HEADER', 'There is no token', 'Pass the bearer''s token, without the word Bearer.');
    END IF;
    SELECT t.id, t.revoked_at IS NOT NULL, t.expires_at INTO known_id, is_revoked, known_end
      FROM tenancy.extension_tokens AS t
     WHERE t.token_hash = tenancy._token_hash(_find_extension_token.token);
    SELECT v.valid, v.reason, v.claims INTO checked FROM tenancy.verify_token(_find_extension_token.token) AS v;
    IF NOT checked.valid THEN
        cause := CASE checked.reason WHEN 'not_issued' THEN 'unknown' ELSE checked.reason END;
        refusal := CASE checked.reason
            WHEN 'expired' THEN 'TOKEN_EXPIRED'
            WHEN 'revoked' THEN _find_extension_token.otherwise
            WHEN 'not_issued' THEN _find_extension_token.otherwise
            WHEN 'not_a_member' THEN _find_extension_token.otherwise
            WHEN 'token_type' THEN 'INVALID_TOKEN_TYPE'
            ELSE 'INVALID_TOKEN' END;
    ELSIF checked.claims ->> 'type' IS DISTINCT FROM 'extension_long_lived' THEN
        cause := 'type';
        refusal := 'INVALID_TOKEN_TYPE';
    ELSIF known_id IS NULL THEN
        cause := 'unknown';
        refusal := CASE WHEN EXISTS (
                SELECT FROM tenancy.users AS u JOIN tenancy.issuers AS i ON i.namespace = u.namespace
                 WHERE i.issuer = checked.claims ->> 'iss' AND u.external_id = checked.claims ->> 'sub')
            THEN _find_extension_token.otherwise ELSE 'USER_NOT_FOUND' END;
    ELSIF is_revoked THEN
        cause := 'revoked';
        refusal := _find_extension_token.otherwise;
    ELSIF known_end <= now() THEN
        cause := 'expired';
        refusal := 'TOKEN_EXPIRED';
    END IF;
    IF refusal IS NOT NULL THEN
        -- An error takes its transaction's rows with it: what is told apart for the operator goes to the server's log.
        RAISE LOG 'pg_tenancy: extension token refused: %, token id %', cause, coalesce(known_id::text, 'unknown');
        PERFORM tenancy._raise(
            CASE refusal WHEN 'USER_NOT_FOUND' THEN 'PT404' WHEN 'NO_ACTIVE_TOKEN' THEN 'PT404' ELSE 'PT401' END,
            refusal,
            CASE refusal
                WHEN 'TOKEN_EXPIRED' THEN 'The token has expired'
                WHEN 'INVALID_TOKEN_TYPE' THEN 'The token is of another type'
                WHEN 'USER_NOT_FOUND' THEN 'User not found'
                WHEN 'NO_ACTIVE_TOKEN' THEN 'There is no active token to refresh'
                WHEN 'TOKEN_REVOKED_OR_INVALID' THEN 'The token is revoked or was never issued'
                ELSE 'The token is invalid' END,
            'Let the user sign in and issue a new token.');
    END IF;
    RETURN known_id;
END
$$;
COMMENT ON FUNCTION tenancy._find_extension_token(text, text) IS
'The id of a live extension token. Errors, by contract S: PT401 MISSING_AUTH_HEADER, INVALID_TOKEN, TOKEN_EXPIRED, INVALID_TOKEN_TYPE; PT404 USER_NOT_FOUND; and otherwise (TOKEN_REVOKED_OR_INVALID or NO_ACTIVE_TOKEN) for one revoked or unknown. The server''s log tells these apart, by the token''s id.';

CREATE FUNCTION tenancy.validate_extension_token(
    token text,
    OUT token_id uuid,
    OUT user_id text,
    OUT org_id text,
    OUT expires_at timestamptz,
    OUT days_left integer,
    OUT expires_soon boolean,
    OUT expires_critical boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known record;
BEGIN
    PERFORM tenancy._require_installed();
    validate_extension_token.token_id :=
        tenancy._find_extension_token(validate_extension_token.token, 'TOKEN_REVOKED_OR_INVALID');
    SELECT t.tenant_id, t.namespace, u.external_id, t.org_id, t.expires_at, t.last_used_at INTO known
      FROM tenancy.extension_tokens AS t
      JOIN tenancy.users AS u ON u.id = t.user_id
     WHERE t.id = validate_extension_token.token_id;
    validate_extension_token.user_id := known.external_id;
    validate_extension_token.org_id := known.org_id;
    validate_extension_token.expires_at := known.expires_at;
    validate_extension_token.days_left := floor(extract(epoch FROM known.expires_at - now()) / 86400);
    validate_extension_token.expires_soon := known.expires_at <= now() + interval '30 days';
    validate_extension_token.expires_critical := known.expires_at <= now() + interval '7 days';

    -- No write on every call, and no waiting for whoever notes it at this moment.
    IF (known.last_used_at IS NULL OR known.last_used_at < now() - interval '1 minute') AND tenancy._may_note_use() THEN
        UPDATE tenancy.extension_tokens AS t
           SET last_used_at = now()
         WHERE t.id = (SELECT own.id FROM tenancy.extension_tokens AS own
                        WHERE own.id = validate_extension_token.token_id
                          AND (own.last_used_at IS NULL OR own.last_used_at < now() - interval '1 minute')
                          FOR NO KEY UPDATE SKIP LOCKED);
        -- Once a day is what an audit needs.
        IF FOUND AND (known.last_used_at IS NULL OR known.last_used_at < date_trunc('day', now())) THEN
            PERFORM tenancy._audit_token(known.tenant_id, 'used', 'extension_token', validate_extension_token.token_id,
                known.namespace, known.external_id, known.org_id, NULL);
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION tenancy.validate_extension_token(text) IS
'Checks a long-lived token: signature, type, and that it is neither revoked nor expired. Gives its id, user, organization and end; days_left; expires_soon (30 days or less) and expires_critical (7 days or less), for the warning headers of contract S. Notes last_used_at at most once a minute, in read-write READ COMMITTED transactions. Errors: PT401 MISSING_AUTH_HEADER, INVALID_TOKEN, TOKEN_EXPIRED, INVALID_TOKEN_TYPE, TOKEN_REVOKED_OR_INVALID; PT404 USER_NOT_FOUND; 55000.';

CREATE FUNCTION tenancy.refresh_extension_token(
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
    SELECT t.*, u.external_id INTO old
      FROM tenancy.extension_tokens AS t
      JOIN tenancy.users AS u ON u.id = t.user_id
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
    minted := tenancy._mint_token(old.profile, old.namespace, 'extension_long_lived', 10368000, old.external_id, old.org_id,
        NULL, '{}', false, refresh_extension_token.token_id, refresh_extension_token.token_id::text, NULL);
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
'Exchanges a long-lived token in its last 30 days for a new one of 120 days and revokes it, in one transaction. Organization claims are resolved anew from the directory. What the old one has issued is good for its day and not renewed. Errors: PT422 TOO_EARLY_TO_REFRESH, PT429 RATE_LIMIT_EXCEEDED (three an hour), 40001, PT404 NO_ACTIVE_TOKEN, USER_NOT_FOUND, PT401 as validate_extension_token, 55000 (profile_moved: its signing profile is in another namespace by now).';

CREATE FUNCTION tenancy._open_note(note bytea, what text, token_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF _open_note.note IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN convert_from(tenancy._unseal(_open_note.note,
                                        format('extension_tokens %s %s', _open_note.what, _open_note.token_id)), 'UTF8');
END
$$;
COMMENT ON FUNCTION tenancy._open_note(bytea, text, uuid) IS 'Opens what _seal_note sealed. NULL stays NULL.';

CREATE FUNCTION tenancy._end_extension_token(token_id uuid, reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ended_at timestamptz;
BEGIN
    UPDATE tenancy.extension_tokens AS t
       SET revoked_at = now(), revoked_reason = _end_extension_token.reason
     WHERE t.id = _end_extension_token.token_id AND t.revoked_at IS NULL
    RETURNING t.expires_at INTO ended_at;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- authenticate looks into revocations, by jti; validate_extension_token at the row.
    PERFORM tenancy._revoke_ours('token', _end_extension_token.token_id::text, ended_at);
    RETURN true;
END
$$;
COMMENT ON FUNCTION tenancy._end_extension_token(uuid, text) IS
'Revokes a token for validate_extension_token and for authenticate; false where it was revoked before.';

CREATE FUNCTION tenancy.revoke_extension_token(token_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known record;
    was_live boolean;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(revoke_extension_token.token_id, 'token_id');
    SELECT t.tenant_id, t.namespace, t.org_id, u.external_id INTO known
      FROM tenancy.extension_tokens AS t
      JOIN tenancy.users AS u ON u.id = t.user_id
     WHERE t.id = revoke_extension_token.token_id;
    IF NOT FOUND THEN
        -- Whoever has seen such a token may be sure that it is good nowhere, nor what was issued on the strength of it.
        IF tenancy._caller_has('service') THEN
            PERFORM tenancy._revoke_ours('token', revoke_extension_token.token_id::text, now() + interval '120 days');
            PERFORM tenancy._revoke_ours('session', revoke_extension_token.token_id::text, now() + interval '1 day');
        END IF;
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
    was_live := tenancy._end_extension_token(revoke_extension_token.token_id, 'revoked');
    -- It is a session of its own, and what was issued to its bearer on the strength of it lasts a day at most: also
    -- where it was refreshed before, which ends it and leaves them their day.
    PERFORM tenancy._revoke_ours('session', revoke_extension_token.token_id::text, now() + interval '1 day');
    IF was_live THEN
        PERFORM tenancy._audit_token(known.tenant_id, 'revoked', 'extension_token', revoke_extension_token.token_id,
            known.namespace, known.external_id, known.org_id, 'revoked');
    END IF;
    RETURN was_live;
END
$$;
COMMENT ON FUNCTION tenancy.revoke_extension_token(uuid) IS
'Revokes a long-lived token, for validate_extension_token and authenticate alike, and the access and dashboard tokens issued to its bearer, whatever their signing profile and also where it was refreshed before; true where it was live. A role without service access can revoke the authenticated user''s own only; any other token is answered false. For a token without a row (its transaction was rolled back) service access records the revocation all the same, and is answered false. Errors: 22023, PT403 api_key_identity (an API key revokes none), 55000.';

CREATE FUNCTION tenancy.list_extension_tokens(user_id text, profile text DEFAULT 'default')
RETURNS TABLE (token_id uuid, name text, device text, org_id text, created_at timestamptz, last_used_at timestamptz,
               expires_at timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject record;
BEGIN
    PERFORM tenancy._require_installed();
    subject := tenancy._find_token_user(list_extension_tokens.profile, list_extension_tokens.user_id);
    PERFORM tenancy._check_token_caller(list_extension_tokens.user_id, subject.namespace, NULL);
    RETURN QUERY
        SELECT t.id, t.name, tenancy._open_note(t.sealed_device, 'device', t.id), t.org_id, t.created_at, t.last_used_at,
               t.expires_at
          FROM tenancy.extension_tokens AS t
         WHERE t.user_id = subject.id AND t.revoked_at IS NULL AND t.expires_at > now()
         ORDER BY t.id;
END
$$;
COMMENT ON FUNCTION tenancy.list_extension_tokens(text, text) IS
'A user''s live long-lived tokens, to show and to revoke them by token_id; profile says in whose namespace the user is. A role without service access lists the authenticated user''s own only, and nothing by an API key. Errors: PT401, PT403 another_user, api_key_identity, 22023, 55000.';
