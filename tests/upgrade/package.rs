//! A private server tree into which the package of this version or of the made-up next one is put, as a package
//! manager would: files are replaced under a running server.

use crate::common::wrappers;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version that does not exist.
pub const NEXT: &str = concat!(env!("CARGO_PKG_VERSION"), ".1");
/// This one.
pub const NOW: &str = env!("CARGO_PKG_VERSION");

const UPGRADE_HEAD: &str = "\\echo Use \"ALTER EXTENSION pg_tenancy UPDATE\" to load this file. \\quit\n";

/// A server tree of its own; removed with its owner.
pub struct Package {
    tree: PathBuf,
}

impl Package {
    /// A tree in which the package of this version is installed.
    pub fn install(name: &str) -> Self {
        let parent = std::env::var_os("PGT_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from);
        let tree = parent.join(format!("tree-{}-{name}", std::process::id()));
        let copied = Command::new("cp").arg("-a").args([&private_tree(), &tree]).status().expect("cp runs");
        assert!(copied.success(), "the server tree could not be copied");
        let package = Self { tree };
        fs::create_dir(package.programs()).unwrap();
        let wrapper = fs::read_to_string(wrappers().join("pg_ctl")).expect("scripts/setup.sh writes a pg_ctl");
        let ours = wrapper.replace(text(&private_tree()), text(&package.tree));
        let file = package.programs().join("pg_ctl");
        fs::write(&file, ours).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        package
    }

    /// The folder of this tree's `pg_ctl`.
    pub fn programs(&self) -> PathBuf {
        self.tree.join("programs")
    }

    /// The package of the next version takes the place of this one's.
    pub fn upgrade(&self) {
        let now = self.script(NOW);
        let next = next_script(&now);
        self.write(&format!("pg_tenancy--{NOW}--{NEXT}.sql"), &upgrade_script(&next));
        self.write(&format!("pg_tenancy--{NEXT}.sql"), &next);
        self.name_default_version(NOW, NEXT);
        let library =
            std::env::var_os("PGT_NEXT_LIBRARY").expect("PGT_NEXT_LIBRARY is not set: run `make test S=upgrade`");
        self.replace_library(Path::new(&library));
    }

    /// The package of this version again, as after a mistaken downgrade.
    pub fn downgrade(&self) {
        self.name_default_version(NEXT, NOW);
        self.replace_library(&library_in(&private_tree()));
    }

    fn script(&self, version: &str) -> String {
        fs::read_to_string(self.extension().join(format!("pg_tenancy--{version}.sql")))
            .expect("the script is installed")
    }

    fn name_default_version(&self, from: &str, to: &str) {
        let file = self.extension().join("pg_tenancy.control");
        let control = fs::read_to_string(&file).unwrap();
        self.write("pg_tenancy.control", &edited(&control, &format!("'{from}'"), &format!("'{to}'")));
    }

    /// Renamed into place: backends that have the other one loaded keep it.
    fn replace_library(&self, library: &Path) {
        let place = library_in(&self.tree);
        let new = place.with_extension("new");
        fs::copy(library, &new).expect("the library can be copied");
        fs::rename(&new, &place).expect("the library can be replaced");
    }

    /// Puts a file beside the extension's.
    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.extension().join(name), content).expect("the file can be written");
    }

    fn extension(&self) -> PathBuf {
        placed(&self.tree, "--sharedir").join("extension")
    }
}

impl Drop for Package {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.tree);
    }
}

fn private_tree() -> PathBuf {
    std::env::var_os("PGT_RUN").map(PathBuf::from).expect("PGT_RUN is not set: run `make test S=upgrade`")
}

fn library_in(tree: &Path) -> PathBuf {
    placed(tree, "--pkglibdir").join("pg_tenancy.so")
}

/// The same folder in this tree as pg_config names in the private one.
fn placed(tree: &Path, folder: &str) -> PathBuf {
    let said = Command::new(wrappers().join("pg_config")).arg(folder).output().expect("pg_config runs");
    let said = PathBuf::from(String::from_utf8(said.stdout).expect("UTF-8").trim());
    tree.join(said.strip_prefix(private_tree()).expect("pg_config names folders of the private tree"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// What the developer of the next version edited in the sources: a function more, one with a new parameter, one with
/// another text, one at another level, a table that applications and operators read.
fn next_script(now: &str) -> String {
    let edits = [
        (
            "    ('cache_key(text[])', 'application'),",
            "    ('cache_key(text[])', 'application'),\n    ('add_note(text,text)', 'service'),",
        ),
        ("    ('lock_key(text)', 'application'),", "    ('lock_key(text)', 'service'),"),
        ("    ('remove_rate_limit(text,text)', 'operator'),", "    ('remove_rate_limit(text,text,text)', 'operator'),"),
        (
            "    ('tenants', 'operator', NULL),",
            "    ('tenants', 'operator', NULL),\n    ('made_up_notes', 'application', NULL),\n    ('made_up_notes', 'operator', NULL),",
        ),
        (
            "FUNCTION tenancy.remove_rate_limit(name text, tenant_id text DEFAULT NULL)",
            "FUNCTION tenancy.remove_rate_limit(name text, tenant_id text DEFAULT NULL, reason text DEFAULT NULL)",
        ),
        (
            "ON FUNCTION tenancy.remove_rate_limit(text, text)",
            "ON FUNCTION tenancy.remove_rate_limit(text, text, text)",
        ),
        ("'user_not_found', 'User not found',", "'user_not_found', 'No such user',"),
        ("'The internal id of a registered user. ", "'The id, within the database, of a registered user. "),
        (
            "CREATE FUNCTION tenancy._close_functions()",
            concat!(include_str!("made_up.sql"), "\nCREATE FUNCTION tenancy._close_functions()"),
        ),
    ];
    edits.into_iter().fold(now.to_owned(), |script, (from, to)| edited(&script, from, to))
}

/// What that developer wrote for databases that have this version. Functions that changed are replaced by their new
/// text; what is new is closed to PUBLIC; every session looks at the versions again.
fn upgrade_script(next: &str) -> String {
    let replaced = |name: &str| {
        function(next, name).replacen("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1) + &comment(next, name)
    };
    [
        UPGRADE_HEAD,
        &replaced("_function_access"),
        &replaced("_table_access"),
        &replaced("_find_user"),
        "DROP FUNCTION tenancy.remove_rate_limit(text, text);\n",
        &function(next, "remove_rate_limit"),
        &comment(next, "remove_rate_limit"),
        include_str!("made_up.sql"),
        "REVOKE ALL ON FUNCTION tenancy.remove_rate_limit(text, text, text), tenancy.add_note(text, text) FROM PUBLIC;\n",
        "DO $$ BEGIN IF to_regclass('tenancy.schema_migrations') IS NOT NULL THEN PERFORM tenancy._changed('schema_migrations'); END IF; END $$;\n",
    ]
    .concat()
}

/// The one place that reads `from` now reads `to`.
fn edited(script: &str, from: &str, to: &str) -> String {
    assert_eq!(script.matches(from).count(), 1, "the upgrade test edits this text, once: {from}");
    script.replacen(from, to, 1)
}

fn function(script: &str, name: &str) -> String {
    statement(script, &format!("CREATE FUNCTION tenancy.{name}("), "\n$$;\n")
}

fn comment(script: &str, name: &str) -> String {
    statement(script, &format!("COMMENT ON FUNCTION tenancy.{name}("), "';\n")
}

fn statement(script: &str, from: &str, to: &str) -> String {
    let start = script.find(from).unwrap_or_else(|| panic!("no {from}"));
    let length = script[start..].find(to).unwrap_or_else(|| panic!("no end of {from}"));
    script[start..start + length + to.len()].to_owned()
}
