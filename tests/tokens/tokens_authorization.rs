//! PKCE and refresh tokens: RFC 7636, single use, rotation, reuse, races.

use crate::common::{base64url, in_parallel, refused};
use crate::world::{ORG, OTHER, USER, audit, claims, reason, row, text, world};
use aws_lc_rs::digest::{SHA256, digest};
use postgres::{Client, Transaction};

/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const STATE: &str = "a state of the client's own";
const REDIRECT: &str = "vscode://acme.editor/callback";

pub struct Pair {
    pub access: String,
    pub refresh: String,
}

fn start(client: &mut Client, user: &str, org: Option<&str>, challenge: &str) -> String {
    let start = "SELECT code FROM tenancy.start_authorization($1, $2, $3, $4, $5)";
    text(client, start, &[&user, &challenge, &STATE, &REDIRECT, &org])
}

/// The status, and the tokens where there are any.
fn complete(client: &mut Client, code: &str, verifier: &str, state: &str, redirect: &str) -> (String, Option<Pair>) {
    let complete = "SELECT status, access_token, refresh_token, expires_at IS NULL FROM tenancy.complete_authorization($1, $2, $3, $4)";
    let row = row(client, complete, &[&code, &verifier, &state, &redirect]);
    let pair = row.get::<_, Option<String>>(1).map(|access| Pair { access, refresh: row.get(2) });
    assert_eq!(pair.is_none(), row.get::<_, bool>(3));
    (row.get(0), pair)
}

/// A whole authorization.
pub fn authorize(client: &mut Client, user: &str, org: Option<&str>) -> Pair {
    let code = start(client, user, org, CHALLENGE);
    let (status, pair) = complete(client, &code, VERIFIER, STATE, REDIRECT);
    assert_eq!(status, "issued");
    pair.unwrap()
}

/// A code, as [`authorize`] starts with.
pub fn start_for(client: &mut Client, user: &str, org: Option<&str>) -> String {
    start(client, user, org, CHALLENGE)
}

/// The status that the exchange of such a code gives.
pub fn complete_started(transaction: &mut Transaction, code: &str) -> String {
    let complete = "SELECT status FROM tenancy.complete_authorization($1, $2, $3, $4)";
    transaction.query_one(complete, &[&code, &VERIFIER, &STATE, &REDIRECT]).unwrap().get(0)
}

fn refresh(client: &mut Client, token: &str) -> (String, Option<String>, Option<String>) {
    let row =
        row(client, "SELECT status, access_token, new_refresh_token FROM tenancy.refresh_access_token($1)", &[&token]);
    (row.get(0), row.get(1), row.get(2))
}

/// The grace of the immediate parent is over.
fn later(client: &mut Client) {
    client.batch_execute("UPDATE tenancy.refresh_tokens SET replaced_at = replaced_at - interval '10 s'").unwrap();
}

#[test]
fn rfc_7636_appendix_b_is_issued_tokens() {
    let database = world();
    let mut client = database.superuser();
    let pair = authorize(&mut client, USER, Some(ORG));
    let claims = claims(&mut client, &pair.access).unwrap();
    assert_eq!((claims["type"].as_str(), claims["clerk_org_id"].as_str()), (Some("access"), Some(ORG)));
    assert_eq!(reason(&mut client, &pair.refresh).unwrap(), "token_type");
    assert_eq!(audit(&mut client, "authorization_code"), ["generated"]);
}

/// A challenge, a verifier, and whether they fit; None: the challenge itself is refused.
#[test]
fn edge_cases_of_challenge_and_verifier() {
    let database = world();
    let mut client = database.superuser();
    let s256 = |verifier: &str| base64url(digest(&SHA256, verifier.as_bytes()).as_ref());
    let of = |length: usize| "aB3-._~x".repeat(length.div_ceil(8))[..length].to_owned();
    let cases: Vec<(String, String, Option<bool>)> = vec![
        (s256(&of(43)), of(43), Some(true)),
        (s256(&of(128)), of(128), Some(true)),
        (s256(&of(42)), of(42), Some(false)),
        (s256(&of(129)), of(129), Some(false)),
        (
            s256("a verifier with spaces, which RFC 7636 does not allow"),
            "a verifier with spaces, which RFC 7636 does not allow".into(),
            Some(false),
        ),
        (s256(&of(43)), of(44), Some(false)),
        (s256(&of(43)), String::new(), Some(false)),
        // The method plain is not there: nothing matches itself.
        (of(43), of(43), Some(false)),
        (CHALLENGE.into(), CHALLENGE.into(), Some(false)),
        (of(128), of(128), Some(false)),
        (CHALLENGE.to_lowercase(), VERIFIER.into(), Some(false)),
        (CHALLENGE[..42].into(), VERIFIER.into(), None),
        (format!("{CHALLENGE}="), VERIFIER.into(), None),
        (of(129), of(129), None),
        (String::new(), of(43), None),
        (format!("{}+/", &CHALLENGE[..41]), VERIFIER.into(), None),
    ];
    for (challenge, verifier, fits) in cases {
        let args: [&(dyn postgres::types::ToSql + Sync); 4] = [&USER, &challenge, &STATE, &REDIRECT];
        let code = client.query_one("SELECT code FROM tenancy.start_authorization($1, $2, $3, $4)", &args);
        match fits {
            None => drop(refused(code, "22023", "invalid_code_challenge")),
            Some(fits) => {
                let (status, _) = complete(&mut client, &code.unwrap().get::<_, String>(0), &verifier, STATE, REDIRECT);
                assert_eq!(status, if fits { "issued" } else { "invalid_grant" }, "{challenge} {verifier}");
            }
        }
    }
    let start = |state: &str, redirect: &str| {
        database
            .superuser()
            .query("SELECT tenancy.start_authorization($1, $2, $3, $4)", &[&USER, &CHALLENGE, &state, &redirect])
    };
    refused(start("fifteen letters", REDIRECT), "22023", "invalid_state");
    for redirect in
        ["/relative", "https://a.test/#fragment", "javascript:alert(1)", "data:text/html,x", "https://a.test/a b"]
    {
        refused(start(STATE, redirect), "22023", "invalid_redirect_uri");
    }
    refused(start(STATE, ""), "22023", "invalid_argument");
}

#[test]
fn whatever_is_wrong_with_a_code_has_one_answer_and_its_own_line_in_the_audit() {
    let database = world();
    let mut client = database.superuser();
    for (verifier, state, redirect) in [
        ("a".repeat(43).as_str(), STATE, REDIRECT),
        (VERIFIER, "another state altogether", REDIRECT),
        (VERIFIER, STATE, "vscode://acme.editor/callback/"),
        (VERIFIER, STATE, "https://evil.test/callback"),
    ] {
        let code = start(&mut client, USER, None, CHALLENGE);
        let (status, pair) = complete(&mut client, &code, verifier, state, redirect);
        assert_eq!((status.as_str(), pair.is_none()), ("invalid_grant", true));
        // A wrong guess used it up.
        assert_eq!(complete(&mut client, &code, VERIFIER, STATE, REDIRECT).0, "invalid_grant");
    }
    let code = start(&mut client, USER, None, CHALLENGE);
    client.batch_execute("UPDATE tenancy.oauth_codes SET expires_at = now()").unwrap();
    assert_eq!(complete(&mut client, &code, VERIFIER, STATE, REDIRECT).0, "invalid_grant");
    assert_eq!(complete(&mut client, "pgc_nobody_gave_this", VERIFIER, STATE, REDIRECT).0, "invalid_grant");
    let code = start(&mut client, OTHER, None, CHALLENGE);
    client.query("SELECT tenancy.revoke_user($1)", &[&OTHER]).unwrap();
    assert_eq!(complete(&mut client, &code, VERIFIER, STATE, REDIRECT).0, "invalid_grant");
    let refusals =
        "SELECT string_agg(reason, ' ' ORDER BY created_at) FROM tenancy.token_audit_logs WHERE action = 'refused'";
    assert_eq!(
        text(&mut client, refusals, &[]),
        "wrong_verifier code_reused wrong_state code_reused foreign_redirect code_reused foreign_redirect code_reused \
         expired_code unknown_code user_revoked"
    );
    let tokens = "SELECT count(*)::text FROM tenancy.refresh_tokens";
    assert_eq!(text(&mut client, tokens, &[]), "0");
    let null = client.query("SELECT tenancy.complete_authorization(NULL, '', '', '')", &[]);
    refused(null, "22023", "invalid_argument");
}

#[test]
fn a_second_use_of_a_code_revokes_what_the_first_gave() {
    let database = world();
    let mut client = database.superuser();
    let code = start(&mut client, USER, Some(ORG), CHALLENGE);
    let pair = complete(&mut client, &code, VERIFIER, STATE, REDIRECT).1.unwrap();
    assert!(claims(&mut client, &pair.access).is_some());
    // Even by somebody who has nothing but the code.
    assert_eq!(complete(&mut client, &code, "", "", "").0, "invalid_grant");
    assert_eq!(reason(&mut client, &pair.access).unwrap(), "revoked");
    assert_eq!(refresh(&mut client, &pair.refresh).0, "revoked");
}

#[test]
fn a_code_raced_for_gives_one_pair_and_the_race_revokes_it() {
    let database = world();
    let code = start(&mut database.superuser(), USER, None, CHALLENGE);
    let outcomes = in_parallel(6, |_| complete(&mut database.connect("app"), &code, VERIFIER, STATE, REDIRECT));
    let pairs: Vec<Pair> = outcomes.into_iter().filter_map(|(_, pair)| pair).collect();
    assert_eq!(pairs.len(), 1);
    assert_eq!(refresh(&mut database.connect("app"), &pairs[0].refresh).0, "revoked");
}

#[test]
fn identity_20_refresh_rotates_and_reuse_revokes_the_family() {
    let database = world();
    let mut client = database.superuser();
    let other = authorize(&mut client, USER, None);
    let first = authorize(&mut client, USER, Some(ORG));
    let (status, access, second) = refresh(&mut client, &first.refresh);
    assert_eq!(status, "refreshed");
    let (access, second) = (access.unwrap(), second.unwrap());
    assert_eq!(claims(&mut client, &access).unwrap()["clerk_org_id"], ORG);

    // Within the grace: an access token, no refresh token, and nobody is punished.
    let (status, spare, none) = refresh(&mut client, &first.refresh);
    assert_eq!((status.as_str(), none), ("grace", None));
    assert!(claims(&mut client, &spare.unwrap()).is_some());
    let third = refresh(&mut client, &second).2.unwrap();

    // Not the immediate parent any more: the grace is not for grandparents.
    assert_eq!(refresh(&mut client, &first.refresh), ("reused".into(), None, None));
    for token in [&first.refresh, &second, &third] {
        assert_eq!(refresh(&mut client, token), ("revoked".into(), None, None));
    }
    assert_eq!(reason(&mut client, &access).unwrap(), "revoked");
    assert_eq!(reason(&mut client, &first.access).unwrap(), "revoked");
    // Another family of the same user lives on.
    assert!(claims(&mut client, &other.access).is_some());
    let next = refresh(&mut client, &other.refresh).2.unwrap();
    later(&mut client);
    assert_eq!(refresh(&mut client, &other.refresh).0, "reused");
    assert_eq!(refresh(&mut client, &next).0, "revoked");
    assert_eq!(
        audit(&mut client, "refresh_token"),
        [
            "generated",
            "generated",
            "refreshed",
            "refreshed grace",
            "refreshed",
            "revoked reused",
            "refused reused",
            "refused revoked",
            "refused revoked",
            "refused revoked",
            "refreshed",
            "revoked reused",
            "refused reused",
            "refused revoked"
        ]
    );
}

#[test]
fn what_is_wrong_with_a_refresh_token_is_a_status() {
    let database = world();
    let mut client = database.superuser();
    let pair = authorize(&mut client, USER, Some(ORG));
    for token in ["", "garbage", &pair.access, &format!("{}A", pair.refresh)] {
        assert_eq!(refresh(&mut client, token), ("invalid".into(), None, None));
    }
    client.batch_execute("UPDATE tenancy.refresh_tokens SET expires_at = now()").unwrap();
    assert_eq!(refresh(&mut client, &pair.refresh), ("expired".into(), None, None));
    let pair = authorize(&mut client, USER, Some(ORG));
    client.query("SELECT tenancy.revoke_seat($1, $2)", &[&ORG, &USER]).unwrap();
    let (_, access, next) = refresh(&mut client, &pair.refresh);
    assert!(claims(&mut client, &access.unwrap()).unwrap()["clerk_org_id"].is_null(), "no seat: personal");
    client.query("SELECT tenancy.revoke_user($1)", &[&USER]).unwrap();
    assert_eq!(refresh(&mut client, &next.unwrap()).0, "revoked");
}

#[test]
fn signing_out_ends_the_family_and_its_access_tokens() {
    let database = world();
    let mut app = database.connect("app");
    let pair = authorize(&mut database.connect("svc"), USER, Some(ORG));
    let next = refresh(&mut app, &pair.refresh).2.unwrap();
    let mut sign_out =
        |token: &str| row(&mut app, "SELECT tenancy.revoke_refresh_token($1)", &[&token]).get::<_, bool>(0);
    assert!(!sign_out("garbage") && !sign_out(&pair.access));
    assert!(sign_out(&pair.refresh), "any token of the family will do");
    assert!(!sign_out(&next));
    assert_eq!(refresh(&mut app, &next).0, "revoked");
    assert_eq!(reason(&mut app, &pair.access).unwrap(), "revoked");
}

/// Attack 38.
#[test]
fn identity_38_twenty_sessions_refresh_one_token_and_one_wins() {
    let database = world();
    let mut client = database.superuser();
    let pair = authorize(&mut client, USER, Some(ORG));
    let race = |token: &str| in_parallel(20, |_| refresh(&mut database.connect("app"), token));
    let outcomes = race(&pair.refresh);
    let winners: Vec<_> = outcomes.iter().filter_map(|(_, _, next)| next.clone()).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    for (status, access, next) in &outcomes {
        assert_eq!(status, if next.is_some() { "refreshed" } else { "grace" });
        assert!(access.is_some());
    }
    let living = "SELECT count(*) FILTER (WHERE replaced_at IS NULL) || ' of ' || count(*) FROM tenancy.refresh_tokens";
    assert_eq!(text(&mut client, living, &[]), "1 of 2");

    // After the grace the same storm revokes the family once, and no descendant gets through.
    later(&mut client);
    let (stale, living) = (&pair.refresh, &winners[0]);
    let outcomes = in_parallel(20, |index| {
        let token = if index % 2 == 0 { stale } else { living };
        (index, refresh(&mut database.connect("app"), token))
    });
    let reused = outcomes.iter().filter(|(_, (status, ..))| status == "reused").count();
    assert_eq!(reused, 1, "{outcomes:?}");
    let families = "SELECT string_agg(revoked_reason, ' ') FROM tenancy.token_families";
    assert_eq!(text(&mut client, families, &[]), "reused");
    let ended = "SELECT count(*)::text FROM tenancy.refresh_tokens WHERE replaced_at IS NULL";
    assert_eq!(text(&mut client, ended, &[]), "1");
    for (_, (_, _, next)) in &outcomes {
        if let Some(next) = next {
            assert_eq!(refresh(&mut client, next).0, "revoked");
        }
    }
}
