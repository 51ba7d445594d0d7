-- The rules of the audit. An id is a promise: it stands in exemptions, in CI and in docs, and is never reused.
-- The numbers are those of the ways isolation breaks, docs/explanation/threat-model.md.

CREATE FUNCTION tenancy.audit_rules()
RETURNS TABLE (rule text, severity text, title text, threats integer[])
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
VALUES
    ('unprotected_table', 'error', 'A table that is not protected, in a schema that has protected tables or is guarded, or that has our policies and no record', ARRAY[40]),
    ('rls_disabled', 'error', 'Row-level security is off on a protected table', ARRAY[25, 26]),
    ('force_missing', 'error', 'Row-level security does not bind the owner of a protected table', ARRAY[26]),
    ('floor_missing', 'error', 'The tenant floor of a protected table is gone or changed', ARRAY[25, 39]),
    ('access_policy_changed', 'warning', 'The access policy of a protected table is gone or changed', ARRAY[30, 39]),
    ('operator_policy_changed', 'warning', 'The operator''s policy of a protected table is gone or changed', ARRAY[39]),
    ('role_outside_floor', 'warning', 'A role was granted a table whose policies do not name it', ARRAY[39]),
    ('tenant_column_missing', 'error', 'The tenant column of a protected table is gone', ARRAY[40]),
    ('tenant_nullable', 'error', 'Rows of a protected table may belong to no tenant', ARRAY[9, 12]),
    ('tenant_default_missing', 'warning', 'The tenant column has no default from the identity', ARRAY[6]),
    ('tenant_index_missing', 'warning', 'No index of a protected table leads with the tenant', ARRAY[43]),
    ('dangerous_grant', 'error', 'TRUNCATE, REFERENCES or TRIGGER on a protected table', ARRAY[15, 41]),
    ('protected_table_gone', 'warning', 'A recorded table no longer exists; made again, it is not protected', ARRAY[40]),
    ('guard_not_armed', 'warning', 'A guarded schema is gone, or its guard came with a restored database and waits', ARRAY[40]),
    ('key_without_tenant', 'warning', 'A unique key over everybody''s rows', ARRAY[9, 10]),
    ('foreign_key_without_tenant', 'error', 'A foreign key that can point at another tenant''s row', ARRAY[12, 13, 14]),
    ('permissive_policy', 'warning', 'Another permissive policy on a protected table', ARRAY[39]),
    ('policy_reads_setting', 'error', 'A policy, or a function it calls, believes a setting that any client can write', ARRAY[1, 2, 6]),
    ('policy_immutable_function', 'error', 'A policy calls an IMMUTABLE function: a kept plan serves the first tenant to all', ARRAY[7]),
    ('policy_volatile_function', 'warning', 'A policy calls a VOLATILE function: no index, no pruning', ARRAY[7]),
    ('policy_subquery', 'warning', 'A policy with a sub-query: slow, and open to races', ARRAY[35]),
    ('policy_or', 'warning', 'A policy with OR or CASE: no index', ARRAY[35, 39]),
    ('view_runs_as_owner', 'warning', 'A view over a protected table runs with its owner''s rights', ARRAY[23]),
    ('materialized_view', 'error', 'A materialized view over a protected table holds every tenant''s rows', ARRAY[24]),
    ('definer_search_path', 'error', 'A SECURITY DEFINER function without a pinned search_path', ARRAY[28, 44]),
    ('definer_bypasses_policies', 'error', 'A SECURITY DEFINER function for applications reads a protected table as somebody whom no policy binds', ARRAY[27, 28]),
    ('leakproof_function', 'warning', 'A function of yours is declared LEAKPROOF: it runs before the policies', ARRAY[17]),
    ('bypassing_role', 'error', 'A role that uses protected tables is bound by no policy, can become one that is not, or has a right that goes round policies', ARRAY[27]),
    ('application_owns_table', 'error', 'A role with application access has the rights of a protected table''s owner', ARRAY[26, 27]),
    ('application_is_operator', 'error', 'A role with application access has the rights of a table''s operator role', ARRAY[27]),
    ('published_table', 'warning', 'A publication sends a protected table''s rows without policies', ARRAY[37]),
    ('foreign_table', 'error', 'A foreign table beside protected ones: the remote server knows no identity', ARRAY[38]),
    ('before_trigger', 'warning', 'A BEFORE trigger on a protected table can change a row''s tenant', ARRAY[31]),
    ('after_trigger', 'info', 'A trigger on a protected table can copy rows out', ARRAY[32]),
    ('rewrite_rule', 'warning', 'A rule on a protected table can copy or redirect rows', ARRAY[32]),
    ('sequence_gaps', 'info', 'A sequence shared by all tenants tells how much the others write', ARRAY[22]),
    ('advisory_lock', 'info', 'A function takes advisory locks: keys of two tenants may collide', ARRAY[34]),
    ('writable_schema', 'warning', 'Somebody can create objects in a schema that others'' names resolve in', ARRAY[44]),
    ('temporary_tables', 'info', 'Everybody may make temporary tables, which outlive the identity', ARRAY[5]),
    ('server_version', 'error', 'The server has a published hole in row-level security', ARRAY[8, 11, 20, 29])
$$;
COMMENT ON FUNCTION tenancy.audit_rules() IS
    'The rules of tenancy.audit_isolation: id, usual severity (error, warning, info), title, and the threats they answer to, numbered as in docs/explanation/threat-model.md.';

CREATE FUNCTION tenancy.exempt(object text, rule text, reason text, expires_at timestamptz DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_text(tenancy._require_value(exempt.object, 'object'), 'object', 1000);
    PERFORM tenancy._require_text(tenancy._require_value(exempt.reason, 'reason'), 'reason', 1000);
    PERFORM tenancy._require_rule(exempt.rule);
    IF exempt.expires_at <= now() THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', 'expires_at lies in the past',
            'Pass a time to come, or NULL for an exemption without end.', jsonb_build_object('parameter', 'expires_at'));
    END IF;
    IF NOT EXISTS (SELECT FROM tenancy._audit_findings() f WHERE f.object = exempt.object AND f.rule = exempt.rule) THEN
        RAISE NOTICE 'at present there is no finding % on %', exempt.rule, exempt.object
            USING HINT = 'The object is written as tenancy.audit_isolation() writes it.';
    END IF;
    UPDATE tenancy.isolation_exemptions e
       SET reason = exempt.reason, expires_at = exempt.expires_at, exempted_by = session_user, updated_at = now()
     WHERE e.object = exempt.object AND e.rule = exempt.rule;
    IF NOT FOUND THEN
        INSERT INTO tenancy.isolation_exemptions AS e (object, rule, reason, expires_at, exempted_by)
        VALUES (exempt.object, exempt.rule, exempt.reason, exempt.expires_at, session_user)
        ON CONFLICT ON CONSTRAINT isolation_exemptions_pkey DO NOTHING;
    END IF;
    RETURN true;
END;
$$;
COMMENT ON FUNCTION tenancy.exempt(text, text, text, timestamptz) IS
$$Waives one finding of tenancy.audit_isolation: the object as the audit writes it, the rule's id, a reason, and optionally an end date, after which it is a finding again. Calling it again replaces reason and date. Says by NOTICE where there is no such finding now.
Errors: 22023 invalid_argument for an unknown rule, an empty reason, a date in the past.$$;

CREATE FUNCTION tenancy.unexempt(object text, rule text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    PERFORM tenancy._require_rule(unexempt.rule);
    DELETE FROM tenancy.isolation_exemptions e WHERE e.object = unexempt.object AND e.rule = unexempt.rule;
    RETURN FOUND;
END;
$$;
COMMENT ON FUNCTION tenancy.unexempt(text, text) IS
    'Takes back what tenancy.exempt waived; false where nothing was. Errors: 22023 invalid_argument for an unknown rule.';

CREATE FUNCTION tenancy._require_rule(rule text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM tenancy.audit_rules() r WHERE r.rule = _require_rule.rule) THEN
        PERFORM tenancy._raise('22023', 'invalid_argument', format('there is no rule %s', coalesce(_require_rule.rule, 'NULL')),
            'SELECT rule, title FROM tenancy.audit_rules();', jsonb_build_object('parameter', 'rule'));
    END IF;
END;
$$;
COMMENT ON FUNCTION tenancy._require_rule(text) IS 'Internal: 22023 for a rule the audit does not know.';
