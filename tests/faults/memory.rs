//! Memory runs out in a backend: its statement fails, nobody else notices.

use crate::common::{Cluster, Options, wrappers};
use crate::load::{Journal, nothing_lost, prepare, under_load};
use std::os::unix::fs::PermissionsExt;

/// A pg_ctl whose server has at most so much address space in each process.
fn limited_programs(kilobytes: u64) -> std::path::PathBuf {
    let parent = std::env::var_os("PGT_SCRATCH").map_or_else(std::env::temp_dir, Into::into);
    let folder = std::path::Path::new(&parent).join(format!("limited-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let script = format!("#!/bin/sh\nulimit -v {kilobytes} && exec '{}' \"$@\"\n", wrappers().join("pg_ctl").display());
    std::fs::write(folder.join("pg_ctl"), script).unwrap();
    std::fs::set_permissions(folder.join("pg_ctl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// What asks for more than there is, in the extension's own code where it can.
const GREEDY: [&str; 9] = [
    "SELECT length(string_agg(repeat('x', 1000000), '')) FROM generate_series(1, 900)",
    "SELECT tenancy.deduct_credits_batch((SELECT jsonb_agg(jsonb_build_object('user_id', 'u0', 'org_id', 'o0', 'amount', 1,
        'description', repeat('d', 2000))) FROM generate_series(1, 9000)))",
    "SELECT tenancy.publish_event('load.made.v1', jsonb_build_object('user_id', 'u0', 'pad', repeat('x', 100000000)), 'load', '1')",
    "SELECT tenancy.consume_event(jsonb_build_object('event_id', '1', 'data', jsonb_build_object('pad', repeat('x', 100000000))))",
    "SELECT tenancy.deduct_credits('u0', 1, 'o0', metadata => jsonb_build_object('pad', repeat('x', 100000000)))",
    "SELECT tenancy.deduct_credits('u0', 1, 'o0', repeat('x', 150000000))",
    "SELECT tenancy.authenticate(repeat('x', 150000000))",
    "SELECT tenancy.jws_verify(jsonb_build_object('k', repeat('x', 100000000)), repeat('x', 150000000))",
    "SELECT tenancy.cache_key(VARIADIC (SELECT array_agg(repeat('x', 1000000)) FROM generate_series(1, 100)))",
];

#[test]
fn a_backend_without_memory_fails_alone() {
    let settings = vec![("log_error_verbosity", "verbose".into()), ("shared_buffers", "32MB".into())];
    let programs = Some(limited_programs(600_000));
    let cluster = Cluster::start(Options { durable: true, programs, settings, ..Options::default() });
    let database = cluster.database();
    prepare(&database);
    let mut journal = Journal::default();
    let mut out_of_memory = 0;
    under_load(&database, &mut journal, "memory ran out", |_| {
        for statement in GREEDY {
            let mut greedy = database.connect("svc");
            match greedy.batch_execute(statement) {
                Ok(()) => {}
                Err(error) => {
                    let said = error.as_db_error().unwrap_or_else(|| panic!("no answer to {statement}: {error}"));
                    out_of_memory += usize::from(said.code().code() == "53200");
                    assert!(!said.code().code().starts_with("XX"), "{statement}: {said:?}");
                }
            }
            greedy
                .batch_execute("SELECT 1")
                .unwrap_or_else(|error| panic!("the session ended by {statement}: {error}"));
        }
    });
    nothing_lost(&cluster, &database, &journal, "memory ran out");
    assert!(out_of_memory > 0, "memory never ran out");
    assert!(!cluster.log().contains("was terminated by signal"), "a backend died: {}", cluster.log());
}
