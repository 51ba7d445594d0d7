-- Signing profiles: what the product's own tokens are signed with and for.

CREATE FUNCTION tenancy._signing_context(name text, key_id text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT 'signing_profiles ' || jsonb_build_array(_signing_context.name, _signing_context.key_id)::text $$;
COMMENT ON FUNCTION tenancy._signing_context(text, text) IS
'What a sealed signing key is bound to, so that it does not open in another row.';

CREATE FUNCTION tenancy.add_signing_profile(
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
            'Allow it: SELECT tenancy.add_issuer(issuer => …, profile => ''pooled'', algorithms => …);',
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

CREATE FUNCTION tenancy.jwks() RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    RETURN (
        SELECT jsonb_build_object('keys', coalesce(jsonb_agg(k.public_jwk ORDER BY k.created_at, k.kid), '[]'))
          FROM tenancy.issuer_keys AS k
         WHERE k.origin = 'signing_profile' AND k.public_jwk IS NOT NULL AND k.retired_at IS NULL);
END
$$;
COMMENT ON FUNCTION tenancy.jwks() IS
'The public keys of the signing profiles as a JWK set (RFC 7517 §5), for others to verify our tokens with; secrets (HS256) are not in it. Publish it as /.well-known/jwks.json. Error: 55000.';

CREATE FUNCTION tenancy._reseal_tokens() RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    resealed bigint;
    more bigint;
BEGIN
    UPDATE tenancy.signing_profiles AS p
       SET sealed_key = tenancy._seal(tenancy._unseal(p.sealed_key, tenancy._signing_context(p.name, p.key_id)),
                                      tenancy._signing_context(p.name, p.key_id))
     WHERE NOT tenancy._sealed_under_current_key(p.sealed_key);
    GET DIAGNOSTICS resealed = ROW_COUNT;
    UPDATE tenancy.extension_tokens AS t
       SET sealed_device = tenancy._seal_note(tenancy._open_note(t.sealed_device, 'device', t.id), 'device', t.id),
           sealed_address = tenancy._seal_note(tenancy._open_note(t.sealed_address, 'address', t.id), 'address', t.id)
     WHERE NOT tenancy._sealed_under_current_key(t.sealed_device)
        OR NOT tenancy._sealed_under_current_key(t.sealed_address);
    GET DIAGNOSTICS more = ROW_COUNT;
    RETURN resealed + more;
END
$$;
COMMENT ON FUNCTION tenancy._reseal_tokens() IS
'Seals signing keys, devices and addresses under the current master key; gives the number of rows that were under another.';
