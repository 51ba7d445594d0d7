//! docs/how-to/use-debezium.md, with Debezium itself: `DEBEZIUM=1 make test S=events T=debezium`.

use crate::common::{Cluster, Options, blocks, psql, sql_blocks};
use crate::world::{ORG, USER, school_in};
use postgres::Client;
use serde_json::Value;
use std::io::{BufRead, BufReader, copy};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Java's driver knows no unix sockets: a port that leads to the cluster's.
fn port_of(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), UnixStream::connect(&socket).unwrap());
            pump(client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                let _ = copy(&mut &server, &mut &client);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

fn pump(client: TcpStream, server: UnixStream) {
    thread::spawn(move || {
        let _ = copy(&mut &client, &mut &server);
        let _ = server.shutdown(Shutdown::Both);
    });
}

fn publish(service: &mut Client, grade: &str) -> String {
    let statement = "SELECT tenancy.publish_event('essay.graded.v1',
        jsonb_build_object('user_id', $1::text, 'org_id', $2::text, 'grade', $3::text), 'essay', 'e-1')::text";
    service.query_one(statement, &[&USER, &ORG, &grade]).unwrap().get(0)
}

#[test]
fn debezium_reads_the_outbox_as_the_page_says() {
    let Some(jars) = std::env::var_os("PGT_DEBEZIUM").map(PathBuf::from) else {
        crate::common::say!("skipped: PGT_DEBEZIUM names no folder with Debezium (DEBEZIUM=1 make test fetches it)");
        return;
    };
    let cluster = Cluster::start(Options { settings: vec![("wal_level", "logical".into())], ..Options::default() });
    let database = school_in(&cluster);
    psql(&database, "postgres", &[], &sql_blocks("docs/how-to/use-debezium.md").concat());
    let mut service = database.connect("svc");
    let first = publish(&mut service, "A");

    let settings = format!(
        "{}\nname=outbox\ntopic.prefix=app\noffset.storage=org.apache.kafka.connect.storage.MemoryOffsetBackingStore\n\
         key.converter.schemas.enable=false\nvalue.converter.schemas.enable=false\n\
         database.hostname=127.0.0.1\ndatabase.port={}\ndatabase.user=debezium\ndatabase.password=\ndatabase.dbname={}\n",
        blocks("docs/how-to/use-debezium.md", "properties").concat(),
        port_of(cluster.folder().join(".s.PGSQL.5432")),
        database.name
    );
    let file = cluster.write_file("debezium.properties", &settings, 0o644);
    let mut engine = Running(
        Command::new("java")
            .args(["-Xmx400m", "-cp"])
            .arg(jars.join("*"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/debezium/Outbox.java"))
            .arg(file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("java starts"),
    );
    let mut messages = BufReader::new(engine.0.stdout.take().unwrap()).lines();
    let mut expect = |id: &str, grade: &str| {
        let message = messages.next().expect("a message").unwrap();
        let [topic, key, headers, value] = message.split('\t').collect::<Vec<_>>()[..] else { panic!("{message}") };
        assert_eq!((topic, key), ("essay.graded.v1", "\"e-1\""));
        for header in [" id=", id, "tenant_id=", ORG, "sequence=", "correlation_id="] {
            assert!(headers.contains(header), "{header} is not in {headers}");
        }
        let envelope: Value = serde_json::from_str(value).unwrap();
        assert_eq!((&envelope["event_id"], &envelope["data"]["grade"]), (&Value::from(id), &Value::from(grade)));
    };
    expect(&first, "A"); // its snapshot
    let second = publish(&mut service, "B");
    expect(&second, "B"); // the log
    let mut superuser = database.superuser();
    superuser.query("SELECT tenancy.trim_events(retain => '0 seconds')", &[]).unwrap();
    let third = publish(&mut service, "C");
    expect(&third, "C"); // and nothing of the trim
}
