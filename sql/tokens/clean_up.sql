-- Clean-up, in batches that one can run beside everything else.

CREATE FUNCTION tenancy.clean_up_tokens(
    max_rows integer DEFAULT 1000,
    keep_audit interval DEFAULT '180 days'
) RETURNS TABLE (kind text, removed bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    families uuid[];
BEGIN
    PERFORM tenancy._require_installed();
    IF clean_up_tokens.max_rows IS NULL OR clean_up_tokens.max_rows NOT BETWEEN 1 AND 100000
       OR clean_up_tokens.keep_audit IS NULL OR clean_up_tokens.keep_audit < interval '1 day' THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'max_rows must be 1 to 100000 and keep_audit a day or more',
            'The defaults are 1000 rows of each kind and 180 days.');
    END IF;

    -- A day longer than they live: a code or token that comes again shortly after its end is still known as reused.
    -- Rows that a session works on at this moment are left for the next run.
    kind := 'oauth_codes';
    DELETE FROM tenancy.oauth_codes AS c
     WHERE c.id IN (SELECT own.id FROM tenancy.oauth_codes AS own
                     WHERE own.expires_at < now() - interval '1 day'
                     ORDER BY own.expires_at LIMIT clean_up_tokens.max_rows FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN NEXT;

    kind := 'token_families';
    SELECT coalesce(array_agg(ended.id), '{}') INTO families
      FROM (SELECT f.id FROM tenancy.token_families AS f
             WHERE f.expires_at < now() - interval '1 day'
             ORDER BY f.expires_at LIMIT clean_up_tokens.max_rows FOR UPDATE SKIP LOCKED) AS ended;
    DELETE FROM tenancy.refresh_tokens AS t WHERE t.family_id = ANY (families);
    DELETE FROM tenancy.token_families AS f WHERE f.id = ANY (families);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN NEXT;

    -- Ancestors in families that live on: reuse is known by them for as long as the token itself would have lived.
    kind := 'refresh_tokens';
    DELETE FROM tenancy.refresh_tokens AS t
     WHERE t.id IN (SELECT own.id FROM tenancy.refresh_tokens AS own
                     WHERE own.replaced_at IS NOT NULL AND own.expires_at < now() - interval '1 day'
                     LIMIT clean_up_tokens.max_rows FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN NEXT;

    -- A day at least, for the limits count rows of the last hour.
    kind := 'extension_tokens';
    DELETE FROM tenancy.extension_tokens AS t
     WHERE t.id IN (SELECT own.id FROM tenancy.extension_tokens AS own
                     WHERE own.expires_at < now() - interval '1 day' OR own.revoked_at < now() - interval '30 days'
                     LIMIT clean_up_tokens.max_rows FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN NEXT;

    kind := 'api_keys';
    DELETE FROM tenancy.api_keys AS k
     WHERE k.id IN (SELECT own.id FROM tenancy.api_keys AS own
                     WHERE own.valid_until < now() - interval '30 days'
                        OR own.status = 'revoked' AND own.updated_at < now() - interval '30 days'
                     LIMIT clean_up_tokens.max_rows FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN NEXT;

    kind := 'token_audit_logs';
    DELETE FROM tenancy.token_audit_logs AS l
     WHERE (l.tenant_id, l.id) IN (SELECT own.tenant_id, own.id FROM tenancy.token_audit_logs AS own
                                    WHERE own.created_at < now() - least(clean_up_tokens.keep_audit, interval '4000 years')
                                    ORDER BY own.created_at LIMIT clean_up_tokens.max_rows);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION tenancy.clean_up_tokens(integer, interval) IS
'Removes what nobody needs any more: codes and families a day after their end, extension tokens a day after their end or 30 days after revocation, API keys 30 days after revocation or the end of their grace, audit rows older than keep_audit. At most max_rows of each kind; gives how many went, kind by kind. Run it again, or every few minutes from pg_cron, until it gives zeros. Errors: 22023, 55000.';
