//! Our tokens verify elsewhere; tokens of contract S that others made authenticate here.

use crate::peers::{Peer, ask, decode};
use crate::world::{AUDIENCE, ISSUER, ORG, SECRET, USER, identity, row, text, world};
use serde_json::{Value, json};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn verified_by(peer: Peer) {
    let database = world();
    let mut client = database.superuser();
    for (profile, algorithm) in [("ed", "EdDSA"), ("es", "ES256"), ("rs", "RS256")] {
        let add = "SELECT tenancy.add_signing_profile($1, $2, $3, $4, $1 || '-1')";
        client.query(add, &[&profile, &format!("https://{profile}.test"), &AUDIENCE, &algorithm]).unwrap();
    }
    let jwks: Value = row(&mut client, "SELECT tenancy.jwks()", &[]).get(0);
    for (profile, algorithm) in [("default", "HS256"), ("ed", "EdDSA"), ("es", "ES256"), ("rs", "RS256")] {
        let issuer = if profile == "default" { ISSUER.to_owned() } else { format!("https://{profile}.test") };
        let secret = (algorithm == "HS256").then(|| hex(SECRET));
        for token in [
            text(&mut client, "SELECT tenancy.issue_access_token($1, $2, profile => $3)", &[&USER, &ORG, &profile]),
            text(&mut client, "SELECT tenancy.issue_dashboard_token($1, profile => $2)", &[&USER, &profile]),
            text(
                &mut client,
                "SELECT token FROM tenancy.issue_extension_token($1, $2, profile => $3)",
                &[&USER, &ORG, &profile],
            ),
        ] {
            let request = |token: &str, issuer: &str, audience: &str| {
                json!({"do": "verify", "token": token, "jwks": jwks, "secret": secret, "algorithm": algorithm,
                       "audience": audience, "issuer": issuer})
            };
            let Some(answer) = ask(peer, &request(&token, &issuer, AUDIENCE)) else { return };
            assert_eq!(answer["claims"], decode(token.split('.').nth(1).unwrap()), "{peer:?} {algorithm}: {answer}");
            let other = ask(peer, &request(&token, &issuer, "another-audience")).unwrap();
            assert!(other["error"].is_string(), "{other}");
        }
        // Only five extension tokens an hour: the next profile's user starts anew.
        client.batch_execute("DELETE FROM tenancy.extension_tokens").unwrap();
    }
}

#[test]
fn pyjwt_verifies_our_tokens() {
    verified_by(Peer::PyJwt);
}

#[test]
fn jose_verifies_our_tokens() {
    verified_by(Peer::Jose);
}

#[test]
fn tokens_of_the_contract_s_shape_by_pyjwt_give_the_identity_ours_give() {
    made_by(Peer::PyJwt);
}

#[test]
fn tokens_of_the_contract_s_shape_by_jose_give_the_identity_ours_give() {
    made_by(Peer::Jose);
}

/// The shapes of contracts.md S, as the original made them: without kid, without jti.
fn made_by(peer: Peer) {
    let database = world();
    let mut client = database.superuser();
    let ours = text(&mut client, "SELECT token FROM tenancy.issue_extension_token($1, $2)", &[&USER, &ORG]);
    let personal = text(&mut client, "SELECT tenancy.issue_access_token($1)", &[&USER]);
    for (kind, token) in [("extension_long_lived", &ours), ("access", &ours), ("access", &personal)] {
        let mut claims = decode(token.split('.').nth(1).unwrap());
        for name in ["jti", "session_id", "email"] {
            claims.as_object_mut().unwrap().remove(name);
        }
        claims["type"] = json!(kind);
        if kind == "access" {
            claims["username"] = json!("ada");
            claims["session_id"] = json!("sess_1");
            claims["plan_type"] = json!("teams");
            claims["credits"] = json!(120);
        }
        let request = json!({"do": "sign", "claims": claims, "secret": hex(SECRET)});
        let Some(answer) = ask(peer, &request) else { return };
        assert_eq!(identity(&mut client, answer["token"].as_str().unwrap()), identity(&mut client, token), "{kind}");
    }
    let mut claims = decode(ours.split('.').nth(1).unwrap());
    claims["type"] = json!("refresh");
    let answer = ask(peer, &json!({"do": "sign", "claims": claims, "secret": hex(SECRET)})).unwrap();
    let why = crate::world::reason(&mut client, answer["token"].as_str().unwrap());
    assert_eq!(why.as_deref(), Some("token_type"), "a refresh token opens nothing");
}
