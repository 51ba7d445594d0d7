-- Rotation of the master key. The file's first line is the current key; the lines after it still open what they sealed.

CREATE FUNCTION tenancy._reseal_identity() RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    resealed bigint;
BEGIN
    UPDATE tenancy.issuer_keys AS k
       SET sealed_secret = tenancy._seal(
               tenancy._unseal(k.sealed_secret, tenancy._secret_context(k.issuer, k.kid)),
               tenancy._secret_context(k.issuer, k.kid))
     WHERE k.sealed_secret IS NOT NULL AND NOT tenancy._sealed_under_current_key(k.sealed_secret);
    GET DIAGNOSTICS resealed = ROW_COUNT;
    RETURN resealed;
END
$$;
COMMENT ON FUNCTION tenancy._reseal_identity() IS
'Seals the issuers'' secrets under the current master key; gives the number of rows that were under another.';

CREATE FUNCTION tenancy.rotate_master_key() RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    resealing text;
    rows_resealed bigint;
    resealed bigint := 0;
BEGIN
    PERFORM tenancy._require_installed();
    -- Each domain that keeps sealed columns has a _reseal_ function of its own.
    FOR resealing IN
        SELECT format('SELECT %s()', p.oid::regproc)
          FROM pg_proc AS p
          JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
          JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'pg_tenancy'
         WHERE p.pronamespace = 'tenancy'::regnamespace AND starts_with(p.proname, '_reseal_')
         ORDER BY p.proname
    LOOP
        EXECUTE resealing INTO rows_resealed;
        resealed := resealed + rows_resealed;
    END LOOP;
    RETURN resealed;
END
$$;
COMMENT ON FUNCTION tenancy.rotate_master_key() IS
'Seals every secret at rest under the current master key, the first line of tenancy.master_key_file, and gives how many were under another. To rotate: put the new key on a line before the old one, reload, call this in every database, then remove the old line. Errors: 55000 where a secret''s key is not in the file; then nothing changes.';
