//! The disk fills up under the load, with the write-ahead log on it, and space comes back: a small volume of the
//! cluster's own where one can be mounted, and everywhere files that may not grow, which the server meets in the same
//! places with another error number.

use crate::common::{Cluster, Database, Options, as_server, say};
use crate::load::{Journal, a_while, connected, nothing_lost, prepare, rounds, under_load};
use std::fs;
use std::io::Write;
use std::process::Command;

/// Mounting needs root's rights, and some containers refuse even root.
fn can_mount() -> bool {
    let folder = std::env::temp_dir().join(format!("pgt-mount-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&folder).output();
    let mounted = mounted.is_ok_and(|output| output.status.success());
    if mounted {
        let _ = Command::new("umount").arg(&folder).status();
    }
    let _ = fs::remove_dir(&folder);
    mounted
}

/// Writes until the volume is full; the size that fitted.
fn fill(file: &std::path::Path) -> usize {
    let mut ballast = fs::File::create(file).expect("a file can be made");
    let block = [0u8; 64 * 1024];
    let mut written = 0;
    while let Ok(size) = ballast.write(&block) {
        written += size;
        if size < block.len() {
            break;
        }
    }
    written
}

/// How large a file may become that the server's processes write: the postmaster's limit first, which new ones inherit.
fn limit_files(cluster: &Cluster, bytes: &str) {
    let Ok(file) = fs::read_to_string(cluster.data().join("postmaster.pid")) else { return };
    let postmaster = file.lines().next().unwrap_or_default();
    let limit = |pid: &str| {
        // One that has ended meanwhile has no limit.
        let _ = as_server("prlimit").args(["--pid", pid, &format!("--fsize={bytes}:")]).output().expect("prlimit runs");
    };
    limit(postmaster);
    let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
    children.split_whitespace().for_each(limit);
}

/// A way to take the server's space and to give it back, and what the server then says.
struct Full<'a> {
    name: &'a str,
    volume: Option<u32>,
    take: fn(&Cluster),
    give_back: fn(&Cluster),
    said: &'a str,
}

const FULL: [Full; 2] = [
    Full {
        name: "files that may not grow",
        volume: None,
        take: |cluster| limit_files(cluster, "1048576"),
        give_back: |cluster| limit_files(cluster, "unlimited"),
        said: "File too large",
    },
    Full {
        name: "a full volume",
        volume: Some(320),
        take: |cluster| assert!(fill(&cluster.folder().join("ballast")) > 0, "the volume was full already"),
        give_back: |cluster| fs::remove_file(cluster.folder().join("ballast")).unwrap(),
        said: "No space left on device",
    },
];

#[test]
fn a_full_disk_loses_nothing_acknowledged() {
    for full in FULL.iter().filter(|full| full.volume.is_none() || can_mount()) {
        say!("the disk: {}", full.name);
        let settings = vec![
            ("log_error_verbosity", "verbose".into()),
            ("max_wal_size", "64MB".into()),
            ("min_wal_size", "32MB".into()),
            ("shared_buffers", "16MB".into()),
        ];
        let cluster = Cluster::start(Options { durable: true, volume: full.volume, settings, ..Options::default() });
        let database = cluster.database();
        prepare(&database);
        let mut journal = Journal::default();
        for round in 0..rounds() {
            let name = format!("{}, round {round}", full.name);
            let failures = under_load(&database, &mut journal, &name, |_| fill_up(full, &cluster, &database));
            assert!(failures > 0, "{name} was not felt");
            nothing_lost(&cluster, &database, &journal, &name);
            assert!(cluster.log().contains(full.said), "{name}: the server met no limit");
            connected(&database).batch_execute("DROP TABLE IF EXISTS public.filler; CHECKPOINT").unwrap();
        }
    }
}

fn fill_up(full: &Full, cluster: &Cluster, database: &Database) {
    (full.take)(cluster);
    // A new segment of the log has no room: the server stops rather than lose what it said.
    let mut log_moves = database.config("postgres").connect(postgres::NoTls);
    for _ in 0..4 {
        let more =
            "SELECT pg_switch_wal(); CREATE TABLE IF NOT EXISTS public.filler AS SELECT generate_series(1, 100000)";
        let _ = log_moves.as_mut().map(|client| client.batch_execute(more));
    }
    std::thread::sleep(a_while());
    (full.give_back)(cluster);
    if database.config("postgres").connect(postgres::NoTls).is_err() {
        // It may be down altogether, or still trying to recover.
        let _ = Command::new(crate::common::wrappers().join("pg_ctl"))
            .args(["-D", cluster.data().to_str().unwrap(), "-m", "immediate", "-w", "stop"])
            .output();
        cluster.resume();
    }
}
