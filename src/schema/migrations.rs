//! The migrations, in order. A released one is frozen: its SHA-256 is recorded in every database.

use aws_lc_rs::digest::{SHA256, digest};
use std::fmt::Write;

pub struct Migration {
    pub number: i32,
    pub name: &'static str,
    pub sql: &'static str,
}

impl Migration {
    pub fn sha256(&self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in digest(&SHA256, self.sql.as_bytes()).as_ref() {
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

macro_rules! migration {
    ($number:literal, $name:literal, $file:literal) => {
        Migration { number: $number, name: $name, sql: include_str!(concat!("../../sql/schema/", $file)) }
    };
}

/// Every migration; numbers only grow.
pub const ALL: &[Migration] = &[
    migration!(0, "base", "0000_base.sql"),
    migration!(1, "directory", "0001_directory.sql"),
    migration!(2, "identity", "0002_identity.sql"),
    migration!(3, "isolation", "0003_isolation.sql"),
    migration!(4, "credits", "0004_credits.sql"),
    migration!(5, "outbox", "0005_outbox.sql"),
    migration!(6, "limits", "0006_limits.sql"),
    migration!(7, "tokens", "0007_tokens.sql"),
    migration!(8, "metering", "0008_metering.sql"),
    migration!(9, "batches", "0009_batches.sql"),
    migration!(10, "agents", "0010_agents.sql"),
    migration!(11, "credit_workings", "0011_credit_workings.sql"),
    migration!(12, "credit_consumption", "0012_credit_consumption.sql"),
    migration!(13, "credit_links", "0013_credit_links.sql"),
    migration!(14, "credit_views", "0014_credit_views.sql"),
    migration!(15, "compat_users", "0015_compat_users.sql"),
    #[cfg(feature = "made_up_next")]
    migration!(9000, "made_up", "../../tests/upgrade/9000_made_up.sql"),
];

/// The number of the last migration: what `tenancy.schema_migrations` must have arrived at.
pub const LATEST: i32 = ALL[ALL.len() - 1].number;

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn numbers_grow_and_names_are_those_of_the_files() {
        assert!(ALL.windows(2).all(|pair| pair[0].number < pair[1].number));
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/schema");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder of migrations")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        files.sort();
        let expected: Vec<String> =
            ALL.iter().map(|migration| format!("{:04}_{}.sql", migration.number, migration.name)).collect();
        assert_eq!(files, expected);
    }
}
