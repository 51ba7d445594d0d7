//! Analytics and the columns of the old tables: what an application role sees of them.

use crate::common::{Token, fails_with};
use crate::world::{ACME, BOLT, World, ask, shown, world};
use std::time::Duration;

fn spent() -> World<'static> {
    let mut world = world();
    world.fund(ACME, "100");
    world.fund(BOLT, "50");
    world.fund_user("ada", "9");
    let mut service = world.service();
    let charge = shown(&mut service, "SELECT transaction_id FROM tenancy.deduct_credits('ada', 10, 'org_acme')");
    shown(
        &mut service,
        "SELECT tenancy.deduct_credits('ada', 2.5, 'org_acme'), tenancy.deduct_credits('bea', 4, 'org_acme')",
    );
    shown(&mut service, &format!("SELECT tenancy.refund_credits('{charge}', 6)"));
    shown(&mut service, "SELECT tenancy.consume_credits('zoe', 'org_acme', 'cj_comparison', 3)");
    shown(&mut service, "SELECT tenancy.deduct_credits('bob', 5, 'org_bolt'), tenancy.deduct_credits('ada', 1)");
    world
}

fn seen(world: &World, user: &str, org: Option<&str>, query: &str) -> String {
    let mut app = world.app();
    let token = org.map_or_else(|| Token::for_user(user), |org| Token::for_member(user, org)).sign();
    shown(&mut app, &format!("BEGIN; SELECT tenancy.authenticate('{token}')"));
    shown(&mut app, query)
}

#[test]
fn a_tenant_sees_its_own_usage_and_nobody_else_s() {
    let world = spent();
    let by_organization = "SELECT org_id, organization_name, charges, credits_charged, credits_refunded, credits_used FROM tenancy.credit_usage_by_organization";
    assert_eq!(seen(&world, "ada", Some(ACME), by_organization), "org_acme|Acme Inc|4|19.500000|6.000000|13.500000");
    assert_eq!(seen(&world, "bob", Some(BOLT), by_organization), "org_bolt|Bolt Ltd|1|5.000000|0|5.000000");
    assert_eq!(seen(&world, "ada", None, by_organization), "");

    let by_seat = "SELECT seat_id IS NOT NULL, coalesce(seat_role, 'none'), charges, credits_used FROM tenancy.credit_usage_by_seat ORDER BY credits_used";
    let acme = "f|none|1|3.000000\nt|admin|1|4.000000\nt|member|2|6.500000";
    assert_eq!(seen(&world, "ada", Some(ACME), by_seat), acme);
    assert_eq!(seen(&world, "bob", Some(BOLT), by_seat), "t|member|1|5.000000");

    let by_day = "SELECT organization_id IS NOT NULL, day = (now() AT TIME ZONE 'UTC')::date, charges, credits_used, users FROM tenancy.credit_usage_by_day";
    assert_eq!(seen(&world, "ada", Some(ACME), by_day), "t|t|4|13.500000|3");
    assert_eq!(seen(&world, "ada", None, by_day), "f|t|1|1.000000|1");

    let seats =
        "SELECT plan_type, status, seats_total, seats_taken, seats_spending, utilization FROM tenancy.seat_utilization";
    assert_eq!(seen(&world, "ada", Some(ACME), seats), "teams|active|10|2|2|0.2000");
    assert_eq!(seen(&world, "bob", Some(BOLT), seats), "teams|trialing|5|1|1|0.2000");

    let views = [
        "credit_usage_by_organization",
        "credit_usage_by_seat",
        "credit_usage_by_day",
        "seat_utilization",
        "compat_organization_subscriptions",
        "compat_users",
    ];
    for view in views {
        let all = format!("SELECT * FROM tenancy.{view}");
        assert_eq!(shown(&mut world.app(), &all), "", "no identity, no rows: {view}");
        assert_eq!(shown(&mut world.service(), &all), "", "a service is no tenant: {view}");
        fails_with(ask(&mut world.database.connect("met"), &all), "42501");
        assert!(shown(&mut world.operator(), &all).lines().count() >= 2, "an operator sees every tenant's: {view}");
        assert!(ask(&mut world.operator(), &format!("DELETE FROM tenancy.{view}")).is_err(), "{view}");
    }
}

#[test]
fn readers_of_the_old_tables_find_their_columns() {
    let world = spent();
    let old = "SELECT clerk_org_id, plan_type, status, seats_total, seats_used, total_credits, used_credits FROM tenancy.compat_organization_subscriptions";
    assert_eq!(seen(&world, "ada", Some(ACME), old), "org_acme|teams|active|10|2|100|13.5");
    assert_eq!(seen(&world, "ada", None, "SELECT clerk_id, credits FROM tenancy.compat_users"), "ada|8");
    // One's own pool is one's own for whatever tenant the token is.
    assert_eq!(seen(&world, "ada", Some(ACME), "SELECT clerk_id, credits FROM tenancy.compat_users"), "ada|8");
    // An organization without a pool, a user without credits: zero, and never NULL.
    shown(
        &mut world.operator(),
        "SELECT tenancy.register_organization('org_new', 'New'), tenancy.set_subscription('org_new', 'teams', 'active', 1)",
    );
    let fresh = format!("{old} WHERE clerk_org_id = 'org_new'");
    assert_eq!(shown(&mut world.operator(), &fresh), "org_new|teams|active|1|0|0|0");
    assert_eq!(shown(&mut world.operator(), "SELECT credits FROM tenancy.compat_users WHERE clerk_id = 'zoe'"), "0");
    // What has expired is not shown as credits, whether or not anything has settled it.
    shown(
        &mut world.operator(),
        "SELECT tenancy.grant_credits(40, org_id => 'org_acme', expires_at => clock_timestamp() + interval '4 s'),
        tenancy.grant_credits(40, user_id => 'ada', expires_at => clock_timestamp() + interval '4 s')",
    );
    shown(&mut world.service(), "SELECT tenancy.hold_credits('ada', 5, expires_in => interval '3900 ms')");
    assert_eq!(seen(&world, "ada", None, "SELECT credits FROM tenancy.compat_users"), "43");
    std::thread::sleep(Duration::from_millis(4100));
    assert_eq!(seen(&world, "ada", None, "SELECT credits FROM tenancy.compat_users"), "8");
    assert_eq!(seen(&world, "ada", Some(ACME), old), "org_acme|teams|active|10|2|100|13.5");
}
