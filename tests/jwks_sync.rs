//! tools/jwks-sync against a server on loopback. Without a Python it says that it is skipped.

mod common;

use common::{AUDIENCE, Database, cluster};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

const ISSUER: &str = "https://provider.test";
/// Public keys of RFC 8037 A.2 and RFC 7517 A.1.
const ED_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const EC_X: &str = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
const EC_Y: &str = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";

/// What the server answers, and the requests it saw.
#[derive(Clone, Default)]
struct Provider {
    answer: Arc<Mutex<Vec<u8>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Provider {
    /// A server on a port of its own, for the life of the process.
    fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let provider = Self::default();
        let own = provider.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = String::new();
                let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
                while reader.read_line(&mut request).is_ok_and(|bytes| bytes > 2) {}
                own.requests.lock().unwrap().push(request);
                let answer = own.answer.lock().unwrap().clone();
                let _ = stream.write_all(&answer);
            }
        });
        (provider, address)
    }

    fn says(&self, status: &str, headers: &str, body: &str) {
        *self.answer.lock().unwrap() =
            format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
                .into_bytes();
    }
}

fn command(python: &std::ffi::OsStr, database: &Database, arguments: &[&str]) -> Command {
    let mut command = Command::new(python);
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tools/jwks-sync"))
        .args(["--issuer", ISSUER])
        .args(arguments)
        .env("PGHOST", database.cluster().folder())
        .env("PGDATABASE", &database.name)
        .env("PGUSER", "ops")
        .stdin(Stdio::null());
    command
}

fn keys(database: &Database) -> Vec<(String, String)> {
    database
        .connect("ops")
        .query("SELECT kid, status FROM tenancy.issuer_key_status WHERE issuer = $1 ORDER BY kid", &[&ISSUER])
        .expect("an operator reads the keys")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn it_brings_a_provider_s_keys_and_retires_what_is_gone() {
    let Some(python) = std::env::var_os("PGT_PYTHON") else {
        crate::common::say!("skipped: PGT_PYTHON names no Python (scripts/peers.sh)");
        return;
    };
    let database = cluster().database();
    database
        .connect("ops")
        .execute("SELECT tenancy.add_issuer($1, ARRAY[$2::text])", &[&ISSUER, &AUDIENCE])
        .expect("an issuer can be added");
    let (provider, url) = Provider::start();
    let sync = |arguments: &[&str]| {
        let arguments = [&["--url", &url, "--allow-http", "--timeout", "5"], arguments].concat();
        command(&python, &database, &arguments).output().expect("python runs")
    };
    let ed = json!({"kty": "OKP", "crv": "Ed25519", "kid": "it's one", "x": ED_X});
    let ec = json!({"kty": "EC", "crv": "P-256", "kid": "two", "x": EC_X, "y": EC_Y, "use": "sig", "alg": "ES256"});
    let set = |keys: &[&Value]| json!({ "keys": keys }).to_string();
    let usable = |kids: &[&str]| kids.iter().map(|kid| (kid.to_string(), "usable".to_owned())).collect::<Vec<_>>();

    provider.says("200 OK", "ETag: \"v1\"\r\n", &set(&[&ed, &ec]));
    let output = sync(&[]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(keys(&database), usable(&["it's one", "two"]));

    // Nothing of this changes a key, and each says what is wrong.
    let large = format!("{{\"keys\": [{}]}}", " ".repeat(300_000));
    for (status, headers, body, exit, words) in [
        ("500 Internal Server Error", "", "", 1, "answered 500"),
        ("302 Found", "Location: http://127.0.0.1:1/\r\n", "", 1, "answered 302"),
        ("200 OK", "", "<html>", 1, "not JSON"),
        ("200 OK", "", "[]", 1, "not a JWK set"),
        ("200 OK", "", &large, 1, "larger than"),
        ("200 OK", "", "{\"keys\": []}", 2, "refused"),
        ("200 OK", "", "{\"keys\": [{\"kty\": \"oct\", \"k\": \"AAAA\"}]}", 2, "refused"),
    ] {
        provider.says(status, headers, body);
        let output = sync(&[]);
        assert_eq!(output.status.code(), Some(exit), "{status} {words}: {}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
        assert_eq!(keys(&database), usable(&["it's one", "two"]));
    }
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nowhere = command(&python, &database, &["--url", &format!("http://{dead}/"), "--allow-http"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1), "{}", said(&nowhere));
    let plain = command(&python, &database, &["--url", &url]).output().unwrap();
    assert!(said(&plain).contains("https:"), "http without --allow-http is refused");
    assert_eq!(plain.status.code(), Some(2));

    // The same key, bound to its algorithm now: that is honoured.
    let bound = json!({"kty": "OKP", "crv": "Ed25519", "kid": "it's one", "x": ED_X, "alg": "EdDSA"});
    provider.says("200 OK", "", &set(&[&bound, &ec]));
    assert!(sync(&[]).status.success());
    let algorithm: Option<String> = database
        .connect("ops")
        .query_one("SELECT algorithm FROM tenancy.issuer_key_status WHERE kid = 'it''s one'", &[])
        .unwrap()
        .get(0);
    assert_eq!(algorithm.as_deref(), Some("EdDSA"));

    // A set without one of them retires it.
    provider.says("200 OK", "", &set(&[&ec]));
    assert!(sync(&[]).status.success());
    let after: Vec<_> = [("it's one", "retired"), ("two", "usable")].map(|(k, s)| (k.to_owned(), s.to_owned())).into();
    assert_eq!(keys(&database), after);
}

#[test]
fn as_a_service_it_asks_only_for_what_has_changed() {
    let Some(python) = std::env::var_os("PGT_PYTHON") else {
        crate::common::say!("skipped: PGT_PYTHON names no Python (scripts/peers.sh)");
        return;
    };
    let database = cluster().database();
    database
        .connect("ops")
        .execute("SELECT tenancy.add_issuer($1, ARRAY[$2::text])", &[&ISSUER, &AUDIENCE])
        .expect("an issuer can be added");
    let (provider, url) = Provider::start();
    let ed = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": ED_X}]}).to_string();
    provider.says("200 OK", "ETag: \"v1\"\r\n", &ed);
    let mut service = command(&python, &database, &["--url", &url, "--allow-http", "--every", "0.2"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut lines = BufReader::new(service.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("it goes on").expect("it writes UTF-8");
    assert_eq!(next(), format!("{ISSUER}: 1 keys"));
    provider.says("304 Not Modified", "", "");
    while next() != format!("{ISSUER}: unchanged") {}
    assert!(provider.requests.lock().unwrap().iter().any(|request| request.contains("If-None-Match: \"v1\"")));
    service.kill().expect("it is ours");
    let _ = service.wait();
    assert_eq!(keys(&database), [("one".to_owned(), "usable".to_owned())]);
}
