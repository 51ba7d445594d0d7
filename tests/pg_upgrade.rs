//! pg_upgrade to the version under test from the one before it. Needs two servers: `make test-matrix` runs it, with
//! PGT_OLD_BIN naming the wrappers of the older one. Not from Debian's 15.20: docs/how-to/upgrade.md says why.

mod common;

use common::copies::{clean, difference, goes_on, lived_in, objects, rows};
use common::{Cluster, Options, wrappers};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a server's own programs are, which pg_upgrade calls.
fn programs(wrappers: &Path) -> String {
    let wrapper = std::fs::read_to_string(wrappers.join("pg_ctl")).expect("scripts/setup.sh writes a pg_ctl");
    let program = wrapper.split('\'').find(|part| part.ends_with("/bin/pg_ctl")).expect("it names the program");
    program.trim_end_matches("/pg_ctl").to_owned()
}

/// What pg_upgrade's own logs end with.
fn last_lines(cluster: &Cluster) -> String {
    let script = "find \"$1\" -name 'pg_upgrade_dump_*.log' -exec tail -n 12 {} +";
    let found = Command::new("sh").args(["-c", script, "sh"]).arg(cluster.data()).output().expect("sh runs");
    String::from_utf8_lossy(&found.stdout).into_owned()
}

fn major(client: &mut postgres::Client) -> i32 {
    client.query_one("SELECT current_setting('server_version_num')::int / 10000", &[]).unwrap().get(0)
}

#[test]
#[ignore = "two versions of the server: make test-matrix"]
fn a_database_in_use_goes_through_pg_upgrade() {
    let old_programs = std::env::var_os("PGT_OLD_BIN").map(PathBuf::from).expect("PGT_OLD_BIN names the older server");
    let old = Cluster::start(Options { programs: Some(old_programs.clone()), ..Options::default() });
    let database = lived_in(&old);
    let mut client = database.superuser();
    // Template databases of the tests are not part of it.
    client.batch_execute("DROP DATABASE pgt_template").unwrap();
    let (data, expected) = (rows(&mut client), objects(&mut client));
    let old_server = major(&mut client);
    drop(client);
    old.stop();

    let new = Cluster::start(Options::default());
    new.stop();
    let folder = new.folder().to_str().unwrap();
    let done = Command::new(wrappers().join("pg_upgrade"))
        .env("PGT_FOLDER", folder)
        .args(["-b", &programs(&old_programs), "-B", &programs(&wrappers()), "-U", "postgres", "-s", folder])
        .args(["-d", old.data().to_str().unwrap(), "-D", new.data().to_str().unwrap()])
        .output()
        .expect("pg_upgrade runs");
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}\n{}", last_lines(&new));

    new.resume();
    let upgraded = new.existing(&database.name);
    let mut client = upgraded.superuser();
    let server = major(&mut client);
    assert_ne!(server, old_server, "another server");
    assert_eq!(rows(&mut client), data);
    // No dump keeps that a row type's USAGE was revoked: migrate() takes it back, as after any restore.
    client.batch_execute("SELECT tenancy.migrate()").unwrap();
    let mut changed = difference(&expected, &objects(&mut client));
    // A privilege that an owner has by himself from 17 on, and array types as members of the extension.
    changed.retain(|line| !line.contains(" grants MAINTAIN to postgres") && !line.ends_with("[] of the extension"));
    assert_eq!(changed, Vec::<String>::new(), "before (-) and after (+)");
    goes_on(&upgraded);
    clean(&mut client);
}
