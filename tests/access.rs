//! Who may do what: the list of sql/access.sql held against the catalog, and grant_access.

mod common;

use common::{Database, cluster, fails_with, refused};
use postgres::Client;

fn installed() -> Database<'static> {
    let database = cluster().empty_database();
    database.superuser().batch_execute("CREATE EXTENSION pg_tenancy; SELECT tenancy.install()").unwrap();
    database
}

/// The first column of every row.
fn list(client: &mut Client, statement: &str) -> Vec<String> {
    client.query(statement, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn none(client: &mut Client, statement: &str, what: &str) {
    let found = list(client, statement);
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn every_function_has_exactly_one_level() {
    let database = installed();
    let mut client = database.superuser();
    none(
        &mut client,
        "SELECT p.oid::regprocedure::text FROM pg_proc p
          WHERE p.pronamespace = 'tenancy'::regnamespace
            AND NOT EXISTS (SELECT FROM tenancy._function_access() f WHERE to_regprocedure('tenancy.' || f.signature) = p.oid)",
        "functions without a line in sql/access.sql",
    );
    none(
        &mut client,
        "SELECT signature FROM tenancy._function_access() WHERE to_regprocedure('tenancy.' || signature) IS NULL",
        "lines in sql/access.sql without a function",
    );
    none(
        &mut client,
        "SELECT string_agg(signature, ' = ') FROM tenancy._function_access()
          GROUP BY to_regprocedure('tenancy.' || signature) HAVING count(*) > 1",
        "functions with more than one line in sql/access.sql",
    );
    none(
        &mut client,
        "SELECT signature || ' ' || access FROM tenancy._function_access()
          WHERE access NOT IN ('application', 'service', 'operator', 'metrics', 'owner', 'internal')
             OR (access IN ('internal', 'owner')) AND (access = 'internal') <> (signature LIKE '\\_%')",
        "unknown levels, or internal functions without an underscore",
    );
    none(
        &mut client,
        "SELECT relation FROM tenancy._table_access()
          WHERE to_regclass('tenancy.' || relation) IS NULL OR access NOT IN ('application', 'service', 'operator', 'metrics')",
        "lines of _table_access() without a table, or with an unknown access",
    );
}

/// Nothing is granted to PUBLIC: functions, types, tables, columns, the schema. For all that is there and all that is added later.
#[test]
fn public_has_nothing() {
    let database = installed();
    let mut client = database.superuser();
    none(
        &mut client,
        "SELECT 'function ' || p.oid::regprocedure FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
          WHERE p.pronamespace = 'tenancy'::regnamespace AND a.grantee = 0
         UNION ALL
         SELECT 'type ' || t.oid::regtype FROM pg_type t, aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) a
          WHERE t.typnamespace = 'tenancy'::regnamespace AND t.typelem = 0 AND a.grantee = 0
         UNION ALL
         SELECT 'relation ' || c.oid::regclass FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
          WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND a.grantee = 0
         UNION ALL
         SELECT 'column ' || c.oid::regclass || '.' || t.attname FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a
          WHERE c.relnamespace = 'tenancy'::regnamespace AND a.grantee = 0
         UNION ALL
         SELECT 'schema ' || n.nspname FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
          WHERE n.nspname = 'tenancy' AND a.grantee = 0",
        "granted to PUBLIC",
    );
    client.batch_execute("CREATE ROLE access_nobody LOGIN").unwrap();
    let mut nobody = database.connect("access_nobody");
    fails_with(nobody.query("SELECT tenancy.user_id()", &[]), "42501");
    fails_with(nobody.query("SELECT * FROM tenancy.organizations", &[]), "42501");
}

/// ALTER DEFAULT PRIVILEGES, as some platforms set them, opens nothing of ours.
#[test]
fn default_privileges_of_the_database_do_not_open_anything() {
    let database = cluster().empty_database();
    let mut client = database.superuser();
    client
        .batch_execute(
            "CREATE ROLE access_anon;
             ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC; ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO access_anon;
             ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO access_anon; ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO access_anon;
             ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC;
             CREATE EXTENSION pg_tenancy; SELECT tenancy.install()",
        )
        .unwrap();
    none(
        &mut client,
        "SELECT 'function ' || p.oid::regprocedure FROM pg_proc p, aclexplode(p.proacl) a
          WHERE p.pronamespace = 'tenancy'::regnamespace AND a.grantee <> p.proowner
         UNION ALL
         SELECT 'relation ' || c.oid::regclass FROM pg_class c, aclexplode(c.relacl) a
          WHERE c.relnamespace = 'tenancy'::regnamespace AND a.grantee <> c.relowner
         UNION ALL
         SELECT 'type ' || t.oid::regtype FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid, aclexplode(t.typacl) a
          WHERE t.typnamespace = 'tenancy'::regnamespace AND a.grantee <> t.typowner AND coalesce(c.relkind, 'c') = 'c'
         UNION ALL
         SELECT 'schema' FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'tenancy' AND a.grantee = 0",
        "opened by default privileges",
    );
}

#[test]
fn every_object_carries_a_comment() {
    let database = installed();
    none(
        &mut database.superuser(),
        "SELECT 'function ' || p.oid::regprocedure FROM pg_proc p
          WHERE p.pronamespace = 'tenancy'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
         UNION ALL
         SELECT 'relation ' || c.oid::regclass FROM pg_class c
          WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
            AND obj_description(c.oid, 'pg_class') IS NULL
         UNION ALL
         SELECT 'column ' || c.oid::regclass || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
          WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'c') AND NOT c.relispartition
            AND a.attnum > 0 AND NOT a.attisdropped AND col_description(c.oid, a.attnum) IS NULL
         UNION ALL
         SELECT 'type ' || t.oid::regtype FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
          WHERE t.typnamespace = 'tenancy'::regnamespace AND t.typelem = 0 AND coalesce(c.relkind, 'c') = 'c'
            AND obj_description(t.oid, 'pg_type') IS NULL
         UNION ALL
         SELECT 'policy ' || p.polrelid::regclass || '.' || p.polname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
          WHERE c.relnamespace = 'tenancy'::regnamespace AND obj_description(p.oid, 'pg_policy') IS NULL",
        "without a COMMENT",
    );
}

/// The rules every table keeps (design §8): a primary key, forced row-level security, no trigger, no sequence, named foreign keys.
#[test]
fn every_table_keeps_the_rules() {
    let database = installed();
    none(
        &mut database.superuser(),
        "SELECT c.oid::regclass || ': row-level security is not enabled and forced' FROM pg_class c
          WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'p') AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
         UNION ALL
         SELECT c.oid::regclass || ': no primary key' FROM pg_class c
          WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'p')
            AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p')
         UNION ALL
         SELECT c.oid::regclass || ': no policy for the owner' FROM pg_class c
          WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'p')
            AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND c.relowner = ANY (p.polroles) AND p.polcmd = '*')
            AND c.relname NOT IN ('batches', 'batch_essays', 'batch_results') -- protected as a user's table is: the floor is for everybody
         UNION ALL
         SELECT t.tgrelid::regclass || ': trigger ' || t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
          WHERE c.relnamespace = 'tenancy'::regnamespace AND NOT t.tgisinternal
            AND t.tgrelid <> 'tenancy.guard_pending'::regclass -- holds rows of running transactions only, and judges them as they commit
         UNION ALL
         SELECT c.oid::regclass || ': a sequence' FROM pg_class c WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind = 'S'
         UNION ALL
         SELECT c.oid::regclass || ': a view that is not security_invoker' FROM pg_class c
          WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind = 'v'
            AND NOT coalesce('security_invoker=true' = ANY (c.reloptions) OR 'security_invoker=on' = ANY (c.reloptions), false)
         UNION ALL
         SELECT format('%s: policy %s has a sub-query', p.polrelid::regclass, p.polname) FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
          WHERE c.relnamespace = 'tenancy'::regnamespace
            AND coalesce(pg_get_expr(p.polqual, p.polrelid), '') || coalesce(pg_get_expr(p.polwithcheck, p.polrelid), '') ~* '\\mselect\\M'",
        "tables that break a rule",
    );
}

/// Every function that runs as its owner pins search_path; none that is open to roles and touches tables runs as the caller by oversight.
#[test]
fn functions_that_run_as_their_owner_pin_the_search_path() {
    let database = installed();
    none(
        &mut database.superuser(),
        "SELECT p.oid::regprocedure::text FROM pg_proc p
          WHERE p.pronamespace = 'tenancy'::regnamespace AND p.prosecdef
            AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)",
        "SECURITY DEFINER without SET search_path = pg_catalog, pg_temp",
    );
}

/// The list of public objects, checked in: an object that is not on it was not meant, one that is gone breaks somebody.
/// `scripts/public_objects.sh` writes it anew.
#[test]
fn public_objects_are_those_of_the_list() {
    let database = installed();
    let found: String = database.superuser().query_one(include_str!("common/public_objects.sql"), &[]).unwrap().get(0);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/public_objects.txt");
    if std::env::var_os("PGT_WRITE_PUBLIC_OBJECTS").is_some() {
        std::fs::write(file, format!("{found}\n")).unwrap();
        return;
    }
    let listed = std::fs::read_to_string(file).unwrap();
    let (found, listed): (Vec<&str>, Vec<&str>) = (found.lines().collect(), listed.lines().collect());
    let added: Vec<_> = found.iter().filter(|line| !listed.contains(line)).collect();
    let gone: Vec<_> = listed.iter().filter(|line| !found.contains(line)).collect();
    assert!(
        added.is_empty() && gone.is_empty() && found == listed,
        "tests/public_objects.txt differs (scripts/public_objects.sh writes it)\nnot on the list: {added:#?}\ngone: {gone:#?}"
    );
}

#[test]
fn an_access_opens_its_own_functions_and_no_others() {
    let database = installed();
    let mut client = database.superuser();
    let levels = [
        ("access_app", "application", "application"),
        ("access_svc", "service", "application,service"),
        ("access_ops", "operator", "application,operator,metrics"),
        ("access_met", "metrics", "metrics"),
    ];
    for (role, access, expected) in levels {
        client
            .batch_execute(&format!("CREATE ROLE {role} LOGIN; SELECT tenancy.grant_access('{role}', '{access}')"))
            .unwrap();
        none(
            &mut client,
            &format!(
                "SELECT signature FROM tenancy._function_access()
                  WHERE has_function_privilege('{role}', ('tenancy.' || signature)::regprocedure, 'EXECUTE')
                     <> (access = ANY (string_to_array('{expected}', ',')))"
            ),
            access,
        );
        none(
            &mut client,
            &format!(
                "SELECT c.oid::regclass::text FROM pg_class c
                  WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
                    AND (has_table_privilege('{role}', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
                         OR has_any_column_privilege('{role}', c.oid, 'INSERT, UPDATE, REFERENCES')
                         OR has_any_column_privilege('{role}', c.oid, 'SELECT')
                            <> EXISTS (SELECT FROM tenancy._table_access() t
                                        WHERE t.relation = c.relname AND t.access = ANY (string_to_array('{expected}', ','))))"
            ),
            access,
        );
    }
    let dml = "INSERT INTO tenancy.tenants (tenant_id, name) VALUES ('x', 'x')";
    for (role, ..) in levels {
        fails_with(database.connect(role).execute(dml, &[]), "42501");
    }
}

#[test]
fn what_is_taken_back_is_gone_and_what_another_access_gives_stays() {
    let database = installed();
    let mut client = database.superuser();
    client
        .batch_execute(
            "CREATE ROLE access_both LOGIN; SELECT tenancy.register_organization('o1', 'One');
             SELECT tenancy.grant_access('access_both', 'operator'), tenancy.grant_access('access_both', 'service'),
                    tenancy.grant_access('access_both', 'service')",
        )
        .unwrap();
    let mut both = database.connect("access_both");
    let count = "SELECT count(*)::text FROM tenancy.organizations";
    assert_eq!(list(&mut both, count), ["1"]);
    let revoke = |access: &str| format!("SELECT tenancy.revoke_access('access_both', '{access}')");
    assert!(client.query_one(&revoke("operator"), &[]).unwrap().get::<_, bool>(0));
    assert!(!client.query_one(&revoke("operator"), &[]).unwrap().get::<_, bool>(0));
    assert_eq!(list(&mut both, count), ["0"], "without an identity and no operator: no row");
    fails_with(both.query("SELECT tenancy.register_user('u')", &[]), "42501");
    both.query("SELECT * FROM tenancy.resolve_org_membership('u', 'o1')", &[]).unwrap();
    client.query_one(&revoke("service"), &[]).unwrap();
    fails_with(both.query("SELECT tenancy.user_id()", &[]), "42501");
    // Nothing of ours is left that would stand in the way.
    client.batch_execute("DROP ROLE access_both").unwrap();
}

#[test]
fn roles_that_no_policy_binds_are_refused() {
    let database = installed();
    let mut client = database.superuser();
    client.batch_execute("CREATE ROLE access_bypass BYPASSRLS; CREATE ROLE access_plain").unwrap();
    for (role, access, reason) in [
        ("'postgres'", "'application'", "superuser_role"),
        ("'postgres'", "'metrics'", "superuser_role"),
        ("'access_bypass'", "'application'", "bypassrls_role"),
        ("'access_plain'", "'root'", "invalid_argument"),
        ("'access_plain'", "'owner'", "invalid_argument"),
        ("'access_plain'", "'internal'", "invalid_argument"),
        ("'access_plain'", "''", "invalid_argument"),
        ("'access_plain'", "NULL", "invalid_argument"),
        ("NULL", "'metrics'", "invalid_argument"),
        ("0::oid", "'metrics'", "role_not_found"),
    ] {
        refused(client.query(&format!("SELECT tenancy.grant_access({role}, {access})"), &[]), "22023", reason);
    }
    fails_with(client.query("SELECT tenancy.grant_access('access_unknown', 'metrics')", &[]), "42704");
    assert!(list(&mut client, "SELECT role_name FROM tenancy.access_grants").is_empty());
    // A platform's service role may have BYPASSRLS; it acts for users through functions.
    client.query("SELECT tenancy.grant_access('access_bypass', 'service')", &[]).unwrap();
}

#[test]
fn migrate_grants_again_what_is_recorded() {
    let database = installed();
    let (mut client, notices) = database.connect_with_notices("postgres");
    client
        .batch_execute(
            "CREATE ROLE access_again LOGIN; SELECT tenancy.grant_access('access_again', 'application');
             REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenancy FROM access_again;
             GRANT EXECUTE ON FUNCTION tenancy.register_user(text, text, text) TO access_again;
             INSERT INTO tenancy.access_grants (role_name, access) VALUES ('access_dropped', 'metrics');
             SELECT tenancy.migrate()",
        )
        .unwrap();
    let mut again = database.connect("access_again");
    again.query("SELECT tenancy.user_id()", &[]).unwrap();
    fails_with(again.query("SELECT tenancy.register_user('u')", &[]), "42501");
    assert!(notices.lock().unwrap().iter().any(|notice| notice.message().contains("access_dropped")), "{notices:?}");
    let health = "SELECT detail FROM tenancy.health() WHERE check_name = 'access_roles'";
    assert!(list(&mut client, health)[0].contains("access_dropped"));
}

/// The record goes by name, what was granted by the role itself.
#[test]
fn a_role_that_was_renamed_loses_what_is_taken_from_it() {
    let database = installed();
    let mut client = database.superuser();
    client
        .batch_execute(
            "CREATE ROLE access_before LOGIN; SELECT tenancy.grant_access('access_before', 'service'),
             tenancy.grant_access('access_before', 'operator'); ALTER ROLE access_before RENAME TO access_after",
        )
        .unwrap();
    let mut after = database.connect("access_after");
    after.query("SELECT tenancy.user_id()", &[]).unwrap();
    let revoke = "SELECT tenancy.revoke_access('access_after', 'service')";
    assert!(client.query_one(revoke, &[]).unwrap().get::<_, bool>(0));
    assert!(!client.query_one(revoke, &[]).unwrap().get::<_, bool>(0));
    for statement in ["SELECT tenancy.user_id()", "SELECT tenancy.act_as('u')", "SELECT * FROM tenancy.organizations"] {
        fails_with(after.query(statement, &[]), "42501");
    }
    client.batch_execute("DROP ROLE access_after").unwrap();
}

#[test]
fn another_role_of_a_name_that_had_access_has_none() {
    let database = installed();
    let (mut client, notices) = database.connect_with_notices("postgres");
    client
        .batch_execute(
            "CREATE ROLE access_heir LOGIN; SELECT tenancy.grant_access('access_heir', 'service'),
             tenancy.grant_access('access_heir', 'operator'), tenancy.register_organization('o1', 'One');
             DROP OWNED BY access_heir; DROP ROLE access_heir;
             CREATE ROLE access_heir LOGIN; SELECT tenancy.migrate()",
        )
        .unwrap();
    assert!(notices.lock().unwrap().iter().any(|notice| notice.message().contains("access_heir")), "{notices:?}");
    let mut heir = database.connect("access_heir");
    fails_with(heir.query("SELECT tenancy.user_id()", &[]), "42501");
    // Nor by what it is a member of, nor by what it is granted itself.
    client
        .batch_execute("CREATE ROLE access_plain_app; SELECT tenancy.grant_access('access_plain_app', 'application'); GRANT access_plain_app TO access_heir")
        .unwrap();
    refused(heir.query("SELECT tenancy.create_api_key('o1')", &[]), "PT401", "not_authenticated");
    client.query("SELECT tenancy.grant_access('access_heir', 'application')", &[]).unwrap();
    refused(heir.query("SELECT tenancy.create_api_key('o1')", &[]), "PT401", "not_authenticated");
    fails_with(heir.query("SELECT tenancy.act_as('u')", &[]), "42501");
    assert_eq!(list(&mut heir, "SELECT count(*)::text FROM tenancy.organizations"), ["0"]);
    assert_eq!(
        list(&mut client, "SELECT access FROM tenancy.access_grants WHERE role_name = 'access_heir'"),
        ["application"]
    );
}

/// A role that has another access takes the name of one that had more.
#[test]
fn a_role_that_takes_the_name_of_another_keeps_its_own_access_and_gets_no_more() {
    let database = installed();
    let (mut client, notices) = database.connect_with_notices("postgres");
    client
        .batch_execute(
            "CREATE ROLE access_old LOGIN; SELECT tenancy.grant_access('access_old', 'service'),
             tenancy.grant_access('access_old', 'operator'), tenancy.register_organization('o1', 'One');
             DROP OWNED BY access_old; DROP ROLE access_old;
             CREATE ROLE access_web LOGIN; SELECT tenancy.grant_access('access_web', 'application');
             ALTER ROLE access_web RENAME TO access_old; SELECT tenancy.migrate()",
        )
        .unwrap();
    assert!(notices.lock().unwrap().iter().any(|notice| notice.message().contains("operator, service")), "{notices:?}");
    let health =
        "SELECT detail FROM tenancy.health() WHERE check_name = 'access_roles' AND detail LIKE '%does not hold%'";
    assert_eq!(list(&mut client, health).len(), 2);
    let mut web = database.connect("access_old");
    web.query("SELECT tenancy.user_id()", &[]).unwrap();
    refused(web.query("SELECT tenancy.create_api_key('o1')", &[]), "PT401", "not_authenticated");
    fails_with(web.query("SELECT tenancy.act_as('u')", &[]), "42501");
    assert_eq!(list(&mut web, "SELECT count(*)::text FROM tenancy.organizations"), ["0"]);
    // Under the new name nothing is recorded of what it has, and the audit knows it all the same.
    client.batch_execute("ALTER ROLE access_old RENAME TO access_web; ALTER ROLE access_web BYPASSRLS").unwrap();
    let found = "SELECT object FROM tenancy.audit_isolation() WHERE rule = 'bypassing_role'";
    assert_eq!(list(&mut client, found), ["role access_web"]);
}

#[test]
fn the_owner_s_rights_are_neither_granted_nor_taken() {
    let database = installed();
    let mut client = database.superuser();
    for access in ["application", "operator"] {
        assert!(
            !client
                .query_one(&format!("SELECT tenancy.revoke_access('postgres', '{access}')"), &[])
                .unwrap()
                .get::<_, bool>(0)
        );
    }
    let owned = "SELECT count(*)::text FROM pg_proc AS p, aclexplode(p.proacl) AS a
                  WHERE p.pronamespace = 'tenancy'::regnamespace AND a.grantee = p.proowner";
    assert_ne!(list(&mut client, owned), ["0"]);
}
