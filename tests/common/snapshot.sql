-- One text with everything in schema tenancy but its rows: for comparing databases (fresh, upgraded, restored).
SELECT string_agg(line, E'\n' ORDER BY line COLLATE "C")
FROM (
    SELECT format('function %s %s owner %s', p.oid::regprocedure, md5(pg_get_functiondef(p.oid)), p.proowner::regrole)
      FROM pg_proc p WHERE p.pronamespace = 'tenancy'::regnamespace AND p.prokind <> 'a'
    UNION ALL
    SELECT format('function %s grants %s to %s', p.oid::regprocedure, a.privilege_type, a.grantee::regrole)
      FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE p.pronamespace = 'tenancy'::regnamespace
    UNION ALL
    SELECT format('type %s grants %s to %s', t.oid::regtype, a.privilege_type, a.grantee::regrole)
      FROM pg_type t, aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) a
     WHERE t.typnamespace = 'tenancy'::regnamespace AND t.typelem = 0
    UNION ALL
    SELECT format('relation %s kind %s owner %s security %s %s options %s', c.oid::regclass, c.relkind, c.relowner::regrole,
                  c.relrowsecurity, c.relforcerowsecurity, c.reloptions)
      FROM pg_class c WHERE c.relnamespace = 'tenancy'::regnamespace
    UNION ALL
    SELECT format('relation %s grants %s to %s', c.oid::regclass, a.privilege_type, a.grantee::regrole)
      FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
     WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
    UNION ALL
    SELECT format('column %s.%s %s not null %s default %s grants %s comment %s', c.oid::regclass, a.attname,
                  format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
                  (SELECT array_agg(i::text ORDER BY i::text COLLATE "C") FROM unnest(a.attacl) i),
                  col_description(c.oid, a.attnum))
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
    UNION ALL
    -- Not NOT NULL, which is the column's above and a constraint too from 18 on.
    SELECT format('constraint %s.%s %s', c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid))
      FROM pg_constraint c WHERE c.connamespace = 'tenancy'::regnamespace AND c.contype <> 'n'
    UNION ALL
    SELECT format('index %s', pg_get_indexdef(i.indexrelid))
      FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = 'tenancy'::regnamespace
    UNION ALL
    SELECT format('policy %s.%s %s %s to %s using %s check %s comment %s', p.polrelid::regclass, p.polname, p.polcmd, p.polpermissive,
                  (SELECT string_agg(CASE r WHEN 0 THEN 'public' ELSE r::regrole::text END, ',' ORDER BY r::regrole::text)
                     FROM unnest(p.polroles) r),
                  pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid), obj_description(p.oid, 'pg_policy'))
      FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = 'tenancy'::regnamespace
    UNION ALL
    SELECT format('trigger %s', pg_get_triggerdef(t.oid))
      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = 'tenancy'::regnamespace AND NOT t.tgisinternal
    UNION ALL
    SELECT format('member %s of the extension', pg_describe_object(d.classid, d.objid, 0))
      FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
     WHERE e.extname = 'pg_tenancy' AND d.deptype = 'e'
    UNION ALL
    SELECT format('view %s %s', c.oid::regclass, pg_get_viewdef(c.oid))
      FROM pg_class c WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('v', 'm')
    UNION ALL
    SELECT format('comment on %s: %s', pg_describe_object(d.classoid, d.objoid, d.objsubid), d.description)
      FROM pg_description d
     WHERE ((d.classoid = 'pg_proc'::regclass AND d.objoid IN (SELECT oid FROM pg_proc WHERE pronamespace = 'tenancy'::regnamespace))
            OR (d.classoid = 'pg_class'::regclass AND d.objoid IN (SELECT oid FROM pg_class WHERE relnamespace = 'tenancy'::regnamespace)))
) AS lines (line)
