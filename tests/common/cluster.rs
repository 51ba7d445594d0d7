//! A private cluster: its own data folder, unix socket only, gone when its owner is gone.

use super::database::Database;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

/// How a cluster differs from the usual one.
pub struct Options {
    /// `shared_preload_libraries = 'pg_tenancy'`.
    pub preload: bool,
    /// fsync and full_page_writes, for tests that crash the server.
    pub durable: bool,
    /// A master key file, named by `tenancy.master_key_file`.
    pub master_key: bool,
    /// More lines of postgresql.conf.
    pub settings: Vec<(&'static str, String)>,
    /// The folder of another server's `pg_ctl`, where it is not the usual one that runs this cluster.
    pub programs: Option<PathBuf>,
    /// The whole cluster on a volume of its own of so many megabytes, in memory. Only root can make one.
    pub volume: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self { preload: true, durable: false, master_key: true, settings: Vec::new(), programs: None, volume: None }
    }
}

/// A running server. Dropping it stops the server and removes its folder; so does the end of the process, however it ends.
pub struct Cluster {
    folder: PathBuf,
    watcher: Child,
    programs: PathBuf,
    pub(super) template: Mutex<bool>,
    pub(super) databases: AtomicU32,
}

/// The cluster the tests of this binary share.
pub fn cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(Options::default()))
}

impl Cluster {
    /// Makes and starts a cluster.
    pub fn start(options: Options) -> Self {
        let folder = make_folder();
        let watcher = watch(&folder);
        if let Some(megabytes) = options.volume {
            mount(&folder, megabytes);
        }
        let data = folder.join("data");
        match options.programs.as_ref().map(|programs| programs.join("initdb")).filter(|initdb| initdb.exists()) {
            Some(other) => run(path(&other), &[&["-D", path(&data)][..], &INITDB].concat()),
            None => init(&data),
        }
        if options.master_key {
            write_for_server(&folder.join("master.key"), &master_key(), 0o600);
        }
        let conf = data.join("postgresql.conf");
        let text = fs::read_to_string(&conf).expect("initdb writes postgresql.conf");
        fs::write(&conf, text + &settings(&folder, &options)).expect("postgresql.conf can be written");
        let cluster = Self {
            watcher,
            folder,
            programs: options.programs.unwrap_or_else(wrappers),
            template: Mutex::new(false),
            databases: AtomicU32::new(0),
        };
        cluster.resume();
        cluster
    }

    /// A hot standby of this cluster, with the same databases. Where its files lie only
    /// its own postgresql.conf says, so the copy's is changed.
    pub fn standby(&self) -> Self {
        let folder = make_folder();
        let data = folder.join("data");
        let primary = path(self.folder());
        // As the server's user, to whom the copy must belong.
        run(
            "pg_basebackup",
            &["-h", primary, "-U", "postgres", "-D", path(&data), "-X", "stream", "-c", "fast", "--no-sync"],
        );
        fs::copy(self.master_key_file(), folder.join("master.key")).expect("the master key can be copied");
        give_to_server(&folder.join("master.key"));
        let conf = data.join("postgresql.conf");
        let text = fs::read_to_string(&conf).expect("the copy has a postgresql.conf").replace(primary, path(&folder));
        let source = format!("primary_conninfo = 'host={primary} user=postgres'\nhot_standby = 'on'\n");
        fs::write(&conf, text + &source).expect("postgresql.conf can be written");
        fs::write(data.join("standby.signal"), "").expect("the signal can be written");
        give_to_server(&data.join("standby.signal"));
        let cluster = Self {
            watcher: watch(&folder),
            folder,
            programs: self.programs.clone(),
            template: Mutex::new(false),
            databases: AtomicU32::new(0),
        };
        cluster.resume();
        cluster
    }

    /// Makes a standby a primary, and waits until it is one.
    pub fn promote(&self) {
        run("pg_ctl", &["-D", path(&self.data()), "-w", "-t", "60", "promote"]);
    }

    /// A connection to a database that the cluster has, by name.
    pub fn connect(&self, database: &str, role: &str) -> postgres::Client {
        super::database::connect(self, database, role, None)
    }

    /// Starts the server again after `stop` or `crash`.
    pub fn resume(&self) {
        let log = self.folder.join("log");
        let started = Command::new(self.programs.join("pg_ctl"))
            .args(["-D", path(&self.data()), "-w", "-t", "60", "-l", path(&log), "start"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("pg_ctl runs");
        assert!(started.success(), "the server did not start:\n{}", self.log());
    }

    /// Stops the server as an administrator would.
    pub fn stop(&self) {
        run("pg_ctl", &["-D", path(&self.data()), "-m", "fast", "-w", "stop"]);
    }

    /// Stops the server without a checkpoint: the next start recovers from the log.
    pub fn crash(&self) {
        run("pg_ctl", &["-D", path(&self.data()), "-m", "immediate", "-w", "stop"]);
    }

    /// Reads postgresql.conf again.
    pub fn reload(&self) {
        run("pg_ctl", &["-D", path(&self.data()), "reload"]);
    }

    /// Adds a line to postgresql.conf; `reload` or `stop` and `resume` make it count.
    pub fn set(&self, name: &str, value: &str) {
        let conf = self.data().join("postgresql.conf");
        let text = fs::read_to_string(&conf).expect("postgresql.conf can be read");
        fs::write(&conf, format!("{text}{name} = '{value}'\n")).expect("postgresql.conf can be written");
    }

    /// A fresh database with the extension, its tables, the roles and the issuer of `tokens`.
    pub fn database(&self) -> Database<'_> {
        Database::from_template(self)
    }

    /// A fresh database without the extension.
    pub fn empty_database(&self) -> Database<'_> {
        Database::empty(self)
    }

    /// A database that the cluster has, by name.
    pub fn existing(&self, name: &str) -> Database<'_> {
        Database::existing(self, name)
    }

    /// Runs a client program (psql, pg_dump, …) against this cluster, as its superuser.
    pub fn client(&self, program: &str, arguments: &[&str]) -> Output {
        command(program)
            .env("PGHOST", self.folder())
            .env("PGUSER", "postgres")
            .current_dir(self.folder())
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("{program} does not run: {error}"))
    }

    /// The same, not waited for: a process of its own, which the test may kill.
    pub fn spawn_client(&self, program: &str, arguments: &[&str]) -> Child {
        command(program)
            .env("PGHOST", self.folder())
            .env("PGUSER", "postgres")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} does not run: {error}"))
    }

    /// Where the socket, the log and the master key are; data is below it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The master key file.
    pub fn master_key_file(&self) -> PathBuf {
        self.folder.join("master.key")
    }

    /// What the server wrote into its log.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Writes a file that belongs to the server's user.
    pub fn write_file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let file = self.folder.join(name);
        write_for_server(&file, content, mode);
        file
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

/// With checksums, which 18 makes by itself and pg_upgrade wants alike on both sides.
const INITDB: [&str; 9] =
    ["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C", "--data-checksums"];

/// A fresh data folder. initdb takes seconds on a busy machine, a copy does not: all binaries of one `make test`
/// share what the first one made.
fn init(data: &Path) {
    let initdb = |folder: &Path| run("initdb", &[&["-D", path(folder)][..], &INITDB].concat());
    let Some(scratch) = std::env::var_os("PGT_SCRATCH").map(PathBuf::from) else {
        return initdb(data);
    };
    let made = scratch.join("fresh");
    if !made.exists() {
        let making = scratch.join(format!("fresh-{}", data.parent().and_then(Path::file_name).unwrap().display()));
        initdb(&making);
        // Another cluster of this binary may have been quicker; then its folder stays.
        let _ = fs::rename(&making, &made);
    }
    let copied = Command::new("cp").arg("-a").args([&made, data]).status().expect("cp runs");
    assert!(copied.success(), "the fresh data folder could not be copied");
}

/// A shell that waits for the end of this process (its standard input ends then) and tidies up after it.
fn watch(folder: &Path) -> Child {
    Command::new("sh")
        .arg("-c")
        .arg(r#"read -r _; "$1/pg_ctl" -D "$2/data" -m immediate -w stop; umount -l "$2"; rm -rf "$2""#)
        .args(["sh", path(&wrappers()), path(folder)])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh runs")
}

fn settings(folder: &Path, options: &Options) -> String {
    let on_off = |on: bool| if on { "on" } else { "off" }.to_string();
    let mut lines = vec![
        ("listen_addresses", String::new()),
        ("unix_socket_directories", path(folder).to_string()),
        ("max_connections", "120".into()),
        ("fsync", on_off(options.durable)),
        ("full_page_writes", on_off(options.durable)),
        ("log_line_prefix", "%m [%p] %u@%d ".into()),
    ];
    if options.preload {
        lines.push(("shared_preload_libraries", "pg_tenancy".into()));
    }
    if options.master_key {
        lines.push(("tenancy.master_key_file", path(&folder.join("master.key")).into()));
    }
    lines.extend(options.settings.iter().cloned());
    lines.iter().map(|(name, value)| format!("{name} = '{value}'\n")).collect()
}

/// 32 bytes in base64: a key for tests, the same in every run.
fn master_key() -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(b"a master key of tests: 32 bytes.") + "\n"
}

fn make_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let parent = std::env::var_os("PGT_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from);
    // Short: a socket's path has at most 107 bytes.
    let name = format!("pgt{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let folder = parent.join(name);
    fs::create_dir(&folder).unwrap_or_else(|error| panic!("{} cannot be made: {error}", folder.display()));
    give_to_server(&folder);
    folder
}

/// A small volume in place of the cluster's folder; its watcher unmounts it.
fn mount(folder: &Path, megabytes: u32) {
    let size = format!("size={megabytes}m");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs", path(folder)]).status();
    assert!(mounted.is_ok_and(|status| status.success()), "no volume can be mounted on {}", folder.display());
    give_to_server(folder);
}

fn write_for_server(file: &Path, content: &str, mode: u32) {
    fs::write(file, content).expect("the file can be written");
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("the mode can be set");
    give_to_server(file);
}

/// Root hands what it made to the user the server runs as; anybody else is that user.
fn give_to_server(file: &Path) {
    if !is_root() {
        return;
    }
    let id = |flag: &str| {
        let output = Command::new("id").args([flag, "postgres"]).output().expect("id runs");
        String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().expect("the user postgres exists")
    };
    chown(file, Some(id("-u")), Some(id("-g"))).expect("root can change an owner");
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("/proc is mounted").uid() == 0
}

/// A program that runs as the server's user, whose processes it may touch.
pub fn as_server(program: &str) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", program]);
    command
}

/// The folder of programs that scripts/setup.sh makes.
pub fn wrappers() -> PathBuf {
    let target = || {
        std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from)
    };
    let folder = std::env::var_os("PGT_BIN").map_or_else(|| target().join("pgrx/bin"), PathBuf::from);
    assert!(folder.join("pg_ctl").exists(), "{} is not set up: run `make test`", folder.display());
    folder
}

fn command(program: &str) -> Command {
    Command::new(wrappers().join(program))
}

fn run(program: &str, arguments: &[&str]) {
    let output =
        command(program).args(arguments).output().unwrap_or_else(|error| panic!("{program} does not run: {error}"));
    assert!(output.status.success(), "{program} failed: {}", String::from_utf8_lossy(&output.stderr));
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}
