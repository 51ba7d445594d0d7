-- The statements that would bring a table to the shape of a protected one: none, when it has it.

CREATE FUNCTION tenancy._protection_statements(
    root regclass, tenant_column name, org_column name, operator_role name, composite_keys boolean)
RETURNS TABLE (step text, relation regclass, statement text)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY SELECT c.* FROM tenancy._column_statements($1, $2) c;
    IF $5 THEN
        RETURN QUERY SELECT k.* FROM tenancy._key_statements($1, $2) k;
    END IF;
    RETURN QUERY SELECT i.* FROM tenancy._index_statements($1, $2, $5) i;
    RETURN QUERY SELECT p.* FROM tenancy._policy_statements($1, $2, $3, $4) p;
    RETURN QUERY SELECT r.* FROM tenancy._revoke_statements($1, $4) r;
END;
$$;
COMMENT ON FUNCTION tenancy._protection_statements(regclass, name, name, name, boolean) IS
    'Internal: the statements that a table still lacks of what protect_table sets, in order; reads catalogs only.';

-- ALTER TABLE reaches partitions and children by itself: theirs are named only where the root has it already.
CREATE FUNCTION tenancy._column_statements(root regclass, tenant_column name)
RETURNS TABLE (step text, relation regclass, statement text)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    accessor text := tenancy._isolation_accessor($1, $2, 'tenant');
    rel      record;
    emitted  text[] := '{}';
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                    WHERE a.attrelid = $1 AND a.attname = $2 AND NOT a.attisdropped) THEN
        RETURN QUERY VALUES
            ('column', $1, format('ALTER TABLE %s ADD COLUMN %I text', tenancy._relation_name($1), $2)),
            ('default', $1, format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', tenancy._relation_name($1), $2, accessor)),
            ('not_null', $1, format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', tenancy._relation_name($1), $2));
        RETURN;
    END IF;
    FOR rel IN
        SELECT t.relation, t.depth, a.attnotnull, tenancy._relation_name(t.relation) AS name,
               pg_get_expr(d.adbin, d.adrelid) AS adefault
          FROM tenancy._isolation_tree($1) t
          JOIN pg_catalog.pg_attribute a ON a.attrelid = t.relation AND a.attname = $2
          LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         ORDER BY t.depth, t.relation
    LOOP
        IF rel.adefault IS DISTINCT FROM accessor AND 'default' <> ALL (emitted) THEN
            RETURN QUERY VALUES ('default', rel.relation,
                format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', rel.name, $2, accessor));
            emitted := emitted || CASE WHEN rel.depth = 0 THEN ARRAY['default'] ELSE '{}' END;
        END IF;
        IF NOT rel.attnotnull AND 'not_null' <> ALL (emitted) THEN
            RETURN QUERY VALUES ('not_null', rel.relation,
                format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', rel.name, $2));
            emitted := emitted || CASE WHEN rel.depth = 0 THEN ARRAY['not_null'] ELSE '{}' END;
        END IF;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION tenancy._column_statements(regclass, name) IS
    'Internal: what the tenant column still lacks: itself, its default from the identity, NOT NULL.';

-- Users' own operators (LIKE, say) are not leakproof and run after the policy: only an index that leads with the
-- tenant keeps them from a scan of everybody's rows.
CREATE FUNCTION tenancy._leads_with(relation regclass, tenant_column name) RETURNS boolean
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN (
        SELECT EXISTS (
            SELECT FROM pg_catalog.pg_index i
              JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
              JOIN pg_catalog.pg_am m ON m.oid = c.relam
              JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
             WHERE i.indrelid = $1 AND a.attname = $2
               AND m.amname = 'btree' AND i.indisvalid AND i.indpred IS NULL));
END;
$$;
COMMENT ON FUNCTION tenancy._leads_with(regclass, name) IS
    'Internal: whether a valid, complete btree index of the table begins with that column.';

CREATE FUNCTION tenancy._index_statements(root regclass, tenant_column name, composite_keys boolean)
RETURNS TABLE (step text, relation regclass, statement text)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT 'index', t.relation,
               format('CREATE INDEX ON %s (%s)', tenancy._relation_name(t.relation),
                      concat_ws(', ', quote_ident($2), (
                          SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.ord)
                            FROM pg_catalog.pg_index i
                           CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, ord)
                            JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                           WHERE i.indrelid = t.relation AND i.indisprimary AND k.ord <= 4
                             AND a.attname <> $2)))
          FROM tenancy._isolation_tree($1) t
          JOIN pg_catalog.pg_class c ON c.oid = t.relation
         WHERE NOT tenancy._leads_with(t.relation, $2)
           -- A key that is about to carry the tenant leads with it.
           AND NOT ($3 AND EXISTS (SELECT FROM tenancy._unscoped_keys(t.relation, $2) k
                                    WHERE k.relation = t.relation AND k.rewritable
                                      AND (SELECT i.indpred IS NULL FROM pg_catalog.pg_index i WHERE i.indexrelid = k.index_oid)))
           -- An index of a partitioned table has a part in each partition.
           AND NOT (c.relispartition AND t.relation <> $1)
         ORDER BY t.depth, t.relation;
END;
$$;
COMMENT ON FUNCTION tenancy._index_statements(regclass, name, boolean) IS
    'Internal: an index that leads with the tenant, for each table of the tree that has none.';

CREATE FUNCTION tenancy._policy_statements(
    root regclass, tenant_column name, org_column name, operator_role name)
RETURNS TABLE (step text, relation regclass, statement text)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
DECLARE
    rel    record;
    policy record;
BEGIN
    FOR rel IN
        SELECT t.relation, tenancy._relation_name(t.relation) AS name, c.relrowsecurity, c.relforcerowsecurity
          FROM tenancy._isolation_tree($1) t
          JOIN pg_catalog.pg_class c ON c.oid = t.relation
         ORDER BY t.depth, t.relation
    LOOP
        IF NOT rel.relrowsecurity THEN
            RETURN QUERY VALUES ('enable', rel.relation, format('ALTER TABLE ONLY %s ENABLE ROW LEVEL SECURITY', rel.name));
        END IF;
        IF NOT rel.relforcerowsecurity THEN
            RETURN QUERY VALUES ('force', rel.relation, format('ALTER TABLE ONLY %s FORCE ROW LEVEL SECURITY', rel.name));
        END IF;
        FOR policy IN
            SELECT p.step, p.policy,
                   CASE WHEN p.permissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END AS kind,
                   (SELECT string_agg(CASE r.role WHEN 'public' THEN 'PUBLIC' ELSE quote_ident(r.role) END, ', ' ORDER BY r.role)
                      FROM unnest(p.roles) AS r(role)) AS roles,
                   CASE WHEN p.expression LIKE '(%' THEN p.expression ELSE format('(%s)', p.expression) END AS expression,
                   x.oid IS NOT NULL AS present,
                   coalesce(x.polpermissive = p.permissive AND x.polcmd = '*', false) AS alterable,
                   coalesce(obj_description(x.oid, 'pg_policy'),
                            'Tenant floor made by tenancy.protect_table. Before: '
                            || jsonb_build_object('enabled', rel.relrowsecurity, 'forced', rel.relforcerowsecurity)::text) AS note
              FROM tenancy._isolation_policies($1, $2, $3, $4) p
              LEFT JOIN pg_catalog.pg_policy x ON x.polrelid = rel.relation AND x.polname = p.policy
             WHERE NOT tenancy._policy_stands(rel.relation, p.policy, p.permissive, p.roles, p.expression)
        LOOP
            IF policy.alterable THEN
                RETURN QUERY VALUES (policy.step, rel.relation, format('ALTER POLICY %I ON %s TO %s USING %s WITH CHECK %s',
                    policy.policy, rel.name, policy.roles, policy.expression, policy.expression));
                CONTINUE;
            END IF;
            IF policy.present THEN
                RETURN QUERY VALUES (policy.step, rel.relation, format('DROP POLICY %I ON %s', policy.policy, rel.name));
            END IF;
            RETURN QUERY VALUES (policy.step, rel.relation, format('CREATE POLICY %I ON %s AS %s FOR ALL TO %s USING %s WITH CHECK %s',
                policy.policy, rel.name, policy.kind, policy.roles, policy.expression, policy.expression));
            -- Only the owner can write here, so unprotect_table may believe it.
            IF policy.step = 'floor' THEN
                RETURN QUERY VALUES ('floor', rel.relation,
                    format('COMMENT ON POLICY %I ON %s IS %L', policy.policy, rel.name, policy.note));
            END IF;
        END LOOP;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION tenancy._policy_statements(regclass, name, name, name) IS
    'Internal: row-level security switched on and forced, and the policies, for each table of the tree that lacks them.';

-- TRUNCATE ignores policies; REFERENCES tells which keys exist; TRIGGER runs the grantee's code on everyone's rows.
CREATE FUNCTION tenancy._revoke_statements(root regclass, operator_role name)
RETURNS TABLE (step text, relation regclass, statement text)
LANGUAGE plpgsql STABLE ROWS 5 SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off SET standard_conforming_strings = on
AS $$
BEGIN
    RETURN QUERY
        SELECT 'revoke', g.relation,
               format('REVOKE TRUNCATE, REFERENCES, TRIGGER ON %s FROM %s CASCADE', tenancy._relation_name(g.relation),
                                 coalesce(quote_ident(r.rolname), 'PUBLIC'))
          FROM tenancy._isolation_grants($1) g
          LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee
         WHERE g.privileges && ARRAY['TRUNCATE', 'REFERENCES', 'TRIGGER']
           AND (g.grantee = 0 OR r.rolname IS DISTINCT FROM $2)
         ORDER BY g.relation, r.rolname;
END;
$$;
COMMENT ON FUNCTION tenancy._revoke_statements(regclass, name) IS
    'Internal: takes TRUNCATE, REFERENCES and TRIGGER from every role but the owner and the operator role.';
