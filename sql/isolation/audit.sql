-- audit_isolation: what is not protected, and why; the same as SARIF for CI.

-- What a transaction changed can open holes in a few ways only: with `changed`, only those tables and views are looked at.
CREATE FUNCTION tenancy._audit_findings(changed oid[] DEFAULT NULL)
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text, waived_because text)
LANGUAGE plpgsql STABLE ROWS 50 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT f.rule, coalesce(f.severity, r.severity), f.object, f.finding, f.remedy, e.reason
          FROM (SELECT * FROM tenancy._audit_protection(_audit_findings.changed)
                UNION ALL SELECT * FROM tenancy._audit_undone(_audit_findings.changed)
                UNION ALL SELECT * FROM tenancy._audit_keys(_audit_findings.changed)
                UNION ALL SELECT * FROM tenancy._audit_policies(_audit_findings.changed)
                UNION ALL SELECT * FROM tenancy._audit_views(_audit_findings.changed)
                UNION ALL SELECT * FROM tenancy._audit_functions() WHERE _audit_findings.changed IS NULL
                UNION ALL SELECT * FROM tenancy._audit_roles() WHERE _audit_findings.changed IS NULL
                UNION ALL SELECT * FROM tenancy._audit_movement() WHERE _audit_findings.changed IS NULL
                UNION ALL SELECT * FROM tenancy._audit_server() WHERE _audit_findings.changed IS NULL) f
          JOIN tenancy.audit_rules() r ON r.rule = f.rule
          LEFT JOIN tenancy.isolation_exemptions e
                 ON e.object = f.object AND e.rule = f.rule AND (e.expires_at IS NULL OR e.expires_at > now())
         ORDER BY array_position(ARRAY['error', 'warning', 'info'], coalesce(f.severity, r.severity)), f.rule, f.object;
END;
$$;
COMMENT ON FUNCTION tenancy._audit_findings(oid[]) IS
    'Internal: every finding, or those on the changed tables and views, with the reason of an exemption that stands.';

CREATE FUNCTION tenancy.audit_isolation()
RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 50 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    RETURN QUERY SELECT f.rule, f.severity, f.object, f.finding, f.remedy
                   FROM tenancy._audit_findings() f
                  WHERE f.waived_because IS NULL;
END;
$$;
COMMENT ON FUNCTION tenancy.audit_isolation() IS
$$What about the isolation of tenants is not as it should be: each finding with its rule (tenancy.audit_rules() lists them), severity (error: rows of another tenant can be read or written; warning: one step away from it, or slow; info: something can be guessed), the object, and a remedy, in SQL where SQL does it. What tenancy.exempt waives is left out. No row: nothing was found.$$;

CREATE FUNCTION tenancy.audit_isolation_sarif() RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    PERFORM tenancy._require_installed();
    RETURN (
        WITH rules AS (
            SELECT r.*, row_number() OVER (ORDER BY r.rule) - 1 AS index FROM tenancy.audit_rules() r
        )
        SELECT jsonb_build_object(
            '$schema', 'https://json.schemastore.org/sarif-2.1.0.json',
            'version', '2.1.0',
            'runs', jsonb_build_array(jsonb_build_object(
                'tool', jsonb_build_object('driver', jsonb_build_object(
                    'name', 'pg_tenancy',
                    'version', tenancy._library_version(),
                    'rules', (SELECT jsonb_agg(jsonb_build_object(
                                  'id', r.rule,
                                  'shortDescription', jsonb_build_object('text', r.title),
                                  'defaultConfiguration', jsonb_build_object('level', tenancy._sarif_level(r.severity)),
                                  'properties', jsonb_build_object('threats', to_jsonb(r.threats))) ORDER BY r.index)
                                FROM rules r))),
                'results', coalesce((
                    SELECT jsonb_agg(jsonb_build_object(
                               'ruleId', f.rule,
                               'ruleIndex', r.index,
                               'level', tenancy._sarif_level(f.severity),
                               'message', jsonb_build_object('text', format('%s: %s. Remedy: %s', f.object, f.finding, f.remedy)),
                               'locations', jsonb_build_array(jsonb_build_object('logicalLocations', jsonb_build_array(
                                   jsonb_build_object('fullyQualifiedName', current_database() || '.' || f.object)))),
                               'partialFingerprints', jsonb_build_object('ruleAndObject/v1', f.rule || ':' || f.object))
                           || CASE WHEN f.waived_because IS NULL THEN '{}'
                                   ELSE jsonb_build_object('suppressions', jsonb_build_array(jsonb_build_object(
                                            'kind', 'external', 'justification', f.waived_because))) END
                           ORDER BY r.index, f.object)
                      FROM tenancy._audit_findings() f JOIN rules r ON r.rule = f.rule), '[]'))))
    );
END;
$$;
COMMENT ON FUNCTION tenancy.audit_isolation_sarif() IS
    'The findings of tenancy.audit_isolation as a SARIF 2.1.0 document, for CI; what tenancy.exempt waives is in it as suppressed, with the reason.';

CREATE FUNCTION tenancy._sarif_level(severity text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT CASE $1 WHEN 'info' THEN 'note' ELSE $1 END $$;
COMMENT ON FUNCTION tenancy._sarif_level(text) IS 'Internal: SARIF''s word for a severity.';
