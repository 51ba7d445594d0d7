//! An oracle: thousands of generated tokens, good and mutated, judged by us and by PyJWT. Every class of difference is
//! in the table below with its reason; none other is let pass. Without Python and PyJWT the test says so and is skipped.

mod common;

use common::{AUDIENCE, Database, ISSUER, cluster};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

const TOKENS: &str = "4000";

/// What we refuse and PyJWT accepts: the change, our reason, and why. There is no table of the opposite: what PyJWT
/// refuses, we refuse.
const STRICTER: [(&str, &str, &str); 18] = [
    ("claim_exp", "invalid_claim", "a time is a whole number of seconds: PyJWT rounds, and takes digits in a string"),
    ("claim_nbf", "invalid_claim", "as exp; and never negative or null"),
    ("claim_iat", "invalid_claim", "as exp; and never negative or null"),
    (
        "claim_sub",
        "invalid_claim",
        "a subject is an id: 1 to 255 characters, no control characters, no space around it",
    ),
    ("claim_sub", "reserved_id", "\"::\" separates a namespace from an id (design §2)"),
    ("claim_jti", "invalid_claim", "a jti is an id, since it can be revoked; null is none"),
    ("header_typ", "malformed_header", "typ is a string (RFC 7515 §4.1.9)"),
    ("header_typ", "token_type", "a DPoP proof or another kind of JWT opens no session (RFC 8725 §3.11)"),
    ("header_cty", "unsupported_header", "a nested JWT (RFC 7519 §5.2)"),
    ("header_b64", "unsupported_header", "RFC 7797: changes what is signed"),
    ("header_zip", "unsupported_header", "RFC 7516 §4.1.3: changes the payload"),
    ("header_jwk", "embedded_key", "a key of the bearer's own (RFC 7515 §4.1.3)"),
    ("header_jku", "embedded_key", "a place to fetch a key from (RFC 7515 §4.1.2)"),
    ("header_crit", "unsupported_header", "an extension we must understand and do not (RFC 7515 §4.1.11)"),
    ("pad", "malformed_base64", "base64url is without padding (RFC 7515 §2)"),
    ("space", "malformed_base64", "base64url is without white space (RFC 7515 §2)"),
    ("bit", "malformed_base64", "the last character's spare bits are zero: one token has one spelling (RFC 4648 §3.5)"),
    ("bit", "duplicate_member", "a changed letter made two members the same (RFC 7519 §4)"),
];

#[test]
fn pyjwt_and_we_agree_but_for_what_is_explained() {
    let Some(python) = std::env::var_os("PGT_PYTHON") else {
        crate::common::say!("skipped: PGT_PYTHON names no Python with PyJWT (scripts/peers.sh)");
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/pyjwt_oracle.py");
    let run = |arguments: &[&str]| -> String {
        let output = Command::new(&python).arg(script).args(arguments).output().expect("python runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("python writes UTF-8")
    };
    let database = cluster().database();
    let keys = cluster().folder().join("oracle_keys.json").display().to_string();
    run(&["keys", &keys]);
    add_keys(&database, &std::fs::read_to_string(&keys).expect("the keys were written"));

    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    let seed = std::env::var("PGT_SEED").unwrap_or_else(|_| now.subsec_nanos().to_string());
    crate::common::say!("seed {seed} (PGT_SEED={seed} repeats the mutations)");
    let generated = run(&[&seed, TOKENS, ISSUER, AUDIENCE, &now.as_secs().to_string(), &keys]);
    let cases: Vec<Map<String, Value>> =
        generated.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect();
    assert_eq!(cases.len().to_string(), TOKENS);
    let tokens: Vec<&str> = cases.iter().map(|case| case["token"].as_str().expect("a token is text")).collect();
    let ours = verdicts(&database, &tokens);

    let mut unexplained: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    let (mut agreed_valid, mut agreed_refused, mut explained) = (0, 0, 0);
    for (case, reason) in cases.iter().zip(&ours) {
        let theirs = case["error"].as_str();
        let mutation = case["mutation"].as_str().expect("a mutation has a name");
        let is_explained = match (reason.as_deref(), theirs) {
            (None, None) => {
                agreed_valid += 1;
                continue;
            }
            (Some(_), Some(_)) => {
                agreed_refused += 1;
                continue;
            }
            (Some(ours), None) => {
                let changes: Vec<&str> = mutation.split('+').collect();
                STRICTER.iter().any(|(change, reason, _)| changes.contains(change) && *reason == ours)
            }
            (None, Some(_)) => false,
        };
        explained += usize::from(is_explained);
        if !is_explained {
            let class = (mutation.to_owned(), format!("ours: {reason:?}"), format!("PyJWT: {theirs:?}"));
            *unexplained.entry(class).or_default() += 1;
        }
    }
    crate::common::say!("both accept {agreed_valid}, both refuse {agreed_refused}, explained differences {explained}");
    assert!(unexplained.is_empty(), "seed {seed}: differences that nobody explained: {unexplained:#?}");
    assert!(agreed_valid > 200 && agreed_refused > 1000, "the generator has gone stale");
}

fn add_keys(database: &Database, keys: &str) {
    let mut ops = database.connect("ops");
    for key in serde_json::from_str::<Vec<Value>>(keys).expect("keys are JSON") {
        match key["secret"].as_str() {
            Some(secret) => ops
                .execute(
                    "SELECT tenancy.add_secret($1, $2, $3, decode($4, 'hex'))",
                    &[&ISSUER, &key["kid"].as_str(), &key["alg"].as_str(), &secret],
                )
                .expect("a secret can be added"),
            None => ops.execute("SELECT tenancy.add_key($1, $2)", &[&ISSUER, &key["jwk"]]).expect("a key can be added"),
        };
    }
}

/// The reason each token is refused for; none where it is taken.
fn verdicts(database: &Database, tokens: &[&str]) -> Vec<Option<String>> {
    let rows = database
        .connect("app")
        .query(
            "SELECT v.valid, v.reason \
               FROM unnest($1::text[]) WITH ORDINALITY AS t (token, place), tenancy.verify_token(t.token) AS v \
              ORDER BY t.place",
            &[&tokens],
        )
        .expect("verify_token raises nothing");
    rows.iter()
        .map(|row| {
            let reason: Option<String> = row.get(1);
            assert_eq!(row.get::<_, bool>(0), reason.is_none());
            reason
        })
        .collect()
}
