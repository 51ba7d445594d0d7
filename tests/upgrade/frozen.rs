//! What was released is frozen (scripts/freeze.sh): the extension's script of this version, if it is out, and a road from
//! every version that is (scripts/upgrade_script.sh), which leads to what a fresh database has.

use crate::common::copies::{difference, objects};
use crate::common::{Cluster, Options, wrappers};
use crate::package::{NOW, Package};
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
    let package = Package::install("released");
    let cluster = Cluster::start(Options { programs: Some(package.programs()), ..Options::default() });
    let fresh = cluster.empty_database();
    let mut client = fresh.superuser();
    client.batch_execute("CREATE EXTENSION pg_tenancy; SELECT tenancy.install()").unwrap();
    let expected = objects(&mut client);
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
            package.write(&format!("pg_tenancy--{version}.sql"), &released);
            let database = cluster.empty_database();
            let mut dba = database.superuser();
            dba.batch_execute(&format!("CREATE EXTENSION pg_tenancy VERSION '{version}'")).unwrap();
            dba.batch_execute("ALTER EXTENSION pg_tenancy UPDATE")
                .unwrap_or_else(|error| panic!("no sql/pg_tenancy--{version}--….sql leads to {NOW}: {error:?}"));
            dba.batch_execute("SELECT tenancy.install()").unwrap();
            assert_eq!(
                difference(&expected, &objects(&mut dba)),
                Vec::<String>::new(),
                "fresh (-), from {version} (+)"
            );
        }
    }
}
