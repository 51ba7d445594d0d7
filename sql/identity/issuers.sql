-- Issuers and their keys: who is believed. Operators write them; the rules are in src/identity/jose.

CREATE FUNCTION tenancy._require_issuer(issuer text) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(_require_issuer.issuer, 'issuer');
    IF NOT EXISTS (SELECT FROM tenancy.issuers AS i WHERE i.issuer = _require_issuer.issuer) THEN
        PERFORM tenancy._raise('PT404', 'unknown_issuer', 'Unknown issuer',
            'Add it first: SELECT tenancy.add_issuer(…).');
    END IF;
END
$$;
COMMENT ON FUNCTION tenancy._require_issuer(text) IS
'Raises PT404 unknown_issuer where the issuer is not configured, 22023 for an empty one.';

CREATE FUNCTION tenancy.add_issuer(
    issuer text,
    audiences text[],
    profile text DEFAULT 'generic',
    namespace text DEFAULT '',
    algorithms text[] DEFAULT NULL,
    leeway interval DEFAULT '0',
    token_types text[] DEFAULT NULL,
    claim_paths jsonb DEFAULT NULL,
    require_expiry boolean DEFAULT true,
    authorized_parties text[] DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    seconds numeric := extract(epoch FROM add_issuer.leeway);
    added boolean;
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_id(add_issuer.issuer, 'issuer');
    PERFORM tenancy._require_namespace(add_issuer.namespace);
    PERFORM tenancy._check_issuer(
        add_issuer.audiences, add_issuer.profile, add_issuer.algorithms, add_issuer.token_types,
        add_issuer.claim_paths::text, add_issuer.authorized_parties);
    IF seconds IS NULL OR seconds NOT BETWEEN 0 AND 300 OR seconds <> trunc(seconds) THEN
        PERFORM tenancy._raise('22023', 'invalid_leeway', 'leeway must be whole seconds from 0 to 300',
            'Clocks that are further apart than five minutes want repair, not leeway.');
    END IF;
    IF add_issuer.require_expiry IS NULL THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'require_expiry must not be NULL', 'Pass true or false.',
            '{"parameter": "require_expiry"}');
    END IF;
    -- What signs under this issuer would be read otherwise from now on, or refused.
    IF add_issuer.profile <> 'pooled'
       AND EXISTS (SELECT FROM tenancy.signing_profiles AS p WHERE p.issuer = add_issuer.issuer) THEN
        PERFORM tenancy._raise('PT409', 'issuer_not_pooled', 'A signing profile signs under this issuer: its tokens are pooled',
            'Pass profile => ''pooled''.', jsonb_build_object('issuer', add_issuer.issuer, 'profile', add_issuer.profile));
    END IF;
    IF EXISTS (SELECT FROM tenancy.signing_profiles AS p
                WHERE p.issuer = add_issuer.issuer AND NOT p.audience = ANY (add_issuer.audiences)) THEN
        PERFORM tenancy._raise('PT409', 'audience_in_use', 'A signing profile signs for an audience that is left out',
            'Name it among the audiences, or give the profile another one first: SELECT tenancy.add_signing_profile(…).',
            jsonb_build_object('issuer', add_issuer.issuer, 'audiences', add_issuer.audiences));
    END IF;

    UPDATE tenancy.issuers AS i
       SET audiences = add_issuer.audiences, profile = add_issuer.profile, namespace = add_issuer.namespace,
           algorithms = add_issuer.algorithms, leeway_seconds = seconds::integer,
           token_types = add_issuer.token_types, claim_paths = add_issuer.claim_paths,
           require_expiry = add_issuer.require_expiry, authorized_parties = add_issuer.authorized_parties,
           updated_at = now()
     WHERE i.issuer = add_issuer.issuer;
    added := NOT FOUND;
    IF added THEN
        INSERT INTO tenancy.issuers (issuer, audiences, profile, namespace, algorithms, leeway_seconds, token_types,
                                     claim_paths, require_expiry, authorized_parties)
        VALUES (add_issuer.issuer, add_issuer.audiences, add_issuer.profile, add_issuer.namespace,
                add_issuer.algorithms, seconds::integer, add_issuer.token_types, add_issuer.claim_paths,
                add_issuer.require_expiry, add_issuer.authorized_parties);
    END IF;
    PERFORM tenancy._changed('issuers');
    RETURN added;
END
$$;
COMMENT ON FUNCTION tenancy.add_issuer(text, text[], text, text, text[], interval, text[], jsonb, boolean, text[]) IS
'Believes the tokens of an issuer (RFC 7519 iss), or changes how they are read; true where it was new. audiences: a token''s aud must name one of them; an empty array is for an issuer whose tokens carry no aud (Clerk''s sessions: then name authorized_parties). profile: generic, clerk, auth0, workos, supabase or pooled. namespace: where its subjects and organizations live. algorithms: allowed ones, NULL for whatever the keys are for. leeway: clock skew, whole seconds up to 300. token_types: allowed kinds, NULL for access tokens. claim_paths: overrides, for each field a list of claim paths. authorized_parties: allowed azp values, NULL for any. Errors: 22023; PT409 issuer_not_pooled, audience_in_use (a signing profile signs under it).';

CREATE FUNCTION tenancy._insert_key(
    issuer text, kid text, algorithm text, public_jwk jsonb, sealed_secret bytea, origin text,
    not_before timestamptz, not_after timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF _insert_key.not_after <= _insert_key.not_before THEN
        PERFORM tenancy._raise('22023', 'invalid_validity', 'not_after must be later than not_before',
            'Leave one of them NULL for no limit.');
    END IF;
    INSERT INTO tenancy.issuer_keys (issuer, kid, algorithm, public_jwk, sealed_secret, origin, not_before, not_after)
    VALUES (_insert_key.issuer, _insert_key.kid, _insert_key.algorithm, _insert_key.public_jwk,
            _insert_key.sealed_secret, _insert_key.origin, _insert_key.not_before, _insert_key.not_after)
    ON CONFLICT ON CONSTRAINT issuer_keys_pkey DO NOTHING;
    IF NOT FOUND THEN
        PERFORM tenancy._raise('PT409', 'duplicate_kid', 'The issuer already has a key with this kid',
            'Give the new key a kid of its own, then retire the old one: SELECT tenancy.retire_key(…). A kid is never used twice.',
            jsonb_build_object('kid', _insert_key.kid));
    END IF;
    PERFORM tenancy._changed('issuer_keys');
END
$$;
COMMENT ON FUNCTION tenancy._insert_key(text, text, text, jsonb, bytea, text, timestamptz, timestamptz) IS
'Stores a checked key. Errors: PT409 duplicate_kid, 22023 invalid_validity.';

CREATE FUNCTION tenancy.add_key(
    issuer text, jwk jsonb, not_before timestamptz DEFAULT NULL, not_after timestamptz DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    checked record;
BEGIN
    PERFORM tenancy._require_issuer(add_key.issuer);
    SELECT k.kid, k.algorithm INTO checked FROM tenancy._check_jwk(add_key.jwk::text) AS k;
    PERFORM tenancy._insert_key(add_key.issuer, checked.kid, checked.algorithm, add_key.jwk, NULL, 'add_key',
                                add_key.not_before, add_key.not_after);
    RETURN checked.kid;
END
$$;
COMMENT ON FUNCTION tenancy.add_key(text, jsonb, timestamptz, timestamptz) IS
'Adds a public key (JWK, RFC 7517: RSA, EC P-256 or P-384, OKP Ed25519) to an issuer and gives its kid; a key without one gets its RFC 7638 thumbprint. It is used from not_before to not_after. Errors: PT404 unknown_issuer; PT409 duplicate_kid; 22023 with the reason (weak_key, private_key, …).';

CREATE FUNCTION tenancy.set_jwks(issuer text, jwks jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    checked record;
    kept text[] := '{}';
    known tenancy.issuer_keys;
BEGIN
    PERFORM tenancy._require_issuer(set_jwks.issuer);
    -- Two syncs of one issuer follow each other.
    PERFORM FROM tenancy.issuers AS i WHERE i.issuer = set_jwks.issuer FOR UPDATE;
    FOR checked IN SELECT k.kid, k.algorithm, k.jwk FROM tenancy._check_jwks(set_jwks.jwks::text) AS k LOOP
        kept := kept || checked.kid;
        SELECT * INTO known FROM tenancy.issuer_keys AS k
         WHERE k.issuer = set_jwks.issuer AND k.kid = checked.kid;
        IF known.kid IS NULL THEN
            PERFORM tenancy._insert_key(set_jwks.issuer, checked.kid, checked.algorithm, checked.jwk::jsonb, NULL,
                                        'set_jwks', NULL, NULL);
        ELSIF known.public_jwk IS DISTINCT FROM checked.jwk::jsonb
              AND tenancy._same_key(known.public_jwk::text, checked.jwk) IS NOT TRUE THEN
            PERFORM tenancy._raise('PT409', 'duplicate_kid', 'The set gives a known kid to another key',
                'A kid is never used twice: the provider must give the new key a kid of its own.',
                jsonb_build_object('kid', checked.kid));
        ELSE
            -- The same numbers, perhaps bound to an algorithm now. Gone and back again is a provider that rolled back a
            -- rotation; what an operator retired stays retired.
            UPDATE tenancy.issuer_keys AS k
               SET public_jwk = checked.jwk::jsonb, algorithm = checked.algorithm,
                   retired_at = CASE WHEN k.retired_by = 'set_jwks' THEN NULL ELSE k.retired_at END,
                   retired_by = CASE WHEN k.retired_by = 'set_jwks' THEN NULL ELSE k.retired_by END
             WHERE k.issuer = set_jwks.issuer AND k.kid = checked.kid
               AND (k.public_jwk <> checked.jwk::jsonb OR k.algorithm IS DISTINCT FROM checked.algorithm
                    OR k.retired_by = 'set_jwks');
        END IF;
    END LOOP;
    IF kept = '{}' THEN
        PERFORM tenancy._raise('22023', 'empty_jwks', 'The set holds no key',
            'A set without keys would lock everybody out. To retire a key, call tenancy.retire_key(…).');
    END IF;
    UPDATE tenancy.issuer_keys AS k
       SET retired_at = now(), retired_by = 'set_jwks'
     WHERE k.issuer = set_jwks.issuer AND k.public_jwk IS NOT NULL AND k.retired_at IS NULL
       AND k.origin <> 'signing_profile' AND k.kid <> ALL (kept);
    PERFORM tenancy._changed('issuer_keys');
    RETURN cardinality(kept);
END
$$;
COMMENT ON FUNCTION tenancy.set_jwks(text, jsonb) IS
'Replaces the public keys of an issuer by a JWK set (RFC 7517 §5) in one step: adds what is new, retires what is gone; gives the number of keys in the set. Errors: PT404 unknown_issuer; PT409 duplicate_kid where a known kid comes with another key; 22023 with the reason (empty_jwks, weak_key, …), and then nothing changes.';

CREATE FUNCTION tenancy.add_secret(issuer text, kid text, algorithm text, secret bytea) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_issuer(add_secret.issuer);
    PERFORM tenancy._require_id(add_secret.kid, 'kid');
    PERFORM tenancy._check_secret(add_secret.algorithm, add_secret.secret);
    PERFORM tenancy._insert_key(
        add_secret.issuer, add_secret.kid, add_secret.algorithm, NULL,
        tenancy._seal(add_secret.secret, tenancy._secret_context(add_secret.issuer, add_secret.kid)),
        'add_secret', NULL, NULL);
    RETURN add_secret.kid;
END
$$;
COMMENT ON FUNCTION tenancy.add_secret(text, text, text, bytea) IS
'Adds an HMAC secret (HS256, HS384 or HS512; at least as long as the hash, RFC 7518 §3.2) to an issuer, sealed under the master key, and gives its kid. Errors: PT404 unknown_issuer; PT409 duplicate_kid; 22023 weak_key, unknown_algorithm; 55000 where the master key file is missing or open to others.';

CREATE FUNCTION tenancy._secret_context(issuer text, kid text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT 'issuer_keys ' || jsonb_build_array(_secret_context.issuer, _secret_context.kid)::text $$;
COMMENT ON FUNCTION tenancy._secret_context(text, text) IS
'What a sealed secret is bound to, so that it does not open in another row.';

CREATE FUNCTION tenancy.retire_key(issuer text, kid text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    retired boolean;
BEGIN
    PERFORM tenancy._require_issuer(retire_key.issuer);
    PERFORM tenancy._require_id(retire_key.kid, 'kid');
    UPDATE tenancy.issuer_keys AS k SET retired_at = now(), retired_by = 'retire_key'
     WHERE k.issuer = retire_key.issuer AND k.kid = retire_key.kid AND k.retired_at IS NULL;
    retired := FOUND;
    -- What a set left out for now must not come back with the next one.
    UPDATE tenancy.issuer_keys AS k SET retired_by = 'retire_key'
     WHERE k.issuer = retire_key.issuer AND k.kid = retire_key.kid;
    PERFORM tenancy._changed('issuer_keys');
    RETURN retired;
END
$$;
COMMENT ON FUNCTION tenancy.retire_key(text, text) IS
'Takes a key out of use, in every session, from this transaction''s commit on; true where it was in use. Errors: PT404 unknown_issuer, 22023.';
