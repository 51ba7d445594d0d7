//! No secret in a dump, in the server's log or in an error; and clean-up.

use crate::common::{Cluster, Options};
use crate::tokens_authorization::authorize;
use crate::world::{ORG, SECRET, USER, furnish, row, text, world};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::fmt::Write;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn no_secret_is_found_in_a_dump_or_in_the_log() {
    // A log that tells more than the usual one: statements, durations, contexts. Bound parameters are the operator's
    // choice (log_parameter_max_length), and off.
    let own = Cluster::start(Options {
        settings: vec![
            ("log_statement", "all".into()),
            ("log_min_messages", "debug1".into()),
            ("log_error_verbosity", "verbose".into()),
            ("log_min_duration_statement", "0".into()),
            ("log_parameter_max_length", "0".into()),
            ("log_parameter_max_length_on_error", "0".into()),
        ],
        ..Options::default()
    });
    let database = own.database();
    let mut client = database.superuser();
    furnish(&mut client);
    let mut secrets: Vec<String> = vec!["a very private device name".into(), "203.0.113.77".into()];
    for (name, algorithm) in [("ed", "EdDSA"), ("es", "ES256")] {
        client
            .query("SELECT tenancy.add_signing_profile($1, 'https://' || $1, 'app', $2, $1)", &[&name, &algorithm])
            .unwrap();
    }
    let opened = "SELECT encode(tenancy._unseal(sealed_key, tenancy._signing_context(name, key_id)), 'hex') FROM tenancy.signing_profiles";
    let private: Vec<String> = client.query(opened, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(private.len(), 3);
    assert!(private.contains(&hex(SECRET)));
    secrets.extend(private);
    secrets.push(String::from_utf8(SECRET.to_vec()).unwrap());
    secrets.push(STANDARD.encode(SECRET));

    let device = "SELECT token FROM tenancy.issue_extension_token($1, $2, device => $3, address => $4)";
    let extension = text(&mut client, device, &[&USER, &ORG, &secrets[0], &secrets[1]]);
    let pair = authorize(&mut client, USER, Some(ORG));
    let refreshed = row(
        &mut client,
        "SELECT access_token, new_refresh_token FROM tenancy.refresh_access_token($1)",
        &[&pair.refresh],
    );
    let key = text(&mut client, "SELECT api_key FROM tenancy.create_api_key($1)", &[&ORG]);
    let start = "SELECT code FROM tenancy.start_authorization($1, $2, $3, 'x:y')";
    let state = "the state that the client keeps to itself";
    let code = text(&mut client, start, &[&USER, &"a".repeat(43), &state]);
    secrets.extend([state.to_owned(), code.clone(), key.clone(), extension.clone(), pair.access, pair.refresh.clone()]);
    secrets.extend([refreshed.get(0), refreshed.get(1)]);

    // Errors on the way: nothing of what was passed stands in them.
    let verifier = "the verifier of somebody who has no business here";
    secrets.push(verifier.to_owned());
    let mut errors = String::new();
    let altered = |secret: &str| {
        let other = if secret.ends_with('_') { '-' } else { '_' };
        format!("{}{other}", &secret[..secret.len() - 1])
    };
    for (statement, secret) in [
        ("SELECT tenancy.authenticate($1)", altered(&extension)),
        ("SELECT tenancy.validate_extension_token($1)", altered(&extension)),
        ("SELECT tenancy.refresh_extension_token($1)", extension.clone()),
        ("SELECT tenancy.authenticate_api_key($1)", altered(&key)),
        ("SELECT tenancy.authenticate($1)", key.clone()),
        ("SELECT tenancy.authenticate_api_key($1)", extension.clone()),
    ] {
        let error = client.query(statement, &[&secret]).expect_err(statement);
        let _ = write!(errors, "{error:?}");
        secrets.push(secret);
    }
    let complete = "SELECT status FROM tenancy.complete_authorization($1, $2, $3, 'x:y')";
    assert_eq!(text(&mut client, complete, &[&code, &verifier, &state]), "invalid_grant");
    for token in [&pair.refresh, &altered(&pair.refresh)] {
        client.query("SELECT tenancy.refresh_access_token($1)", &[&token.as_str()]).unwrap();
    }
    client.query("SELECT tenancy.clean_up_tokens()", &[]).unwrap();

    let dump = own.client("pg_dump", &["--inserts", &database.name]);
    assert!(dump.status.success());
    let dump = String::from_utf8(dump.stdout).unwrap();
    assert!(dump.contains("INSERT INTO tenancy.refresh_tokens") && dump.contains("INSERT INTO tenancy.api_keys"));
    let log = own.log();
    assert!(log.contains("tenancy.refresh_access_token"), "the log tells what was called");
    for (place, content) in [("the dump", &dump), ("the log", &log), ("an error", &errors)] {
        for secret in &secrets {
            assert!(!content.contains(secret.as_str()), "{place} holds {}…", &secret[..8]);
            // Not its signature or random part either, nor the bytes as a dump writes them.
            let tail = secret.rsplit('.').next().unwrap();
            assert!(tail.len() < 20 || !content.contains(tail), "{place} holds a part of {}…", &secret[..8]);
            assert!(!content.contains(&hex(secret.as_bytes())), "{place} holds {}… in hex", &secret[..8]);
        }
    }
}

#[test]
fn clean_up_removes_what_has_ended_in_bounded_batches() {
    let database = world();
    let mut client = database.superuser();
    for _ in 0..5 {
        authorize(&mut client, USER, Some(ORG));
    }
    let living = authorize(&mut client, USER, Some(ORG));
    client.query("SELECT tenancy.issue_extension_token($1)", &[&USER]).unwrap();
    client.query("SELECT tenancy.create_api_key($1)", &[&ORG]).unwrap();
    let clean = "SELECT string_agg(kind || ' ' || removed, ', ') FROM tenancy.clean_up_tokens(max_rows => 3)";
    let mut ops = database.connect("ops");
    let nothing =
        "oauth_codes 0, token_families 0, refresh_tokens 0, extension_tokens 0, api_keys 0, token_audit_logs 0";
    assert_eq!(text(&mut ops, clean, &[]), nothing);
    client
        .batch_execute(
            "UPDATE tenancy.oauth_codes SET expires_at = now() - interval '25 hours';
             UPDATE tenancy.token_families SET expires_at = now() - interval '25 hours'
              WHERE id <> (SELECT id FROM tenancy.token_families ORDER BY id DESC LIMIT 1);
             UPDATE tenancy.extension_tokens SET expires_at = now() - interval '25 hours';
             UPDATE tenancy.api_keys SET status = 'revoked', updated_at = now() - interval '31 days';
             UPDATE tenancy.token_audit_logs SET created_at = now() - interval '181 days'",
        )
        .unwrap();
    // A session at work keeps its row until the next run.
    let mut other = database.superuser();
    let mut holder = other.transaction().unwrap();
    holder.query("SELECT FROM tenancy.extension_tokens FOR UPDATE", &[]).unwrap();
    assert_eq!(
        text(&mut ops, clean, &[]),
        "oauth_codes 3, token_families 3, refresh_tokens 0, extension_tokens 0, api_keys 1, token_audit_logs 3"
    );
    drop(holder);
    assert_eq!(
        text(&mut ops, clean, &[]),
        "oauth_codes 3, token_families 2, refresh_tokens 0, extension_tokens 1, api_keys 0, token_audit_logs 3"
    );
    while !text(&mut ops, clean, &[]).ends_with("token_audit_logs 0") {}
    assert_eq!(text(&mut ops, clean, &[]), nothing);
    let status = "SELECT status FROM tenancy.refresh_access_token($1)";
    assert_eq!(text(&mut client, status, &[&living.refresh]), "refreshed");
    crate::common::refused(client.query("SELECT tenancy.clean_up_tokens(0)", &[]), "22023", "invalid_argument");
}

#[test]
fn the_master_key_is_rotated_under_the_tokens_too() {
    let own = Cluster::start(Options::default());
    let database = own.database();
    let mut client = database.superuser();
    furnish(&mut client);
    let issue = "SELECT token FROM tenancy.issue_extension_token($1, device => 'a device')";
    client.query(issue, &[&USER]).unwrap();
    let old = std::fs::read_to_string(own.master_key_file()).unwrap();
    own.write_file("master.key", &format!("{}\n{old}", "ab12".repeat(16)), 0o600);
    assert!(row(&mut client, "SELECT tenancy.rotate_master_key()", &[]).get::<_, i64>(0) >= 3);
    own.write_file("master.key", &format!("{}\n", "ab12".repeat(16)), 0o600);
    let mut fresh = database.superuser();
    let token = text(&mut fresh, issue, &[&USER]);
    assert!(crate::world::claims(&mut fresh, &token).is_some());
    let device =
        "SELECT string_agg(tenancy._open_note(sealed_device, 'device', id), ' ') FROM tenancy.extension_tokens";
    assert_eq!(text(&mut fresh, device, &[]), "a device a device");
}
