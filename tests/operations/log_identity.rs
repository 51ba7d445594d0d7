//! Lines of the server's log say under whose identity they were written: in text, CSV and JSON.

use crate::common::{Cluster, Options, Token, fails_with};
use postgres::Client;
use serde_json::Value;
use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

fn logging() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        let settings = [
            ("logging_collector", "on"),
            ("log_destination", "stderr,csvlog,jsonlog"),
            ("log_filename", "server.log"),
            ("log_parameter_max_length", "0"),
        ];
        let settings = settings.map(|(name, value)| (name, value.to_string())).to_vec();
        Cluster::start(Options { settings, ..Options::default() })
    })
}

fn file(name: &str) -> String {
    String::from_utf8_lossy(&fs::read(logging().data().join("log").join(name)).unwrap_or_default()).into_owned()
}

/// The DETAIL of the line with this message, in the three formats; `None`: the line has none.
fn details(message: &str) -> [Option<String>; 3] {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let (Some(text), Some(csv), Some(json)) = (text(message), csv(message), json(message)) {
            return [text, csv, json];
        }
        assert!(Instant::now() < end, "{message} is not in the log:\n{}", file("server.log"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn text(message: &str) -> Option<Option<String>> {
    let log = file("server.log");
    let mut lines = log.lines().skip_while(|line| !line.ends_with(&format!(":  {message}")));
    lines.next()?;
    let next = lines.next()?;
    Some(next.split_once("DETAIL:  ").map(|(_, detail)| detail.to_owned()))
}

fn csv(message: &str) -> Option<Option<String>> {
    let log = file("server.csv");
    let (mut row, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = log.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => field.extend(characters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                if row[13] == message {
                    return Some(Some(row[14].clone()).filter(|detail| !detail.is_empty()));
                }
                row.clear();
            }
            other => field.push(other),
        }
    }
    None
}

fn json(message: &str) -> Option<Option<String>> {
    let log = file("server.json");
    let line = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["message"] == message)?;
    Some(line["detail"].as_str().map(str::to_owned))
}

/// The note at the beginning of a DETAIL, and what stands after it.
fn noted(detail: &str) -> (Value, &str) {
    let rest = detail.strip_prefix("pg_tenancy: ").unwrap_or_else(|| panic!("no note in {detail}"));
    let mut objects = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
    let object = objects.next().unwrap().unwrap();
    (object, &rest[objects.byte_offset()..])
}

fn say(client: &mut impl postgres::GenericClient, message: &str) {
    client.batch_execute(&format!("DO $$ BEGIN RAISE LOG '{message}'; END $$")).unwrap();
}

#[test]
fn a_line_says_whose_it_is_in_every_format_and_the_client_is_not_told() {
    let database = logging().database();
    let mut app = database.connect("app");
    say(&mut app, "nobody yet");
    for user in ["ada", "Åsa \"} LOG:  forged {\"tenant_id\":\"globex", "a\u{2028}b\u{202e}c\\"] {
        let message = format!("told by {}", user.len());
        let mut transaction = app.transaction().unwrap();
        let token = Token::for_member(user, "acme").claim("tenant_id", "tenant-1").sign();
        transaction.execute("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
        let correlation: Option<String> = transaction.query_one("SELECT tenancy.correlation_id()", &[]).unwrap().get(0);
        let error = transaction
            .batch_execute(&format!(
                "DO $$ BEGIN RAISE EXCEPTION '{message}' USING DETAIL = '{{\"reason\": \"x\"}}'; END $$"
            ))
            .unwrap_err();
        assert_eq!(error.as_db_error().unwrap().detail(), Some("{\"reason\": \"x\"}"), "as it was");
        assert!(!format!("{error:?}").contains("tenant-1"));
        transaction.rollback().unwrap();
        for detail in details(&message) {
            let detail = detail.expect("the line has a DETAIL");
            let (note, rest) = noted(&detail);
            assert_eq!(note["tenant_id"], "tenant-1");
            assert_eq!(note["org_id"], "acme");
            assert_eq!(note["user_id"], user);
            assert_eq!(note["correlation_id"].as_str(), correlation.as_deref());
            assert_eq!(rest, " {\"reason\": \"x\"}");
            assert!(!detail.chars().any(|c| c.is_control() || c == '\u{2028}' || c == '\u{202e}'), "{detail:?}");
        }
    }
    say(&mut app, "nobody any more");
    for message in ["nobody yet", "nobody any more"] {
        assert_eq!(details(message), [None, None, None], "{message}");
    }
}

#[test]
fn notices_statements_and_the_end_of_a_session_are_noted_too() {
    let database = logging().database();
    let (mut app, notices) = database.connect_with_notices("app");
    let pid: i32 = app.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    database.superuser().batch_execute(&format!("ALTER DATABASE {} SET log_statement = 'all'", database.name)).unwrap();
    let mut all = database.connect("app");
    for client in [&mut app, &mut all] {
        client.batch_execute("BEGIN").unwrap();
        client.execute("SELECT tenancy.authenticate($1)", &[&Token::for_user("bea").sign()]).unwrap();
    }
    all.batch_execute("SELECT 'a statement'; SAVEPOINT s").unwrap();
    app.batch_execute("DO $$ BEGIN RAISE WARNING 'a warning'; END $$").unwrap();
    assert!(notices.lock().unwrap().iter().all(|notice| notice.detail().is_none()));
    // An error inside a savepoint, and one that is caught and raised again.
    all.batch_execute("DO $$ BEGIN RAISE EXCEPTION 'in a savepoint'; END $$").unwrap_err();
    all.batch_execute(
        "ROLLBACK TO s; DO $$ BEGIN BEGIN RAISE EXCEPTION 'raised again' USING DETAIL = 'twice'; EXCEPTION WHEN OTHERS THEN RAISE; END; END $$",
    )
    .unwrap_err();
    database.superuser().execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    for message in [
        "statement: SELECT 'a statement'; SAVEPOINT s",
        "a warning",
        "in a savepoint",
        "raised again",
        "terminating connection due to administrator command",
    ] {
        for detail in details(message) {
            let detail = detail.unwrap_or_else(|| panic!("{message} has no DETAIL"));
            let (note, rest) = noted(&detail);
            assert_eq!(note["user_id"], "bea", "{message}");
            assert_eq!(note["tenant_id"], "user::bea");
            assert_eq!(note.get("org_id"), None, "personal");
            assert_eq!(rest, if message == "raised again" { " twice" } else { "" });
        }
    }
}

#[test]
fn a_setting_switches_it_off_and_no_application_can() {
    let database = logging().database();
    let mut app = database.connect("app");
    fails_with(app.batch_execute("SET tenancy.log_identity = off"), "42501");
    let mut superuser = database.superuser();
    let quiet = |client: &mut Client| {
        client.batch_execute("BEGIN").unwrap();
        client.execute("SELECT tenancy.authenticate($1)", &[&Token::for_user("cid").sign()]).unwrap();
    };
    quiet(&mut superuser);
    say(&mut superuser, "switched on");
    superuser.batch_execute("SET tenancy.log_identity = off").unwrap();
    say(&mut superuser, "switched off");
    superuser.batch_execute("ROLLBACK").unwrap();
    assert!(details("switched on").iter().all(|detail| noted(detail.as_ref().unwrap()).0["user_id"] == "cid"));
    assert_eq!(details("switched off"), [None, None, None]);
}

#[test]
fn a_deadlock_keeps_what_the_log_alone_is_told_and_many_lines_cost_no_memory() {
    let database = logging().database();
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE TABLE public.rows (id integer); INSERT INTO public.rows VALUES (1), (2); GRANT ALL ON public.rows TO app").unwrap();
    let mut sessions = [1, 2].map(|row| {
        let mut app = database.connect("app");
        app.batch_execute("BEGIN").unwrap();
        app.execute("SELECT tenancy.authenticate($1)", &[&Token::for_user("dan").sign()]).unwrap();
        app.batch_execute(&format!("UPDATE public.rows SET id = id WHERE id = {row}")).unwrap();
        app
    });
    let results: Vec<_> = std::thread::scope(|scope| {
        let waiting = sessions.iter_mut().zip([2, 1]).map(|(app, row)| {
            scope.spawn(move || app.batch_execute(&format!("UPDATE public.rows SET id = id WHERE id = {row}; COMMIT")))
        });
        waiting.collect::<Vec<_>>().into_iter().map(|session| session.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
    for detail in details("deadlock detected") {
        let detail = detail.unwrap();
        let (note, rest) = noted(&detail);
        assert_eq!(note["user_id"], "dan");
        assert!(rest.contains("waits for ShareLock"), "{rest}");
    }

    let mut app = database.connect("app");
    app.batch_execute("BEGIN").unwrap();
    app.execute("SELECT tenancy.authenticate($1)", &[&Token::for_user("dan").sign()]).unwrap();
    let held = "SELECT total_bytes FROM pg_backend_memory_contexts WHERE name = 'ErrorContext'";
    superuser.batch_execute("GRANT pg_read_all_stats TO app").unwrap();
    let before: i64 = app.query_one(held, &[]).unwrap().get(0);
    app.batch_execute(
        "DO $$ BEGIN FOR n IN 1..2000 LOOP RAISE LOG 'one of many' USING DETAIL = 'detail'; END LOOP; END $$",
    )
    .unwrap();
    let after: i64 = app.query_one(held, &[]).unwrap().get(0);
    assert!(after <= before + 65_536, "{before} bytes before, {after} after");
}
