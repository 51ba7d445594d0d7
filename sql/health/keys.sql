-- Health: the issuers' keys, and what is sealed under the master key.

CREATE FUNCTION tenancy._health_issuer_keys()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    soon constant interval := '14 days';
BEGIN
    IF to_regclass('tenancy.issuer_keys') IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH covered AS (
        SELECT i.issuer,
               bool_or(k.kid IS NOT NULL AND coalesce(k.not_before, '-infinity') <= now()) AS has_key,
               max(coalesce(k.not_after, 'infinity')) AS until
          FROM tenancy.issuers AS i
          LEFT JOIN tenancy.issuer_keys AS k ON k.issuer = i.issuer AND k.retired_at IS NULL
                                            AND (k.not_after IS NULL OR k.not_after > now())
         GROUP BY i.issuer
    )
    SELECT 'issuer_keys'::text, CASE WHEN c.has_key THEN 'warning' ELSE 'error' END,
           CASE WHEN c.has_key THEN format('the last key of issuer "%s" ends at %s', c.issuer, c.until)
                ELSE format('issuer "%s" has no usable key: its tokens are refused', c.issuer) END,
           format('SELECT tenancy.set_jwks(%L, its current key set); or tenancy.add_secret for a shared secret', c.issuer)
      FROM covered AS c
     WHERE NOT c.has_key OR c.until < now() + soon
     ORDER BY c.issuer;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'issuer_keys'::text, 'ok'::text,
                            format('%s issuers, each with keys for %s days or more', count(*), extract(day FROM soon)), NULL::text
                       FROM tenancy.issuers;
    END IF;

    RETURN QUERY
    SELECT 'signing_keys'::text, CASE WHEN k.retired_at IS NULL AND coalesce(k.not_after, 'infinity') > now() THEN 'warning' ELSE 'error' END,
           format('profile "%s" signs with key "%s", which %s', p.name, p.key_id,
                  CASE WHEN k.retired_at IS NOT NULL THEN 'is retired: its tokens are refused here'
                       ELSE format('verifies until %s', k.not_after) END),
           format('SELECT tenancy.add_signing_profile(%L, …) with a new key id', p.name)
      FROM tenancy.signing_profiles AS p
      JOIN tenancy.issuer_keys AS k ON k.issuer = p.issuer AND k.kid = p.key_id
     WHERE k.retired_at IS NOT NULL OR k.not_after < now() + soon
     ORDER BY p.name;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'signing_keys'::text, 'ok'::text, format('%s signing profiles', count(*)), NULL::text
                       FROM tenancy.signing_profiles;
    END IF;
END
$$;

COMMENT ON FUNCTION tenancy._health_issuer_keys() IS
'Checks "issuer_keys" (an error where an issuer has no usable key, a warning where its last one ends within 14 days) and "signing_keys" (the same for what signing profiles sign with).';

CREATE FUNCTION tenancy._sealed_boxes()
RETURNS TABLE (place text, box bytea, context text)
LANGUAGE plpgsql
STABLE
AS $$
BEGIN
    RETURN QUERY SELECT format('the secret %s of issuer %s', k.kid, k.issuer), k.sealed_secret, tenancy._secret_context(k.issuer, k.kid)
                   FROM tenancy.issuer_keys AS k WHERE k.sealed_secret IS NOT NULL;
    RETURN QUERY SELECT format('the key of signing profile %s', p.name), p.sealed_key, tenancy._signing_context(p.name, p.key_id)
                   FROM tenancy.signing_profiles AS p;
END
$$;

COMMENT ON FUNCTION tenancy._sealed_boxes() IS
'What is sealed under the master key and without which nobody can log in: the issuers'' secrets and the signing keys.';

CREATE FUNCTION tenancy._health_sealed_secrets()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    sealed record;
    opened integer := 0;
    old integer := 0;
    lost text;
    hint text;
BEGIN
    IF to_regclass('tenancy.signing_profiles') IS NULL THEN
        RETURN;
    END IF;
    FOR sealed IN SELECT b.place, b.box, b.context FROM tenancy._sealed_boxes() AS b LIMIT 100 LOOP
        BEGIN
            PERFORM tenancy._unseal(sealed.box, sealed.context);
            opened := opened + 1;
            old := old + (NOT tenancy._sealed_under_current_key(sealed.box))::integer;
        EXCEPTION WHEN object_not_in_prerequisite_state THEN
            GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
            lost := coalesce(lost, sealed.place || ': ' || SQLERRM);
        END;
    END LOOP;
    RETURN QUERY SELECT 'sealed_secrets'::text,
                        CASE WHEN lost IS NOT NULL THEN 'error' WHEN old > 0 THEN 'warning' ELSE 'ok' END,
                        CASE WHEN lost IS NOT NULL THEN 'cannot be opened: ' || lost
                             WHEN old > 0 THEN format('%s of %s secrets are sealed under an older master key', old, opened)
                             ELSE format('%s secrets of issuers and signing profiles open', opened) END,
                        CASE WHEN lost IS NOT NULL THEN hint WHEN old > 0 THEN 'SELECT tenancy.rotate_master_key();' END;
END
$$;

COMMENT ON FUNCTION tenancy._health_sealed_secrets() IS
'Check "sealed_secrets": do the first 100 secrets of issuers and signing profiles open (an error where not: the master key is not theirs), and under the current key (a warning where not)?';

CREATE FUNCTION tenancy.confirm_master_key_backup(sha256 text) RETURNS boolean
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    digest text := lower(btrim(confirm_master_key_backup.sha256));
    current_digest text;
BEGIN
    PERFORM tenancy._require_installed();
    IF digest IS NULL OR digest !~ '^[0-9a-f]{64}$' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'sha256 must be 64 hexadecimal digits',
            'Pass what sha256sum says of the copy of the master key file, not of the file itself.');
    END IF;
    current_digest := tenancy._master_key_file_sha256();
    IF digest <> current_digest THEN
        PERFORM tenancy._raise('PT422', 'backup_differs', 'That is not a copy of the master key file in use',
            'Copy the file that tenancy.master_key_file names again, and run sha256sum on the copy.');
    END IF;
    PERFORM tenancy._note_action('', 'master_key_backup', NULL, jsonb_build_object('file_sha256', digest));
    RETURN true;
END
$$;

COMMENT ON FUNCTION tenancy.confirm_master_key_backup(text) IS
'Notes in tenancy.audit_log that a copy of the master key file exists elsewhere. sha256: what sha256sum says of the copy. True where it is the same as the file in use; health() warns until the file in use was confirmed. The database''s own backups do not hold the key. Errors: 22023 invalid_argument; PT422 backup_differs; 55000 where no key file can be read.';

CREATE FUNCTION tenancy._health_master_key_backup()
RETURNS TABLE (check_name text, status text, detail text, remedy text)
LANGUAGE plpgsql
STABLE
AS $$
DECLARE
    digest text;
    confirmed timestamptz;
BEGIN
    IF to_regclass('tenancy.signing_profiles') IS NULL OR NOT EXISTS (SELECT FROM tenancy._sealed_boxes()) THEN
        RETURN;
    END IF;
    BEGIN
        digest := tenancy._master_key_file_sha256();
    EXCEPTION WHEN object_not_in_prerequisite_state THEN
        -- The check "master_key" says why.
        RETURN;
    END;
    SELECT max(a.created_at) INTO confirmed
      FROM tenancy.audit_log AS a
     WHERE a.tenant_id = '' AND a.action = 'master_key_backup' AND a.detail ->> 'file_sha256' = digest;
    RETURN QUERY SELECT 'master_key_backup'::text, CASE WHEN confirmed IS NULL THEN 'warning' ELSE 'ok' END,
                        coalesce('a copy of the file was confirmed at ' || confirmed::text,
                                 'nobody has confirmed a copy of the master key file in use: without it no secret opens after a restore'),
                        CASE WHEN confirmed IS NULL
                             THEN 'Copy the file to where the database''s backups are not, then SELECT tenancy.confirm_master_key_backup(the sha256sum of the copy);' END;
END
$$;

COMMENT ON FUNCTION tenancy._health_master_key_backup() IS
'Check "master_key_backup": was a copy of the key file in use confirmed? Only where something is sealed under it.';
