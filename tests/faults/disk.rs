//! The disk fills up under the load, with the write-ahead log on it, and space comes back.

use crate::common::{Cluster, Options};
use crate::load::{Journal, a_while, nothing_lost, prepare, rounds, under_load};
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

#[test]
fn a_full_disk_loses_nothing_acknowledged() {
    if !can_mount() {
        crate::common::say!("skipped: this user cannot mount a small volume");
        return;
    }
    let settings = vec![
        ("log_error_verbosity", "verbose".into()),
        ("max_wal_size", "64MB".into()),
        ("min_wal_size", "32MB".into()),
        ("shared_buffers", "16MB".into()),
    ];
    let cluster = Cluster::start(Options { durable: true, volume: Some(320), settings, ..Options::default() });
    let database = cluster.database();
    prepare(&database);
    let mut journal = Journal::default();
    for round in 0..rounds() {
        let (before, failures) = (journal.acknowledged(), journal.failures);
        under_load(&database, &mut journal, || {
            let ballast = cluster.folder().join("ballast");
            assert!(fill(&ballast) > 0, "the volume was full already");
            // A new segment of the log has no room: the server stops rather than lose what it said.
            let mut log_moves = crate::load::connected(&database);
            for _ in 0..4 {
                let _ = log_moves.batch_execute("SELECT pg_switch_wal(); CREATE TABLE IF NOT EXISTS public.filler AS SELECT generate_series(1, 100000)");
            }
            std::thread::sleep(a_while());
            fs::remove_file(&ballast).unwrap();
            if database.config("postgres").connect(postgres::NoTls).is_err() {
                // It may be down altogether, or still trying to recover.
                let _ = Command::new(crate::common::wrappers().join("pg_ctl"))
                    .args(["-D", cluster.data().to_str().unwrap(), "-m", "immediate", "-w", "stop"])
                    .output();
                cluster.resume();
            }
        });
        nothing_lost(&cluster, &database, &journal, &format!("a full disk, round {round}"));
        assert!(journal.acknowledged() - before > 20, "there was no load");
        assert!(journal.failures > failures, "the full disk was not felt");
        let log = cluster.log();
        assert!(log.contains("No space left on device"), "the disk was never full");
        let _ = crate::load::connected(&database).batch_execute("DROP TABLE IF EXISTS public.filler; CHECKPOINT");
    }
}
