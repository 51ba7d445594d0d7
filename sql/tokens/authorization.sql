-- Authorization codes with PKCE (RFC 7636, S256 only) and the refresh tokens they are exchanged for.

CREATE FUNCTION tenancy.start_authorization(
    user_id text,
    code_challenge text,
    state text,
    redirect_uri text,
    org_id text DEFAULT NULL,
    profile text DEFAULT 'default',
    OUT code text,
    OUT expires_at timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject record;
    code_id uuid := tenancy.uuid_v7();
    tenant text;
BEGIN
    PERFORM tenancy._require_installed();
    IF tenancy._is_pkce(coalesce(start_authorization.code_challenge, '')) IS NOT TRUE THEN
        PERFORM tenancy._raise('22023', 'invalid_code_challenge',
            'code_challenge must have 43 to 128 characters of A-Z a-z 0-9 - . _ ~',
            'Pass base64url(SHA-256(code_verifier)) without padding: RFC 7636, method S256.', '{"parameter": "code_challenge"}');
    END IF;
    PERFORM tenancy._require_value(start_authorization.state, 'state');
    IF length(start_authorization.state) NOT BETWEEN 16 AND 1024 THEN
        PERFORM tenancy._raise('22023', 'invalid_state', 'state must have 16 to 1024 characters',
            'Pass a random text that the client keeps and compares.', '{"parameter": "state"}');
    END IF;
    PERFORM tenancy._require_value(start_authorization.redirect_uri, 'redirect_uri');
    PERFORM tenancy._require_text(start_authorization.redirect_uri, 'redirect_uri', 2048);
    IF start_authorization.redirect_uri !~ '^[A-Za-z][A-Za-z0-9+.-]*:' OR strpos(start_authorization.redirect_uri, '#') > 0
       OR start_authorization.redirect_uri ~* '^(javascript|data|vbscript|blob|file|about):' OR start_authorization.redirect_uri ~ '\s'
    THEN
        PERFORM tenancy._raise('22023', 'invalid_redirect_uri', 'redirect_uri must be an absolute URI without a fragment',
            'RFC 6749 §3.1.2. Check it against the client''s registered ones before.', '{"parameter": "redirect_uri"}');
    END IF;
    IF start_authorization.org_id IS NOT NULL THEN
        PERFORM tenancy._require_id(start_authorization.org_id, 'org_id');
    END IF;
    subject := tenancy._find_token_user(start_authorization.profile, start_authorization.user_id);
    PERFORM tenancy._check_token_caller(start_authorization.user_id, subject.namespace, NULL);
    PERFORM tenancy._require_sign_in('service');
    PERFORM tenancy._require_token_user(subject.id);
    tenant := tenancy._audit_tenant(subject.namespace, start_authorization.user_id, start_authorization.org_id);

    SELECT s.secret INTO start_authorization.code FROM tenancy._new_secret('code') AS s;
    start_authorization.expires_at := now() + interval '10 minutes';
    INSERT INTO tenancy.oauth_codes
        (id, code_hash, tenant_id, namespace, user_id, org_id, profile, code_challenge, state_hash, redirect_uri, expires_at)
    VALUES
        (code_id, tenancy._token_hash(start_authorization.code), tenant, subject.namespace, subject.id,
         start_authorization.org_id, start_authorization.profile, start_authorization.code_challenge,
         tenancy._token_hash(start_authorization.state), start_authorization.redirect_uri, start_authorization.expires_at);
    PERFORM tenancy._audit_token(tenant, 'generated', 'authorization_code', code_id, subject.namespace,
        start_authorization.user_id, start_authorization.org_id, NULL);
END
$$;
COMMENT ON FUNCTION tenancy.start_authorization(text, text, text, text, text, text) IS
'Gives a signed-in user an authorization code for a client that has no secret (PKCE, RFC 7636): ten minutes, single use, bound to user, organization, challenge, state and redirect_uri. code_challenge: base64url(SHA-256(code_verifier)), the only method. A role without service access can start for the authenticated user only, and not by an API key or an extension token. Errors: 22023 invalid_code_challenge, invalid_state (16 characters or more), invalid_redirect_uri; PT401, PT403 as authenticate, another_user, api_key_identity, extension_token_identity, PT404 USER_NOT_FOUND, 55000.';

CREATE FUNCTION tenancy._audit_tenant(namespace text, user_id text, org_id text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN coalesce(
        (SELECT o.tenant_id FROM tenancy.organizations AS o
          WHERE o.namespace = _audit_tenant.namespace AND o.external_id = _audit_tenant.org_id),
        tenancy._tenant_name(_audit_tenant.namespace, 'user::' || _audit_tenant.user_id));
END
$$;
COMMENT ON FUNCTION tenancy._audit_tenant(text, text, text) IS
'The tenant a row is filed under: the organization''s where it is registered, else the user''s own.';

CREATE FUNCTION tenancy._issue_pair(
    family_id uuid, profile text, namespace text, user_id text, org_id text, tenant text, replaces uuid, ends_at timestamptz,
    OUT access_token text, OUT refresh_token text, OUT expires_at timestamptz
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    minted record;
    refresh_id uuid := tenancy.uuid_v7();
    -- 30 days, and not beyond the family's end.
    lifetime integer := least(2592000, greatest(1, ceil(extract(epoch FROM _issue_pair.ends_at - clock_timestamp()))));
BEGIN
    minted := tenancy._mint_token(_issue_pair.profile, _issue_pair.namespace, 'access', 86400, _issue_pair.user_id,
        _issue_pair.org_id, NULL, '{}', false, tenancy.uuid_v7(), _issue_pair.family_id::text, NULL);
    _issue_pair.access_token := minted.token;
    _issue_pair.expires_at := minted.expires_at;
    minted := tenancy._mint_token(_issue_pair.profile, _issue_pair.namespace, 'refresh', lifetime, _issue_pair.user_id,
        _issue_pair.org_id, NULL, '{}', false, refresh_id, _issue_pair.family_id::text, NULL);
    _issue_pair.refresh_token := minted.token;
    -- The old one first: a family has one living token.
    UPDATE tenancy.refresh_tokens AS t
       SET replaced_at = clock_timestamp(), replaced_by = refresh_id
     WHERE t.id = _issue_pair.replaces;
    INSERT INTO tenancy.refresh_tokens (id, token_hash, family_id, tenant_id, expires_at)
    VALUES (refresh_id, tenancy._token_hash(minted.token), _issue_pair.family_id, _issue_pair.tenant, minted.expires_at);
    UPDATE tenancy.token_families AS f
       SET expires_at = minted.expires_at, updated_at = now()
     WHERE f.id = _issue_pair.family_id;
END
$$;
COMMENT ON FUNCTION tenancy._issue_pair(uuid, text, text, text, text, text, uuid, timestamptz) IS
'Mints an access and a refresh token of a family and stores the latter''s hash, in the place of the token it replaces (NULL: the first). ends_at: the family''s end, which no refresh token outlives. The caller holds the family''s row lock.';

CREATE FUNCTION tenancy._revoke_family(family_id uuid, reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    revoked record;
BEGIN
    UPDATE tenancy.token_families AS f
       SET revoked_at = now(), revoked_reason = _revoke_family.reason, updated_at = now()
     WHERE f.id = _revoke_family.family_id AND f.revoked_at IS NULL
    RETURNING f.tenant_id, f.namespace, f.user_id, f.org_id INTO revoked;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- The access tokens it gave, too, and what those gave in turn: they live a day at most.
    PERFORM tenancy._revoke_ours('session', _revoke_family.family_id::text, now() + interval '1 day');
    PERFORM tenancy._audit_token(revoked.tenant_id, 'revoked', 'refresh_token', _revoke_family.family_id,
        revoked.namespace, (SELECT u.external_id FROM tenancy.users AS u WHERE u.id = revoked.user_id), revoked.org_id,
        _revoke_family.reason);
    RETURN true;
END
$$;
COMMENT ON FUNCTION tenancy._revoke_family(uuid, text) IS
'Revokes a family of refresh tokens and the access tokens it gave (by their session); false where it was revoked before.';

CREATE FUNCTION tenancy.complete_authorization(
    code text,
    code_verifier text,
    state text,
    redirect_uri text,
    OUT access_token text,
    OUT refresh_token text,
    OUT expires_at timestamptz,
    OUT status text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known record;
    reason text;
    family uuid := tenancy.uuid_v7();
    pair record;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_value(complete_authorization.code, 'code');
    PERFORM tenancy._require_value(complete_authorization.code_verifier, 'code_verifier');
    PERFORM tenancy._require_value(complete_authorization.state, 'state');
    PERFORM tenancy._require_value(complete_authorization.redirect_uri, 'redirect_uri');
    -- One answer for everything that is wrong with it; the audit log tells them apart. Nothing is raised: that would
    -- undo what a misuse must leave behind.
    complete_authorization.status := 'invalid_grant';

    SELECT c.*, u.external_id, p.issuer, p.refresh_max_age INTO known
      FROM tenancy.oauth_codes AS c
      JOIN tenancy.users AS u ON u.id = c.user_id
      JOIN tenancy.signing_profiles AS p ON p.name = c.profile
     WHERE c.code_hash = tenancy._token_hash(complete_authorization.code)
       FOR UPDATE OF c;
    IF NOT FOUND THEN
        PERFORM tenancy._audit_token(NULL, 'refused', 'authorization_code', NULL, NULL, NULL, NULL, 'unknown_code');
        RETURN;
    END IF;
    reason := CASE
        WHEN known.used_at IS NOT NULL THEN 'code_reused'
        WHEN known.expires_at <= clock_timestamp() THEN 'expired_code'
        WHEN NOT tenancy._verifier_matches(known.code_challenge, complete_authorization.code_verifier) THEN 'wrong_verifier'
        WHEN known.state_hash <> tenancy._token_hash(complete_authorization.state) THEN 'wrong_state'
        WHEN known.redirect_uri <> complete_authorization.redirect_uri COLLATE "C" THEN 'foreign_redirect'
        WHEN tenancy._is_revoked(NULL, NULL, known.namespace, known.external_id, known.created_at) THEN 'user_revoked'
    END;
    IF reason = 'code_reused' THEN
        -- RFC 6749 §4.1.2: whoever came first may have been the thief.
        PERFORM FROM tenancy.token_families AS f WHERE f.id = known.family_id FOR UPDATE;
        PERFORM tenancy._revoke_family(known.family_id, 'code_reused');
    ELSE
        -- Presented is used: a wrong guess has no second try.
        UPDATE tenancy.oauth_codes AS c SET used_at = now() WHERE c.id = known.id;
    END IF;
    IF reason IS NOT NULL THEN
        PERFORM tenancy._audit_token(known.tenant_id, 'refused', 'authorization_code', known.id, known.namespace,
            known.external_id, known.org_id, reason);
        RETURN;
    END IF;

    INSERT INTO tenancy.token_families (id, tenant_id, namespace, user_id, org_id, profile, issuer, expires_at)
    VALUES (family, known.tenant_id, known.namespace, known.user_id, known.org_id, known.profile, known.issuer, now());
    UPDATE tenancy.oauth_codes AS c SET family_id = family WHERE c.id = known.id;
    pair := tenancy._issue_pair(family, known.profile, known.namespace, known.external_id, known.org_id, known.tenant_id, NULL,
        now() + known.refresh_max_age);
    complete_authorization.access_token := pair.access_token;
    complete_authorization.refresh_token := pair.refresh_token;
    complete_authorization.expires_at := pair.expires_at;
    complete_authorization.status := 'issued';
    PERFORM tenancy._audit_token(known.tenant_id, 'generated', 'refresh_token', family, known.namespace,
        known.external_id, known.org_id, NULL);
END
$$;
COMMENT ON FUNCTION tenancy.complete_authorization(text, text, text, text) IS
'Exchanges an authorization code for an access token (24 hours) and a refresh token (30 days). status: issued, or invalid_grant (RFC 6749 §5.2) with NULL tokens for a code that is unknown, used, expired, or presented with another verifier, state or redirect_uri; which it was stands in token_audit_logs. Presenting a code uses it up; presenting a used one revokes what the first use gave. Raises nothing for these, so commit in either case. A provider''s session that is revoked between start and completion does not stop it: a code is bound to the user and to no session, so call revoke_user, which does. expires_at: the access token''s. Errors: 22023 for NULL, 55000 (profile_moved: the code''s signing profile is in another namespace by now).';

CREATE FUNCTION tenancy.refresh_access_token(
    refresh_token text,
    OUT status text,
    OUT access_token text,
    OUT new_refresh_token text,
    OUT expires_at timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    presented record;
    family record;
    minted record;
    reason text;
BEGIN
    PERFORM tenancy._require_installed();
    SELECT t.id, t.family_id INTO presented
      FROM tenancy.refresh_tokens AS t
     WHERE t.token_hash = tenancy._token_hash(coalesce(refresh_access_token.refresh_token, ''));
    IF NOT FOUND THEN
        refresh_access_token.status := 'invalid';
        PERFORM tenancy._audit_token(NULL, 'refused', 'refresh_token', NULL, NULL, NULL, NULL, 'unknown_token');
        RETURN;
    END IF;
    -- The family's row is the lock: of many sessions with one token, one exchanges it and the others see that it did.
    SELECT f.*, u.external_id, f.created_at + p.refresh_max_age AS ends_at INTO family
      FROM tenancy.token_families AS f
      JOIN tenancy.users AS u ON u.id = f.user_id
      JOIN tenancy.signing_profiles AS p ON p.name = f.profile
     WHERE f.id = presented.family_id
       FOR UPDATE OF f;
    SELECT t.id, t.expires_at, t.created_at, t.replaced_at, child.id AS child_id, child.replaced_at AS child_replaced_at
      INTO presented
      FROM tenancy.refresh_tokens AS t
      LEFT JOIN tenancy.refresh_tokens AS child ON child.id = t.replaced_by
     WHERE t.id = presented.id;

    IF family.revoked_at IS NOT NULL
       OR tenancy._is_revoked(family.issuer, family.id::text, family.namespace, family.external_id, presented.created_at) THEN
        refresh_access_token.status := 'revoked';
        reason := 'revoked';
    ELSIF presented.replaced_at IS NOT NULL THEN
        -- Ten seconds for the parent of the living token: two tabs of one client, or an answer that was lost. It gets
        -- an access token and no refresh token: there is one living token, and another session has it.
        IF presented.replaced_at > clock_timestamp() - interval '10 seconds'
           AND presented.child_id IS NOT NULL AND presented.child_replaced_at IS NULL THEN
            refresh_access_token.status := 'grace';
            minted := tenancy._mint_token(family.profile, family.namespace, 'access', 86400, family.external_id, family.org_id,
                NULL, '{}', false, tenancy.uuid_v7(), family.id::text, NULL);
            refresh_access_token.access_token := minted.token;
            refresh_access_token.expires_at := minted.expires_at;
        ELSE
            refresh_access_token.status := 'reused';
            reason := 'reused';
            PERFORM tenancy._revoke_family(family.id, 'reused');
        END IF;
    ELSIF presented.expires_at <= clock_timestamp() OR family.ends_at <= clock_timestamp() THEN
        refresh_access_token.status := 'expired';
        reason := CASE WHEN family.ends_at <= clock_timestamp() THEN 'family_expired' ELSE 'expired' END;
    ELSE
        refresh_access_token.status := 'refreshed';
        SELECT p.access_token, p.refresh_token, p.expires_at
          INTO refresh_access_token.access_token, refresh_access_token.new_refresh_token, refresh_access_token.expires_at
          FROM tenancy._issue_pair(family.id, family.profile, family.namespace, family.external_id, family.org_id,
                                   family.tenant_id, presented.id, family.ends_at) AS p;
    END IF;
    PERFORM tenancy._audit_token(family.tenant_id, CASE WHEN reason IS NULL THEN 'refreshed' ELSE 'refused' END,
        'refresh_token', presented.id, family.namespace, family.external_id, family.org_id,
        coalesce(reason, nullif(refresh_access_token.status, 'refreshed')));
END
$$;
COMMENT ON FUNCTION tenancy.refresh_access_token(text) IS
'Exchanges a refresh token for a new access token (24 hours) and a new refresh token (30 days, and never beyond the signing profile''s refresh_max_age after signing in); organization claims are resolved anew. status: refreshed; grace (the token was exchanged within the last ten seconds and its successor is still unused: an access token, no refresh token); reused (it was exchanged before: the whole family and its access tokens are revoked from this commit on); expired; revoked; invalid (unknown or altered). Never raises for these, so commit in every case. expires_at: the access token''s. Error: 55000 (profile_moved: its signing profile is in another namespace by now).';

CREATE FUNCTION tenancy.revoke_refresh_token(refresh_token text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    family uuid;
BEGIN
    PERFORM tenancy._require_installed();
    SELECT t.family_id INTO family
      FROM tenancy.refresh_tokens AS t
     WHERE t.token_hash = tenancy._token_hash(coalesce(revoke_refresh_token.refresh_token, ''));
    RETURN FOUND AND tenancy._revoke_family(family, 'signed_out');
END
$$;
COMMENT ON FUNCTION tenancy.revoke_refresh_token(text) IS
'Signs out (RFC 7009): revokes the family of a refresh token, any of its tokens will do, and the access tokens it gave, with what those were issued under any signing profile; false where there was nothing to revoke. Error: 55000.';
