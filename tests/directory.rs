//! The directory's functions: what they register, what they refuse, and what their tables hold.

mod common;

use common::{Database, Token, cluster, fails_with, in_parallel, refused};
use postgres::{Client, Error, Row};

fn installed() -> Database<'static> {
    let database = cluster().empty_database();
    database.superuser().batch_execute("CREATE EXTENSION pg_tenancy; SELECT tenancy.install()").unwrap();
    database
}

fn row(client: &mut Client, statement: &str) -> Result<Row, Error> {
    client.query_one(statement, &[])
}

fn truth(client: &mut Client, statement: &str) -> bool {
    row(client, statement).unwrap().get(0)
}

/// Every function with an argument that can never be right, and the SQLSTATE and reason it answers with.
#[test]
fn bad_arguments_are_refused_and_write_nothing() {
    let database = installed();
    let mut client = database.superuser();
    client
        .batch_execute(
            "SELECT tenancy.register_user('u1'); SELECT tenancy.register_organization('o1', 'One');
             SELECT tenancy.set_subscription('o1', 'teams', 'active', 1)",
        )
        .unwrap();
    let before = everything(&mut client);
    let long = "x".repeat(256);
    let invalid = [
        "register_tenant(NULL, 'n')".to_owned(),
        "register_tenant('', 'n')".into(),
        "register_tenant('  ', 'n')".into(),
        "register_tenant(' a', 'n')".into(),
        "register_tenant('a::b', 'n')".into(),
        "register_tenant(E'a\\nb', 'n')".into(),
        format!("register_tenant('{long}', 'n')"),
        "register_tenant('a', NULL)".into(),
        "register_tenant('a', '')".into(),
        "register_tenant('a', 'n', NULL)".into(),
        "register_tenant('a', 'n', 'user')".into(),
        "register_tenant('a', 'n', 'x:y')".into(),
        "set_tenant_status('o1', 'gone')".into(),
        "set_tenant_status('', 'active')".into(),
        "register_user(NULL)".into(),
        "register_user('')".into(),
        "register_user('user::x')".into(),
        "register_user('a', '')".into(),
        "register_user('a', NULL, 'x::y')".into(),
        "register_organization(NULL, 'n')".into(),
        "register_organization('', 'n')".into(),
        "register_organization('a::b', 'n')".into(),
        "register_organization('a', NULL)".into(),
        "register_organization('a', 'n', '')".into(),
        "register_organization('a', 'n', stripe_customer_id => ' ')".into(),
        "set_membership('u1', 'o1', NULL)".into(),
        "set_membership('u1', 'o1', '')".into(),
        "set_membership('', 'o1', 'org:member')".into(),
        "set_membership('u1', '', 'org:member')".into(),
        "remove_membership('u1', NULL)".into(),
        "set_subscription('', 'teams', 'active', 1)".into(),
        "set_subscription('o1', '', 'active', 1)".into(),
        "set_subscription('o1', NULL, 'active', 1)".into(),
        "set_subscription('o1', 'teams', 'running', 1)".into(),
        "set_subscription('o1', 'teams', NULL, 1)".into(),
        "set_subscription('o1', 'teams', 'active', NULL)".into(),
        "set_subscription('o1', 'teams', 'active', -1)".into(),
        "set_subscription('o1', 'teams', 'active', 1, billing_frequency => 'weekly')".into(),
        "set_subscription('o1', 'teams', 'active', 1, current_period_start => '2026-02-01', current_period_end => '2026-01-01')".into(),
        "assign_seat('', 'u1')".into(),
        "assign_seat('o1', NULL)".into(),
        "assign_seat('o1', 'u1', 'boss')".into(),
        "assign_seat('o1', 'u1', NULL)".into(),
        "assign_seat('o1', 'u1', expires_at => '2020-01-01')".into(),
        "revoke_seat('o1', '')".into(),
        "revoke_seat('o1', 'u1', '')".into(),
        "resolve_org_membership('', 'o1')".into(),
        "resolve_org_attribution(NULL, 'o1')".into(),
        "resolve_org_attribution('u1', '')".into(),
    ];
    for call in &invalid {
        refused(row(&mut client, &format!("SELECT tenancy.{call}")), "22023", "invalid_argument");
    }
    let unknown = [
        ("register_organization('a', 'n', 'nowhere')", "tenant_not_found"),
        ("set_tenant_status('nowhere', 'active')", "tenant_not_found"),
        ("set_membership('nobody', 'o1', 'org:member')", "user_not_found"),
        ("set_membership('u1', 'none', 'org:member')", "organization_not_found"),
        ("remove_membership('nobody', 'o1')", "user_not_found"),
        ("set_subscription('none', 'teams', 'active', 1)", "organization_not_found"),
        ("assign_seat('none', 'u1')", "organization_not_found"),
        ("assign_seat('o1', 'nobody')", "user_not_found"),
        ("assign_seat('o1', 'u1', namespace => 'other')", "user_not_found"),
        ("revoke_seat('none', 'u1')", "organization_not_found"),
        ("revoke_seat('o1', 'nobody')", "user_not_found"),
    ];
    for (call, reason) in unknown {
        refused(row(&mut client, &format!("SELECT tenancy.{call}")), "PT404", reason);
    }
    assert_eq!(everything(&mut client), before, "a refused call wrote something");
}

/// All rows of the directory, as text.
fn everything(client: &mut Client) -> String {
    let tables = [
        "tenants",
        "users",
        "organizations",
        "organization_memberships",
        "organization_subscriptions",
        "organization_seats",
    ];
    let mut all = String::new();
    for table in tables {
        let statement =
            format!("SELECT coalesce(string_agg(t::text, E'\\n' ORDER BY t::text), '') FROM tenancy.{table} AS t");
        all += row(client, &statement).unwrap().get::<_, &str>(0);
    }
    all
}

#[test]
fn registering_again_is_an_update_and_gives_the_same_id() {
    let database = installed();
    let mut client = database.superuser();
    for call in [
        "register_tenant('acme', 'Acme')",
        "register_user('u1', 'u1@acme.test')",
        "register_organization('o1', 'One', 'acme', 'cus_1')",
        "set_subscription('o1', 'teams', 'active', 3, 'sub_1')",
    ] {
        assert!(truth(&mut client, &format!("SELECT tenancy.{call} = tenancy.{call}")), "{call}");
    }
    let calls = "SELECT tenancy.register_tenant('acme', 'Acme Ltd'), tenancy.register_user('u1'),
        tenancy.register_organization('o1', 'One Ltd'), tenancy.set_subscription('o1', 'enterprise', 'trialing', 4)";
    row(&mut client, calls).unwrap();
    let kept = row(
        &mut client,
        "SELECT t.name, u.email, o.name, o.tenant_id, o.stripe_customer_id, s.plan_type, s.status, s.seats_total,
                s.stripe_subscription_id, s.billing_frequency
           FROM tenancy.tenants t, tenancy.users u, tenancy.organizations o, tenancy.organization_subscriptions s",
    )
    .unwrap();
    let text: Vec<&str> = [0, 1, 2, 3, 4, 5, 6, 8, 9].map(|index| kept.get(index)).to_vec();
    let expected =
        ["Acme Ltd", "u1@acme.test", "One Ltd", "acme", "cus_1", "enterprise", "trialing", "sub_1", "monthly"];
    assert_eq!(text, expected);
    assert_eq!(kept.get::<_, i32>(7), 4);
}

#[test]
fn an_organization_gets_a_tenant_of_its_own_and_never_somebody_elses() {
    let database = installed();
    let mut client = database.superuser();
    client
        .batch_execute(
            "SELECT tenancy.register_organization('o1', 'One');
             SELECT tenancy.register_organization('o1', 'One elsewhere', namespace => 'ns');
             SELECT tenancy.register_tenant('taken', 'Taken');
             SELECT tenancy.register_organization('o2', 'Two', 'o1');
             SELECT tenancy.register_organization('o3', 'Three', 'ns::o1', namespace => 'ns')",
        )
        .unwrap();
    let homes: String = row(
        &mut client,
        "SELECT string_agg(format('%s/%s in %s', namespace, external_id, tenant_id), ', ' ORDER BY namespace, external_id)
           FROM tenancy.organizations",
    )
    .unwrap()
    .get(0);
    assert_eq!(homes, "/o1 in o1, /o2 in o1, ns/o1 in ns::o1, ns/o3 in ns::o1");

    let error =
        refused(row(&mut client, "SELECT tenancy.register_organization('taken', 'T')"), "PT403", "tenant_taken");
    assert!(error.hint().unwrap().contains("tenant_id"));
    row(&mut client, "SELECT tenancy.register_organization('taken', 'T', 'taken')").unwrap();
    refused(row(&mut client, "SELECT tenancy.register_organization('o1', 'One', 'taken')"), "PT409", "tenant_fixed");
}

#[test]
fn the_namespaces_of_two_issuers_do_not_meet() {
    let database = installed();
    let mut client = database.superuser();
    client
        .batch_execute(
            "SELECT tenancy.register_user('u1'), tenancy.register_user('u1', namespace => 'ns');
             SELECT tenancy.register_organization('o1', 'One'), tenancy.register_organization('o1', 'One', namespace => 'ns');
             SELECT tenancy.set_membership('u1', 'o1', 'org:admin', namespace => 'ns')",
        )
        .unwrap();
    let role =
        |namespace: &str| format!("SELECT org_role FROM tenancy._resolve_directory('{namespace}', 'u1', 'o1', NULL)");
    assert_eq!(row(&mut client, &role("")).unwrap().get::<_, Option<&str>>(0), None);
    assert_eq!(row(&mut client, &role("ns")).unwrap().get::<_, Option<&str>>(0), Some("org:admin"));
}

#[test]
fn sessions_that_register_the_same_ids_at_once_agree() {
    let database = installed();
    let ids = in_parallel(8, |_| {
        let mut client = database.superuser();
        let ids = row(
            &mut client,
            "SELECT tenancy.register_user('u1')::text, tenancy.register_organization('o1', 'One')::text,
                    tenancy.set_subscription('o1', 'teams', 'active', 1)::text",
        )
        .unwrap();
        [0, 1, 2].map(|index| ids.get::<_, String>(index))
    });
    assert!(ids.iter().all(|of_session| *of_session == ids[0]), "{ids:?}");
}

#[test]
fn a_suspended_tenant_says_so_to_whoever_resolves_it() {
    let database = installed();
    let mut client = database.superuser();
    row(&mut client, "SELECT tenancy.register_organization('o1', 'One')").unwrap();
    assert!(truth(&mut client, "SELECT tenancy.set_tenant_status('o1', 'suspended')"));
    assert!(!truth(&mut client, "SELECT tenancy.set_tenant_status('o1', 'suspended')"));
    let facts = row(
        &mut client,
        "SELECT org_tenant_id, org_tenant_status, candidate_registered, candidate_status, user_uuid::text
           FROM tenancy._resolve_directory('', 'nobody', 'o1', 'elsewhere')",
    )
    .unwrap();
    assert_eq!((facts.get(0), facts.get(1), facts.get(2)), ("o1", "suspended", false));
    assert_eq!((facts.get::<_, Option<&str>>(3), facts.get::<_, Option<&str>>(4)), (None, None));
}

/// The invariants stand in the tables themselves: not even the owner's own DML gets round them.
#[test]
fn constraints_hold_what_must_hold() {
    let database = installed();
    let mut client = database.superuser();
    client
        .batch_execute(
            "SELECT tenancy.register_user('u1'), tenancy.register_organization('o1', 'One'), tenancy.register_organization('o2', 'Two');
             SELECT tenancy.set_subscription('o1', 'teams', 'active', 1); SELECT tenancy.assign_seat('o1', 'u1')",
        )
        .unwrap();
    for (statement, sqlstate) in [
        ("UPDATE tenancy.organization_seats SET tenant_id = 'o2'", "23503"),
        ("UPDATE tenancy.organization_seats SET organization_id = (SELECT id FROM tenancy.organizations WHERE external_id = 'o2')", "23503"),
        ("UPDATE tenancy.organizations SET tenant_id = 'o2' WHERE external_id = 'o1'", "23503"),
        ("UPDATE tenancy.organization_subscriptions SET seats_used = 2", "23514"),
        ("UPDATE tenancy.organization_subscriptions SET seats_total = 0", "23514"),
        ("UPDATE tenancy.organization_seats SET status = 'revoked'", "23514"),
        ("UPDATE tenancy.organization_seats SET user_id = NULL", "23514"),
        ("UPDATE tenancy.tenants SET tenant_id = 'user::u1' WHERE tenant_id = 'o2'", "23514"),
        ("DELETE FROM tenancy.users", "23503"),
        (
            "INSERT INTO tenancy.organization_seats (tenant_id, organization_id, organization_subscription_id, user_id, status)
             SELECT tenant_id, organization_id, organization_subscription_id, user_id, 'pending' FROM tenancy.organization_seats",
            "23505",
        ),
    ] {
        fails_with(client.execute(statement, &[]), sqlstate);
    }
}

/// What an application role reads of the directory is what its identity may see, and nothing without one.
#[test]
fn each_identity_reads_its_own_tenant_and_its_own_user() {
    let database = cluster().database();
    database
        .superuser()
        .batch_execute(
            "SELECT tenancy.register_organization('north', 'North'), tenancy.register_organization('south', 'South');
             SELECT tenancy.register_organization('north-2', 'North two', 'north');
             SELECT tenancy.register_user('n1'), tenancy.register_user('n2'), tenancy.register_user('s1');
             SELECT tenancy.set_subscription(o, 'teams', 'active', 5) FROM unnest('{north,south}'::text[]) AS o;
             SELECT tenancy.assign_seat('north', 'n1'), tenancy.assign_seat('north', 'n2'), tenancy.assign_seat('south', 's1');
             SELECT tenancy.set_membership('n1', 'north', 'org:member'), tenancy.set_membership('s1', 'south', 'org:member')",
        )
        .unwrap();
    let seen = "SELECT concat_ws(' ', (SELECT string_agg(tenant_id, ',') FROM tenancy.tenants),
        (SELECT string_agg(external_id, ',' ORDER BY external_id) FROM tenancy.organizations),
        (SELECT string_agg(external_id, ',') FROM tenancy.users),
        (SELECT count(*) FROM tenancy.organization_memberships), (SELECT count(*) FROM tenancy.organization_subscriptions),
        (SELECT count(*) FROM tenancy.organization_seats))";
    let mut app = database.connect("app");
    let mut sees = |token: Option<Token>| {
        let mut transaction = app.transaction().unwrap();
        if let Some(token) = token {
            transaction.query("SELECT tenancy.authenticate($1)", &[&token.sign()]).unwrap();
        }
        transaction.query_one(seen, &[]).unwrap().get::<_, String>(0)
    };
    assert_eq!(sees(None), "0 0 0");
    assert_eq!(sees(Some(Token::for_member("n1", "north"))), "north north,north-2 n1 1 1 2");
    assert_eq!(sees(Some(Token::for_member("s1", "south"))), "south south s1 1 1 1");
    assert_eq!(sees(Some(Token::for_user("n1"))), "n1 0 0 0");
    assert_eq!(sees(Some(Token::for_user("unregistered"))), "0 0 0");
    assert_eq!(
        database.connect("ops").query_one(seen, &[]).unwrap().get::<_, String>(0).matches("south").count(),
        2,
        "operators read every tenant"
    );
}
