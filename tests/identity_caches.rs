//! What a backend keeps of keys and tokens: bounded, ended by every change, never older than a key's window or a seat.

mod common;

use common::{AUDIENCE, Cluster, ISSUER, KEY_ID, SECRET, Token, cluster, fails_with, in_parallel, refused};
use postgres::{Client, GenericClient};
use serde_json::json;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

fn secret(number: usize) -> Vec<u8> {
    format!("secret number {number:03} of the tests, long enough").into_bytes()
}

fn add_secret(ops: &mut Client, kid: &str, secret: &[u8]) {
    ops.execute("SELECT tenancy.add_secret($1, $2, 'HS256', $3)", &[&ISSUER, &kid, &secret]).unwrap();
}

fn authenticate(client: &mut Client, token: &str) -> Result<String, postgres::Error> {
    let mut transaction = client.transaction()?;
    Ok(transaction.query_one("SELECT tenancy.authenticate($1)", &[&token])?.get(0))
}

fn reason(client: &mut impl GenericClient, token: &str) -> Option<String> {
    client.query_one("SELECT reason FROM tenancy.verify_token($1)", &[&token]).expect("it raises nothing").get(0)
}

/// Resident memory of the client's backend, in kB, without the shared buffers it has touched.
fn memory(client: &mut Client) -> u64 {
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the backend runs here");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("Linux says RssAnon");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn rotations_under_load_reject_no_token() {
    let database = cluster().database();
    let (stop, verified) = (AtomicBool::new(false), AtomicUsize::new(0));
    let newest = AtomicUsize::new(0);
    // What each session signs with: a key is retired when nobody uses it any more.
    let in_use: [AtomicUsize; 5] = std::array::from_fn(|_| AtomicUsize::new(0));
    add_secret(&mut database.connect("ops"), "r0", &secret(0));
    const ROTATIONS: usize = 12;
    in_parallel(5, |index| {
        if index == 0 {
            let mut ops = database.connect("ops");
            for number in 1..=ROTATIONS {
                // The new key first, then tokens of it, then the old key goes: as docs/how-to/rotate-keys.md says.
                add_secret(&mut ops, &format!("r{number}"), &secret(number));
                newest.store(number, SeqCst);
                std::thread::sleep(Duration::from_millis(150));
                if let Some(old) = number.checked_sub(2) {
                    let deadline = Instant::now() + Duration::from_secs(60);
                    while in_use[1..].iter().any(|used| used.load(SeqCst) <= old) {
                        assert!(Instant::now() < deadline, "a session does not take the newer keys");
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    ops.execute("SELECT tenancy.retire_key($1, $2)", &[&ISSUER, &format!("r{old}")]).unwrap();
                }
            }
            stop.store(true, SeqCst);
            return;
        }
        let mut app = database.connect("app");
        let mut token = (usize::MAX, String::new());
        while !stop.load(SeqCst) {
            // The issuer signs with its newest key; a token lives a little longer than its key does so.
            let number = newest.load(SeqCst);
            in_use[index].store(number, SeqCst);
            if token.0 != number {
                let kid = format!("r{number}");
                token = (number, Token::for_member("alice", "acme").header("kid", kid).sign_with(&secret(number)));
            }
            authenticate(&mut app, &token.1).expect("no token of a usable key is rejected");
            verified.fetch_add(1, SeqCst);
        }
        // And a retired one is dead in this session, which knew it.
        let first = Token::for_member("alice", "acme").header("kid", "r0").sign_with(&secret(0));
        refused(authenticate(&mut app, &first), "PT401", "unknown_key");
    });
    assert!(verified.load(SeqCst) > 100, "{} logins only", verified.load(SeqCst));
}

#[test]
fn a_key_is_used_within_its_window_only_and_a_cached_token_ends_with_it() {
    let database = cluster().database();
    let (mut ops, mut app) = (database.connect("ops"), database.connect("app"));
    let jwk = serde_json::json!({"kty": "RSA", "kid": "rsa-1", "e": "AQAB", "n": include_str!("data/rsa_modulus.txt").trim()});
    let token = include_str!("data/rs256_token.txt").trim();
    ops.execute(
        "SELECT tenancy.add_key($1, $2, not_before => clock_timestamp() + interval '1.5 s', not_after => clock_timestamp() + interval '3.5 s')",
        &[&ISSUER, &jwk],
    )
    .unwrap();
    let status = |ops: &mut Client| -> String {
        ops.query_one("SELECT status FROM tenancy.issuer_key_status WHERE kid = 'rsa-1'", &[]).unwrap().get(0)
    };
    let begun = Instant::now();
    let mut seen = Vec::new();
    while begun.elapsed() < Duration::from_secs(5) {
        let now = (reason(&mut app, token), status(&mut ops));
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // Token and view are asked one after the other: between two states they may differ for a moment.
    let verdicts: Vec<Option<&str>> = dedup(seen.iter().map(|(reason, _)| reason.as_deref()));
    let states: Vec<&str> = dedup(seen.iter().map(|(_, status)| status.as_str()));
    assert_eq!(verdicts, [Some("unknown_key"), None, Some("unknown_key")]);
    assert_eq!(states, ["pending", "usable", "ended"]);
    let backwards = "SELECT tenancy.add_key($1, $2, not_before => now(), not_after => now() - interval '1 s')";
    refused(ops.execute(backwards, &[&ISSUER, &jwk]), "22023", "invalid_validity");
}

fn dedup<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.dedup();
    items
}

#[test]
fn the_cache_of_tokens_is_bounded() {
    let database = cluster().database();
    let mut app = database.connect("app");
    let filler = "x".repeat(5000);
    let mut take = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let token = Token::for_user(&format!("u{number}")).claim("filler", filler.as_str()).sign();
            assert_eq!(reason(&mut app, &token), None);
        }
        memory(&mut app)
    };
    let full = take(0..600);
    let later = take(600..1500);
    assert!(later < full + 8 * 1024, "{full} kB after 600 tokens, {later} kB after 1,500");
    assert!(full < 100 * 1024, "{full} kB");
}

#[test]
fn identity_37_a_storm_of_unknown_kids_costs_no_memory_and_few_lines() {
    let own = Cluster::start(Default::default());
    let database = own.database();
    let mut app = database.connect("app");
    let mut storm = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let kid = format!("{number}-{}", "k".repeat(200));
            let token = Token::for_user("alice").header("kid", kid).sign();
            refused(app.query_one("SELECT tenancy.authenticate($1)", &[&token]), "PT401", "unknown_key");
            let token = Token::for_user("alice").claim("iss", format!("{number}{}", "i".repeat(4000))).sign();
            refused(app.query_one("SELECT tenancy.authenticate($1)", &[&token]), "PT401", "unknown_issuer");
        }
        memory(&mut app)
    };
    // Beyond the bound of what is remembered, twice.
    let full = storm(0..1100);
    let later = storm(1100..1800);
    assert!(later < full + 8 * 1024, "{full} kB after the first thousand, {later} kB after more");
    authenticate(&mut app, &Token::for_user("alice").sign()).expect("who is welcome still enters");
    // Beside the server's own line for each error, which log_min_messages governs.
    let log = own.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("authentication refused")).collect();
    assert!((1..200).contains(&lines.len()), "{} lines of 3,600 refusals", lines.len());
    assert!(lines.iter().all(|line| line.len() < 600), "a line is short, whatever the bearer wrote");
}

#[test]
fn a_seat_that_ends_by_itself_leaves_a_cached_identity() {
    let database = cluster().database();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "SELECT tenancy.register_user('alice'); SELECT tenancy.register_organization('acme', 'Acme');
         SELECT tenancy.set_membership('alice', 'acme', 'org:member');
         SELECT tenancy.set_subscription('acme', 'team', 'active', 3);
         SELECT tenancy.assign_seat('acme', 'alice', expires_at => clock_timestamp() + interval '4 s')",
    )
    .unwrap();
    let mut app = database.connect("app");
    let token = Token::for_member("alice", "acme").sign();
    let mut seat = || -> Option<String> {
        let mut transaction = app.transaction().unwrap();
        transaction.query_one("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
        transaction.query_one("SELECT tenancy.seat_id()::text", &[]).unwrap().get(0)
    };
    assert!(seat().is_some());
    std::thread::sleep(Duration::from_millis(4200));
    assert_eq!(seat(), None, "nothing told the session, and it knows");
}

#[test]
fn an_issuer_that_is_changed_is_changed_in_every_session() {
    let database = cluster().database();
    let (mut ops, mut app) = (database.connect("ops"), database.connect("app"));
    let token = Token::for_member("alice", "acme").claim("tid", "other").sign();
    assert_eq!(reason(&mut app, &token), None);
    let mut again = |arguments: &str| {
        ops.batch_execute(&format!("SELECT tenancy.add_issuer('{ISSUER}', {arguments})")).unwrap();
    };
    again("ARRAY['somebody else']");
    assert_eq!(reason(&mut app, &token).as_deref(), Some("audience"));
    again(&format!("ARRAY['{AUDIENCE}'], namespace => 'partner'"));
    let mut transaction = app.transaction().unwrap();
    transaction.query_one("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
    let tenant: String = transaction.query_one("SELECT tenancy.tenant_id()", &[]).unwrap().get(0);
    assert_eq!(tenant, "partner::other");
}

#[test]
fn many_cursors_of_a_session_that_never_logs_in_are_forgotten_when_closed() {
    let database = cluster().database();
    let mut owner = database.superuser();
    let mut open_and_close = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            owner.batch_execute(&format!("DECLARE c{number} CURSOR WITH HOLD FOR SELECT 1; CLOSE c{number}")).unwrap();
        }
        memory(&mut owner)
    };
    let first = open_and_close(0..500);
    let later = open_and_close(500..2500);
    assert!(later < first + 2 * 1024, "{first} kB, then {later} kB");
}

#[test]
fn a_secret_s_row_cannot_be_moved_to_another_key() {
    // The owner could; what is sealed for one key does not open as another (no table is writable by anybody else).
    let database = cluster().database();
    let mut owner = database.superuser();
    add_secret(&mut database.connect("ops"), "key-2", &secret(2));
    owner
        .batch_execute(&format!(
            "UPDATE tenancy.issuer_keys AS k SET sealed_secret = o.sealed_secret FROM tenancy.issuer_keys AS o \
              WHERE k.kid = '{KEY_ID}' AND o.kid = 'key-2'"
        ))
        .unwrap();
    let token = Token::for_user("alice").sign_with(SECRET);
    let error = fails_with(database.connect("app").query("SELECT * FROM tenancy.verify_token($1)", &[&token]), "55000");
    assert!(error.detail().unwrap().contains("corrupt"), "{error:?}");
}

/// Whoever begins a transaction after a revocation was committed is refused, in sessions that never stop asking.
#[test]
fn revocations_raced_by_logins_are_final_from_their_commit_on() {
    let database = cluster().database();
    const ROUNDS: usize = 12;
    let revoked = AtomicUsize::new(0);
    let token = |round: usize| {
        Token::for_user(&format!("u{round}")).claim("jti", format!("j{round}")).claim("sid", format!("s{round}")).sign()
    };
    let tokens: Vec<String> = (0..ROUNDS).map(token).collect();
    let (logins, refusals) = (AtomicUsize::new(0), AtomicUsize::new(0));
    in_parallel(5, |index| {
        if index == 0 {
            let mut ops = database.connect("ops");
            for round in 0..ROUNDS {
                std::thread::sleep(Duration::from_millis(60));
                match round % 3 {
                    0 => ops.execute(
                        "SELECT tenancy.revoke_token($1, $2, now() + interval '1 hour')",
                        &[&ISSUER, &format!("j{round}")],
                    ),
                    1 => ops.execute("SELECT tenancy.revoke_session($1, $2)", &[&ISSUER, &format!("s{round}")]),
                    _ => ops.execute("SELECT tenancy.revoke_user($1)", &[&format!("u{round}")]),
                }
                .unwrap();
                // Committed: from now on nobody may begin with it.
                revoked.store(round + 1, SeqCst);
            }
            return;
        }
        let mut app = database.connect("app");
        while revoked.load(SeqCst) < ROUNDS {
            let ended = revoked.load(SeqCst);
            // The one about to be revoked, and one that has been.
            for round in [ended.min(ROUNDS - 1), ended.saturating_sub(1)] {
                match authenticate(&mut app, &tokens[round]) {
                    Ok(_) => {
                        assert!(round >= ended, "token {round} opened a session after {ended} were revoked");
                        logins.fetch_add(1, SeqCst);
                    }
                    outcome => {
                        refused(outcome, "PT401", "revoked");
                        refusals.fetch_add(1, SeqCst);
                    }
                }
            }
        }
        for token in &tokens {
            refused(authenticate(&mut app, token), "PT401", "revoked");
        }
    });
    assert!(logins.load(SeqCst) > 50 && refusals.load(SeqCst) > 50, "{logins:?} logins, {refusals:?} refusals");
}

#[test]
fn a_token_never_seen_is_judged_by_the_latest_revocations_and_members() {
    let database = cluster().database();
    let (mut ops, mut app, mut owner) = (database.connect("ops"), database.connect("app"), database.superuser());
    let named =
        |jti: &str| Token::for_member("alice", "acme").claim("jti", jti).claim("sid", format!("s-{jti}")).sign();
    let revoked = Some("revoked".to_owned());
    // The first reads revocations and directory; what follows finds them kept, but for what has changed.
    assert_eq!(reason(&mut app, &named("a")), None);
    ops.execute("SELECT tenancy.revoke_token($1, 'b', now() + interval '1 h')", &[&ISSUER]).unwrap();
    assert_eq!((reason(&mut app, &named("b")), reason(&mut app, &named("c"))), (revoked.clone(), None));
    ops.execute("SELECT tenancy.revoke_session($1, 's-d')", &[&ISSUER]).unwrap();
    assert_eq!((reason(&mut app, &named("d")), reason(&mut app, &named("e"))), (revoked.clone(), None));
    // One that was rolled back never was, in the session that made it and in the others.
    let mut transaction = ops.transaction().unwrap();
    let mut inner = transaction.transaction().unwrap();
    inner.execute("SELECT tenancy.revoke_token($1, 'f', NULL)", &[&ISSUER]).unwrap();
    assert_eq!(reason(&mut inner, &named("f")), revoked);
    inner.rollback().unwrap();
    assert_eq!(reason(&mut transaction, &named("f")), None);
    transaction.rollback().unwrap();
    assert_eq!((reason(&mut ops, &named("f")), reason(&mut app, &named("f"))), (None, None));
    // More than a session keeps.
    let many = "INSERT INTO tenancy.revocations (kind, scope, value) SELECT 'token', $1, 'm-' || i FROM generate_series(1, 2000) AS i";
    owner.execute(many, &[&ISSUER]).unwrap();
    owner.execute("SELECT tenancy._changed('revocations')", &[]).unwrap();
    for (jti, expected) in [("m-1", &revoked), ("m-2000", &revoked), ("b", &revoked), ("g", &None), ("h", &None)] {
        assert_eq!(&reason(&mut app, &named(jti)), expected, "{jti}");
    }
    owner.execute("DELETE FROM tenancy.revocations", &[]).unwrap();
    owner.execute("SELECT tenancy._changed('revocations')", &[]).unwrap();
    assert_eq!((reason(&mut app, &named("m-3")), reason(&mut app, &named("m-4"))), (None, None));
    let mut tenant = |token: &str| -> String {
        let mut transaction = app.transaction().unwrap();
        transaction.execute("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
        transaction.query_one("SELECT tenancy.tenant_id()", &[]).unwrap().get(0)
    };
    assert_eq!(tenant(&named("i")), "acme");
    ops.execute("SELECT tenancy.register_tenant('home', 'Home')", &[]).unwrap();
    ops.execute("SELECT tenancy.register_organization('acme', 'Acme', 'home')", &[]).unwrap();
    assert_eq!((tenant(&named("j")), tenant(&named("i"))), ("home".to_owned(), "home".to_owned()));
    owner.execute("UPDATE tenancy.tenants SET status = 'suspended' WHERE tenant_id = 'home'", &[]).unwrap();
    owner.execute("SELECT tenancy._changed('tenants')", &[]).unwrap();
    assert_eq!(reason(&mut app, &named("k")), Some("tenant_suspended".to_owned()));
    ops.execute("SELECT tenancy.revoke_user('alice')", &[]).unwrap();
    assert_eq!(reason(&mut app, &named("l")), revoked);
}

#[test]
fn each_transaction_has_a_correlation_id_of_its_own() {
    let database = cluster().database();
    let token = Token::for_user("alice").sign();
    let ids = in_parallel(4, |_| {
        let mut app = database.connect("app");
        // More than one fetch of random bytes is good for.
        let once = |app: &mut Client| -> uuid::Uuid {
            let mut transaction = app.transaction().unwrap();
            transaction.execute("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
            let id: String = transaction.query_one("SELECT tenancy.correlation_id()", &[]).unwrap().get(0);
            id.parse().expect("a uuid")
        };
        (0..150).map(|_| once(&mut app)).collect::<Vec<_>>()
    });
    let ids: Vec<uuid::Uuid> = ids.into_iter().flatten().collect();
    assert!(ids.iter().all(|id| id.get_version_num() == 7));
    let distinct: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
    // Not alone by their time, and not alone in their last bytes: every part that is random differs.
    let random: std::collections::HashSet<_> = ids.iter().map(|id| &id.as_bytes()[8..]).collect();
    assert_eq!(random.len(), ids.len());
}

#[test]
fn a_token_says_the_same_when_it_is_known() {
    let database = cluster().database();
    let mut app = database.connect("app");
    let token = Token::for_member("alice", "acme")
        .claim("sid", "s-1")
        .claim("permissions", vec!["b", "a"])
        .claim("deep", json!({"é": [1, -10000, {"x": null}], "": "\"\\"}));
    let claims = |app: &mut Client, token: &str| -> String {
        app.query_one("SELECT claims::text FROM tenancy.verify_token($1)", &[&token]).unwrap().get(0)
    };
    // With a number that only numeric reads, and without one.
    for token in [token.clone().claim("n", 1.5), token] {
        let token = token.sign();
        let first = claims(&mut app, &token);
        assert!(first.contains("-10000") && first.contains("acme"), "{first}");
        assert_eq!(claims(&mut app, &token), first);
        let identity = |client: &mut Client| -> (String, String, bool) {
            let mut transaction = client.transaction().unwrap();
            transaction.execute("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
            let row = transaction
                .query_one("SELECT tenancy.session_id(), tenancy.claims()::text, tenancy.has_permission('a')", &[])
                .unwrap();
            (row.get(0), row.get(1), row.get(2))
        };
        // Known by verify_token only; known by authenticate; met by authenticate first.
        let known = identity(&mut app);
        assert_eq!((known.0.as_str(), &known.1, known.2), ("s-1", &first, true));
        assert_eq!(identity(&mut app), known);
        assert_eq!(identity(&mut database.connect("app")), known);
    }
}
