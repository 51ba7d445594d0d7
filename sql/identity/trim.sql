-- Retention of what the identity writes down, in bounded batches.

CREATE FUNCTION tenancy.trim_audit(retain interval DEFAULT '730 days', max_rows integer DEFAULT 10000) RETURNS integer
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    removed integer;
    before timestamptz;
BEGIN
    PERFORM tenancy._require_installed();
    IF trim_audit.retain IS NULL OR trim_audit.retain < interval '1 day'
       OR trim_audit.max_rows IS NULL OR trim_audit.max_rows NOT BETWEEN 1 AND 1000000 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'retain must be a day or more, max_rows between 1 and 1000000',
            'The defaults are 730 days and 10000.');
    END IF;
    before := now() - least(trim_audit.retain, interval '4000 years');
    -- What health() asks for stays, however old.
    DELETE FROM tenancy.audit_log AS a
     WHERE (a.tenant_id, a.id) IN (SELECT old.tenant_id, old.id
                                     FROM tenancy.audit_log AS old
                                    WHERE old.created_at < before AND old.action <> 'master_key_backup'
                                    ORDER BY old.created_at
                                    LIMIT trim_audit.max_rows
                                      FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS removed = ROW_COUNT;
    IF removed > 0 THEN
        PERFORM tenancy._note_action('', 'trim_audit', NULL,
            jsonb_build_object('removed', removed, 'before', before));
    END IF;
    RETURN removed;
END
$$;

COMMENT ON FUNCTION tenancy.trim_audit(interval, integer) IS
'Removes up to max_rows entries of tenancy.audit_log older than retain, the oldest first, and notes that it did. Returns how many: call it again until it is fewer than max_rows. Confirmed backups of the master key stay. Copy out what you must keep longer first. Errors: 22023 invalid_argument; 55000.';

CREATE FUNCTION tenancy.trim_revocations(max_rows integer DEFAULT 10000) RETURNS integer
LANGUAGE plpgsql
VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    removed integer;
BEGIN
    PERFORM tenancy._require_installed();
    IF trim_revocations.max_rows IS NULL OR trim_revocations.max_rows NOT BETWEEN 1 AND 1000000 THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'max_rows must be between 1 and 1000000', 'The default is 10000.');
    END IF;
    -- A day and the longest leeway later: what is revoked has expired by itself by then, on every clock.
    DELETE FROM tenancy.revocations AS r
     WHERE (r.kind, r.scope, r.value) IN (SELECT old.kind, old.scope, old.value
                                            FROM tenancy.revocations AS old
                                           WHERE old.expires_at < now() - interval '1 day 5 minutes'
                                           ORDER BY old.expires_at
                                           LIMIT trim_revocations.max_rows
                                             FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;

COMMENT ON FUNCTION tenancy.trim_revocations(integer) IS
'Removes up to max_rows revocations whose token expired by itself more than a day ago. Revocations without an end (of sessions and users) stay. Returns how many. Errors: 22023 invalid_argument; 55000.';
