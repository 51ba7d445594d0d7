-- Revocation: tokens that still verify and are refused all the same, in every session, from the commit on.

CREATE FUNCTION tenancy._revoke(kind text, scope text, value text, expires_at timestamptz) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    added boolean := false;
    -- Not now(): tokens issued since this transaction began are revoked as well.
    moment timestamptz := clock_timestamp();
BEGIN
    FOR attempt IN 1 .. 2 LOOP
        -- The later moment and the later end hold; without an end it is for ever.
        UPDATE tenancy.revocations AS r
           SET revoked_at = GREATEST(r.revoked_at, moment), revoked_by = session_user,
               expires_at = CASE WHEN r.expires_at IS NULL OR _revoke.expires_at IS NULL THEN NULL
                                 ELSE GREATEST(r.expires_at, _revoke.expires_at) END
         WHERE r.kind = _revoke.kind AND r.scope = _revoke.scope AND r.value = _revoke.value;
        EXIT WHEN FOUND;
        INSERT INTO tenancy.revocations (kind, scope, value, revoked_at, expires_at)
        VALUES (_revoke.kind, _revoke.scope, _revoke.value, moment, _revoke.expires_at)
        ON CONFLICT ON CONSTRAINT revocations_pkey DO NOTHING;
        added := FOUND;
        -- Not added: another session was quicker, and its row is there to update now.
        EXIT WHEN added;
    END LOOP;
    PERFORM tenancy._changed('revocations');
    RETURN added;
END
$$;
COMMENT ON FUNCTION tenancy._revoke(text, text, text, timestamptz) IS
'Records a revocation and announces it; true where it was new.';

CREATE FUNCTION tenancy.revoke_token(issuer text, jti text, expires_at timestamptz) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_issuer(revoke_token.issuer);
    PERFORM tenancy._require_id(revoke_token.jti, 'jti');
    RETURN tenancy._revoke('token', revoke_token.issuer, revoke_token.jti, revoke_token.expires_at);
END
$$;
COMMENT ON FUNCTION tenancy.revoke_token(text, text, timestamptz) IS
'Refuses one token, by its jti (RFC 7519 §4.1.7), from the next transaction of every session on; true where it was not revoked before. expires_at: when the token expires by itself, NULL where unknown. Errors: PT404 unknown_issuer, 22023.';

CREATE FUNCTION tenancy.revoke_session(issuer text, session_id text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_issuer(revoke_session.issuer);
    PERFORM tenancy._require_id(revoke_session.session_id, 'session_id');
    RETURN tenancy._revoke('session', revoke_session.issuer, revoke_session.session_id, NULL);
END
$$;
COMMENT ON FUNCTION tenancy.revoke_session(text, text) IS
'Refuses every token of a provider''s session (sid), from the next transaction of every session on; true where it was not revoked before. Errors: PT404 unknown_issuer, 22023.';

CREATE FUNCTION tenancy.revoke_user(user_id text, namespace text DEFAULT '') RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(revoke_user.user_id, 'user_id');
    PERFORM tenancy._require_namespace(revoke_user.namespace);
    RETURN tenancy._revoke('user', revoke_user.namespace, revoke_user.user_id, NULL);
END
$$;
COMMENT ON FUNCTION tenancy.revoke_user(text, text) IS
'Refuses every token issued to a user until now, and every one without iat, from the next transaction of every session on; a token issued later is accepted. True where nothing was revoked for the user before. The user need not be registered. Errors: 22023.';
