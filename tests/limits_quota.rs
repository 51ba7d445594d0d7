//! Quotas: exact at the boundary, by the calendar of a time zone, all of a metric's or none.

mod common;

use common::{Database, Token, cluster, in_parallel, refused};
use postgres::Client;
use serde_json::Value;

fn session(database: &Database, user: &str, org: Option<&str>) -> Client {
    let mut client = database.connect("app");
    client.batch_execute("BEGIN").unwrap();
    login(&mut client, user, org);
    client
}

fn login(client: &mut Client, user: &str, org: Option<&str>) {
    let token = match org {
        Some(org) => Token::for_member(user, org),
        None => Token::for_user(user),
    };
    client.query("SELECT tenancy.authenticate($1)", &[&token.sign()]).unwrap();
}

fn text(client: &mut Client, statement: &str) -> String {
    client.query_one(statement, &[]).unwrap().get(0)
}

const STATE: &str = "concat_ws(' ', allowed, trim_scale(used), trim_scale(soft), trim_scale(hard), trim_scale(remaining), scope, period)";

#[test]
fn quotas_of_tenant_org_and_user_are_taken_together() {
    let database = cluster().database();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "SELECT tenancy.set_quota('pages', 80, 100, 'day');
         SELECT tenancy.set_quota('pages', NULL, 50, 'month', org_id => '*');
         SELECT tenancy.set_quota('pages', NULL, 10, 'hour', user_id => '*');
         SELECT tenancy.set_quota('pages', NULL, 20, 'hour', user_id => 'u2');
         SELECT tenancy.set_quota('pages', 5, NULL, 'lifetime', tenant_id => 'o1')",
    )
    .unwrap();
    let mut one = session(&database, "u1", Some("o1"));
    let take = |amount: &str| format!("SELECT {STATE} FROM tenancy.take_quota('pages', {amount})");
    let check = |amount: &str| format!("SELECT {STATE} FROM tenancy.check_quota('pages', {amount})");
    assert_eq!(text(&mut one, &check("10")), "t 0 10 10 user hour");
    assert_eq!(text(&mut one, &take("9.5")), "t 9.5 10 0.5 user hour");
    assert_eq!(text(&mut one, &check("0.500001")), "f 9.5 10 0.5 user hour");
    one.batch_execute("SAVEPOINT s").unwrap();
    let error = refused(one.query(&take("0.500001"), &[]), "PT429", "quota_exceeded");
    let detail: Value = serde_json::from_str(error.detail().unwrap()).unwrap();
    assert_eq!(detail["scope"], "user");
    assert!(detail["hard"] == 10.0 && detail["used"] == 9.5 && detail["resets_at"].is_string(), "{detail}");
    one.batch_execute("ROLLBACK TO s").unwrap();
    // What was refused counted nowhere.
    let used = "SELECT string_agg(format('%s/%s/%s %s', org_id, user_id, period, trim_scale(used)), ', ' ORDER BY org_id, user_id, period)
                  FROM tenancy.quota_usage";
    assert_eq!(text(&mut one, used), "//day 9.5, //lifetime 9.5, /u1/hour 9.5, o1//month 9.5");
    one.batch_execute("COMMIT").unwrap();

    let mut two = session(&database, "u2", Some("o1"));
    assert_eq!(text(&mut two, &take("20")), "t 20 20 0 user hour", "a user's own quota comes before each user's");
    refused(two.query(&take("1"), &[]), "PT429", "quota_exceeded");
    two.batch_execute("ROLLBACK").unwrap();
    assert_eq!(
        text(&mut session(&database, "u2", Some("o1")), &check("1")),
        "t 0 20 20 user hour",
        "a rollback gives it back"
    );
    // Another tenant sees nothing of it; a personal identity has no organization's quota.
    let mut other = session(&database, "u1", None);
    assert_eq!(text(&mut other, &check("1")), "t 0 10 10 user hour");
    assert_eq!(text(&mut other, "SELECT count(*)::text FROM tenancy.quota_usage"), "0");
    assert_eq!(text(&mut other, "SELECT concat(allowed, used) FROM tenancy.check_quota('nobody_set_this', 5)"), "t");
}

#[test]
fn what_cannot_be_is_refused() {
    let database = cluster().database();
    let mut ops = database.connect("ops");
    for call in [
        "set_quota('', 1, 2, 'day')",
        "set_quota('m', 3, 2, 'day')",
        "set_quota('m', -1, 2, 'day')",
        "set_quota('m', 1, 'NaN', 'day')",
        "set_quota('m', 1, 'Infinity', 'day')",
        "set_quota('m', 1, 1.0000001, 'day')",
        "set_quota('m', 1, 2, 'year')",
        "set_quota('m', 1, 2, 'day', time_zone => 'Europe/Nowhere')",
        "set_quota('m', 1, 2, 'day', time_zone => NULL)",
        "set_quota('m', 1, 2, 'day', tenant_id => '')",
        "prune_quota_usage('1 day')",
        "prune_quota_usage(max_rows => 0)",
    ] {
        refused(ops.query(&format!("SELECT tenancy.{call}"), &[]), "22023", "invalid_argument");
    }
    let mut app = database.connect("app");
    refused(app.query("SELECT * FROM tenancy.take_quota('m', 1)", &[]), "PT401", "not_authenticated");
    for amount in ["0", "-1", "NULL", "'NaN'", "0.0000001"] {
        let mut one = session(&database, "u1", Some("o1"));
        let call = format!("SELECT * FROM tenancy.take_quota('m', {amount})");
        refused(one.query(&call, &[]), "22023", "invalid_argument");
    }
}

#[test]
fn thirty_two_sessions_stop_exactly_at_the_boundary() {
    let database = cluster().database();
    database.connect("ops").query("SELECT tenancy.set_quota('calls', 900, 1000, 'lifetime')", &[]).unwrap();
    let outcomes = in_parallel(32, |index| {
        let mut client = database.connect("app");
        let (mut taken, mut refusals) = (0, 0);
        while refusals == 0 {
            client.batch_execute("BEGIN").unwrap();
            login(&mut client, &format!("u{index}"), Some("o1"));
            match client.query("SELECT * FROM tenancy.take_quota('calls', 7)", &[]) {
                Ok(_) => {
                    taken += 1;
                    client.batch_execute("COMMIT").unwrap();
                }
                error => {
                    refused(error, "PT429", "quota_exceeded");
                    refusals += 1;
                    client.batch_execute("ROLLBACK").unwrap();
                }
            }
        }
        taken
    });
    assert_eq!(outcomes.iter().sum::<i32>(), 142, "142 × 7 = 994 is the most below 1000");
    let used = "SELECT trim_scale(used)::text FROM tenancy.quota_usage WHERE metric = 'calls'";
    let mut client = database.superuser();
    assert_eq!(text(&mut client, used), "994");
    let events = "SELECT count(*)::text FROM tenancy.event_outbox WHERE type = 'tenancy.quota.soft_limit_reached.v1'";
    assert_eq!(text(&mut client, events), "1", "the soft limit was crossed once");
}

/// Periods follow the zone's calendar: clocks that change, months of every length, weeks from Monday.
#[test]
fn periods_turn_over_with_the_calendar() {
    let database = cluster().database();
    let mut client = database.superuser();
    client.batch_execute("SET timezone = 'UTC'").unwrap();
    for (period, zone, at, begins, ends) in [
        // Stockholm: 23 hours on 29 March 2026, 25 on 25 October.
        ("day", "Europe/Stockholm", "2026-03-29 12:00Z", "2026-03-28 23:00", "2026-03-29 22:00"),
        ("day", "Europe/Stockholm", "2026-10-25 12:00Z", "2026-10-24 22:00", "2026-10-25 23:00"),
        ("day", "Europe/Stockholm", "2026-03-29 21:59:59.999999Z", "2026-03-28 23:00", "2026-03-29 22:00"),
        ("day", "Europe/Stockholm", "2026-03-29 22:00Z", "2026-03-29 22:00", "2026-03-30 22:00"),
        // The hour that comes twice is two hours.
        ("hour", "Europe/Stockholm", "2026-10-25 00:30Z", "2026-10-25 00:00", "2026-10-25 01:00"),
        ("hour", "Europe/Stockholm", "2026-10-25 01:30Z", "2026-10-25 01:00", "2026-10-25 02:00"),
        ("hour", "Asia/Kolkata", "2026-06-01 00:10Z", "2026-05-31 23:30", "2026-06-01 00:30"),
        ("month", "UTC", "2024-02-29 23:59Z", "2024-02-01 00:00", "2024-03-01 00:00"),
        ("month", "UTC", "2026-01-31 00:00Z", "2026-01-01 00:00", "2026-02-01 00:00"),
        ("month", "Europe/Stockholm", "2026-03-31 22:00Z", "2026-03-31 22:00", "2026-04-30 22:00"),
        ("month", "Europe/Stockholm", "2026-03-31 21:59Z", "2026-02-28 23:00", "2026-03-31 22:00"),
        ("month", "America/New_York", "2026-12-31 23:00Z", "2026-12-01 05:00", "2027-01-01 05:00"),
        ("week", "UTC", "2026-11-22 23:59Z", "2026-11-16 00:00", "2026-11-23 00:00"),
        ("week", "Europe/Stockholm", "2026-10-25 12:00Z", "2026-10-18 22:00", "2026-10-25 23:00"),
        ("lifetime", "UTC", "2026-10-25 12:00Z", "-infinity", "infinity"),
    ] {
        let row = client
            .query_one(
                "SELECT to_char(tenancy._period_start($1, $3::text::timestamptz, $2), 'YYYY-MM-DD HH24:MI'),
                        tenancy._period_start($1, $3::text::timestamptz, $2) = $4::text::timestamptz
                        AND tenancy._period_end($1, $3::text::timestamptz, $2) = $5::text::timestamptz,
                        tenancy._period_end($1, $3::text::timestamptz, $2)::text",
                &[&period, &zone, &at, &begins, &ends],
            )
            .unwrap();
        assert!(
            row.get::<_, bool>(1),
            "{period} {zone} {at}: {:?} to {:?}",
            row.get::<_, Option<String>>(0),
            row.get::<_, String>(2)
        );
    }
    // The end of each is the begin of the next, for every period of ten years.
    let gaps: i64 = client
        .query_one(
            "SELECT count(*) FROM unnest(ARRAY['day', 'week', 'month']) AS p, unnest(ARRAY['UTC', 'Europe/Stockholm', 'America/Santiago', 'Australia/Lord_Howe', 'Africa/Casablanca']) AS z,
                    generate_series('2020-01-01Z'::timestamptz, '2030-01-01Z', '1 day') AS at,
                    LATERAL (SELECT tenancy._period_end(p, at, z) AS e) AS t
              WHERE tenancy._period_start(p, e, z) <> e
                 OR tenancy._period_start(p, e - interval '1 us', z) <> tenancy._period_start(p, at, z)",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(gaps, 0);
}

#[test]
fn the_period_turns_over_while_it_runs() {
    let database = cluster().database();
    database.connect("ops").query("SELECT tenancy.set_quota('m', NULL, 5, 'day')", &[]).unwrap();
    let mut one = session(&database, "u1", Some("o1"));
    assert_eq!(text(&mut one, &format!("SELECT {STATE} FROM tenancy.take_quota('m', 5)")), "t 5 5 0 tenant day");
    one.batch_execute("COMMIT").unwrap();
    // What was counted yesterday does not count today.
    database
        .superuser()
        .batch_execute("UPDATE tenancy.quota_usage SET period_start = period_start - interval '1 day'")
        .unwrap();
    let mut one = session(&database, "u1", Some("o1"));
    assert_eq!(text(&mut one, &format!("SELECT {STATE} FROM tenancy.take_quota('m', 4)")), "t 4 5 1 tenant day");
}

#[test]
fn plans_bring_their_run_units() {
    let database = cluster().database();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "SELECT tenancy.register_organization(o, o) FROM unnest(ARRAY['o_free', 'o_team', 'o_big', 'o_odd', 'o_gone']) AS o;
         SELECT tenancy.set_subscription('o_team', 'team', 'active', 1);
         SELECT tenancy.set_subscription('o_big', 'enterprise', 'trialing', 1);
         SELECT tenancy.set_subscription('o_odd', 'gold', 'active', 1);
         SELECT tenancy.set_subscription('o_gone', 'team', 'canceled', 1)",
    )
    .unwrap();
    let hard = |org: Option<&str>| {
        let mut client = session(&database, "u1", org);
        text(
            &mut client,
            "SELECT concat_ws(' ', allowed, coalesce(trim_scale(hard)::text, 'unlimited')) FROM tenancy.check_quota('run_units', 101)",
        )
    };
    assert_eq!(hard(None), "f 100");
    assert_eq!(hard(Some("o_free")), "f 100");
    assert_eq!(hard(Some("o_team")), "t 5000");
    assert_eq!(hard(Some("o_big")), "t unlimited");
    assert_eq!(hard(Some("o_odd")), "f 100", "an unknown plan is free");
    assert_eq!(hard(Some("o_gone")), "f 100");
    ops.query("SELECT tenancy.set_quota('run_units', NULL, 300, 'month', org_id => 'o_free')", &[]).unwrap();
    assert_eq!(hard(Some("o_free")), "t 300", "an organization's own quota comes before its plan's");
}
