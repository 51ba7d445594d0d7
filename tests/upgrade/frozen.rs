//! What was released is frozen (scripts/freeze.sh): the extension's script of this version, if it is out, and a road from
//! every version that is.

use crate::common::{cluster, wrappers};
use crate::package::NOW;
use std::process::Command;

/// The script's statements, without what pgrx says about where in the sources they stand: a list for each of its
/// entities, whose order in the script is another one in each build.
fn entities(script: &str) -> Vec<Vec<&str>> {
    let mut entities: Vec<Vec<&str>> = script
        .split("/* <begin connected objects> */")
        .map(|entity| {
            let told = |line: &&str| line.starts_with("--") || line.starts_with("/*") || line.is_empty();
            entity.lines().filter(|line| !told(line)).collect()
        })
        .collect();
    entities.sort();
    entities
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn released_versions_are_frozen_and_have_a_road_to_this_one() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/released");
    let database = cluster().empty_database();
    let mut client = database.superuser();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap();
        let version = name.strip_prefix("pg_tenancy--").and_then(|rest| rest.strip_suffix(".sql.gz")).expect(name);
        let released = output(Command::new("gzip").arg("-dc").arg(&file));
        if version == NOW {
            let share = output(Command::new(wrappers().join("pg_config")).arg("--sharedir"));
            let built = std::fs::read_to_string(format!("{}/extension/pg_tenancy--{NOW}.sql", share.trim())).unwrap();
            assert!(entities(&built) == entities(&released), "{NOW} is released: give the change a new version");
        } else {
            let path = "SELECT path FROM pg_extension_update_paths('pg_tenancy') WHERE source = $1 AND target = $2";
            let path: Option<String> = client.query_opt(path, &[&version, &NOW]).unwrap().and_then(|row| row.get(0));
            assert!(path.is_some(), "no sql/pg_tenancy--{version}--….sql leads to {NOW}");
        }
    }
}
