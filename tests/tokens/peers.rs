//! PyJWT and jose, other people's implementations (scripts/peers.sh installs them below target).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

/// Which of them.
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    PyJwt,
    Jose,
}

/// A part of a token.
pub fn decode(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// What the peer answers to a request; None, with a line that says so, where it could not be installed.
pub fn ask(peer: Peer, request: &Value) -> Option<Value> {
    let file = |name: &str| format!("{}/tests/peers/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut command = match peer {
        Peer::PyJwt => {
            let Some(python) = std::env::var_os("PGT_PYTHON") else { return skipped(peer) };
            let mut command = Command::new(python);
            command.arg(file("pyjwt_tokens.py"));
            command
        }
        Peer::Jose => {
            let Some(modules) = std::env::var_os("PGT_NODE_MODULES") else { return skipped(peer) };
            let mut command = Command::new("node");
            command.arg(file("jose_tokens.mjs")).arg(modules);
            command
        }
    };
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the peer starts");
    child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).expect("the peer reads");
    let output = child.wait_with_output().expect("the peer ends");
    assert!(output.status.success(), "{peer:?} failed on {}", request["do"]);
    Some(serde_json::from_slice(&output.stdout).expect("the peer answers in JSON"))
}

fn skipped(peer: Peer) -> Option<Value> {
    crate::common::say!(
        "skipped: {peer:?} is not installed (scripts/test.sh does it where the registries can be reached)"
    );
    None
}
