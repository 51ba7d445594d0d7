//! docs/reference: written from the catalog's comments and the sources, and held against them. scripts/reference.sh
//! writes the pages anew.

mod common;

use common::{Database, Token, cluster};
use postgres::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const WRITTEN: &str =
    "<!-- Written by scripts/reference.sh, from the database's own comments and from the sources. -->\n";

/// The name makes scripts/public_objects.sh write these pages too.
#[test]
fn public_objects_stand_in_the_reference_as_they_are() {
    let database = cluster().database();
    let mut client = database.superuser();
    let pages = [
        ("functions", functions(&mut client)),
        ("settings", settings(&mut client)),
        ("errors", errors()),
        ("metrics", metrics(&database)),
        ("tables", tables(&mut client)),
        ("health", health(&mut client)),
        ("audit-rules", audit_rules(&mut client)),
    ];
    let mut differing = Vec::new();
    for (name, text) in pages {
        let file = root().join(format!("docs/reference/{name}.md"));
        let text = text.trim_end().to_owned() + "\n";
        if std::env::var_os("PGT_WRITE_REFERENCE").is_some() {
            fs::write(&file, &text).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != text {
            differing.push(name);
        }
    }
    assert!(differing.is_empty(), "docs/reference differs, run scripts/reference.sh: {differing:?}");
}

fn functions(client: &mut Client) -> String {
    let mut page = format!(
        "# Functions\n\n{WRITTEN}\nAll are in schema `tenancy`. `tenancy.grant_access(role, access)` opens those of an access; \
         `service` includes `application`, `operator` includes `application` and `metrics`. SQLSTATEs and reasons: [errors](errors.md).\n"
    );
    for (level, title) in [
        ("application", "For applications"),
        ("service", "For services that act for users"),
        ("operator", "For operators"),
        ("metrics", "For whoever watches"),
        ("owner", "For the extension's owner and superusers"),
    ] {
        let _ = write!(page, "\n## {title}\n");
        let rows = client
            .query(
                "SELECT p.proname::text, p.prokind = 'p', pg_get_function_arguments(p.oid),
                        pg_get_function_result(p.oid) || coalesce(' (' || (
                            SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
                              FROM pg_type AS t JOIN pg_attribute AS a ON a.attrelid = t.typrelid AND a.attnum > 0
                             WHERE t.oid = p.prorettype) || ')', ''),
                        obj_description(p.oid, 'pg_proc')
                   FROM tenancy._function_access() f JOIN pg_proc p ON p.oid = to_regprocedure('tenancy.' || f.signature)
                  WHERE f.access = $1 AND f.signature NOT LIKE '\\_%'
                  ORDER BY p.proname::text COLLATE \"C\", p.pronargs",
                &[&level],
            )
            .unwrap();
        assert!(!rows.is_empty(), "{level}");
        for row in rows {
            let (name, is_procedure): (String, bool) = (row.get(0), row.get(1));
            let (arguments, result, comment): (String, Option<String>, String) = (row.get(2), row.get(3), row.get(4));
            let arguments = without_casts(&arguments);
            let result = result.map(|result| format!(" → {result}")).unwrap_or_default();
            let call = if is_procedure { "CALL " } else { "" };
            let _ = write!(
                page,
                "\n### {name}\n\n```text\n{call}{name}({arguments}){result}\n```\n\n{}\n",
                plain(&comment)
            );
        }
    }
    page
}

/// `DEFAULT NULL::text` as one writes it: `DEFAULT NULL`.
fn without_casts(arguments: &str) -> String {
    let argument = |argument: &str| match argument.split_once(" DEFAULT ") {
        Some((name, value)) => format!("{name} DEFAULT {}", value.split("::").next().unwrap_or(value)),
        None => argument.to_owned(),
    };
    arguments.split(", ").map(argument).collect::<Vec<_>>().join(", ")
}

fn settings(client: &mut Client) -> String {
    let mut page = format!(
        "# Settings\n\n{WRITTEN}\nThe column *set* says by whom and when: `postmaster` in postgresql.conf with a restart, `sighup` with a \
         reload, `superuser` by a superuser in any session, role or database, `user` by anybody.\n\n\
         | setting | default | set | meaning |\n|---|---|---|---|\n"
    );
    let rows = client
        .query(
            "SELECT name, coalesce(nullif(boot_val, ''), 'none'), context, short_desc || coalesce(' ' || extra_desc, ''), vartype, min_val, max_val,
                    array_to_string(enumvals, ', ')
               FROM pg_settings WHERE name LIKE 'tenancy.%' ORDER BY name",
            &[],
        )
        .unwrap();
    for row in rows {
        let text = |at| row.get::<_, Option<String>>(at).unwrap_or_default();
        let range = match text(4).as_str() {
            "integer" => format!(" {} to {}.", text(5), text(6)),
            "enum" => format!(" One of {}.", text(7)),
            _ => String::new(),
        };
        let _ = writeln!(page, "| `{}` | {} | {} | {}{range} |", text(0), cell(&text(1)), text(2), cell(&text(3)));
    }
    page
}

fn tables(client: &mut Client) -> String {
    let mut page = format!(
        "# Tables and views\n\n{WRITTEN}\nIn schema `tenancy`, made by `tenancy.install()`. Rows change through functions only; who may \
         read what stands after *read by*, always under row-level security.\n"
    );
    let relations = client
        .query(
            "SELECT c.oid, c.relname::text, obj_description(c.oid, 'pg_class'),
                    coalesce((SELECT string_agg(DISTINCT t.access, ', ' ORDER BY t.access) FROM tenancy._table_access() t WHERE t.relation = c.relname),
                             'nobody but the functions')
               FROM pg_class c WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
              ORDER BY c.relname::text COLLATE \"C\"",
            &[],
        )
        .unwrap();
    for relation in relations {
        let (oid, name): (u32, String) = (relation.get(0), relation.get(1));
        let (comment, readers): (String, String) = (relation.get(2), relation.get(3));
        let _ = write!(
            page,
            "\n## {name}\n\n{} Read by: {readers}.\n\n| column | type | meaning |\n|---|---|---|\n",
            plain(&comment)
        );
        let columns = client
            .query(
                "SELECT attname::text, format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN '' ELSE ', null' END, col_description(attrelid, attnum)
                   FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
                &[&oid],
            )
            .unwrap();
        for column in columns {
            let (name, kind, comment): (String, String, String) = (column.get(0), column.get(1), column.get(2));
            let _ = writeln!(page, "| `{name}` | {kind} | {} |", cell(&comment));
        }
    }
    page
}

fn health(client: &mut Client) -> String {
    let mut page = format!(
        "# Checks of tenancy.health()\n\n{WRITTEN}\n`SELECT * FROM tenancy.health();` gives a row a finding: `check_name`, `status` (ok, warning, \
         error), `detail` and `remedy`. A check without a finding says ok, or nothing where it does not apply.\n\n"
    );
    let rows = client
        .query(
            "SELECT obj_description(p.oid, 'pg_proc') FROM pg_proc p
              WHERE p.pronamespace = 'tenancy'::regnamespace AND p.proname LIKE '\\_health\\_%' ORDER BY p.proname::text COLLATE \"C\"",
            &[],
        )
        .unwrap();
    for row in rows {
        let comment: String = row.get(0);
        let comment = comment.strip_prefix("Check ").or(comment.strip_prefix("Checks ")).expect("it begins with Check");
        let _ = writeln!(page, "- {}", plain(comment));
    }
    page
}

fn audit_rules(client: &mut Client) -> String {
    let mut page = format!(
        "# Rules of tenancy.audit_isolation()\n\n{WRITTEN}\nThe numbers are those of the [threat model](../explanation/threat-model.md).\n\n\
         | rule | severity | what it finds | threats |\n|---|---|---|---|\n"
    );
    let rules = "SELECT rule, severity, title, array_to_string(threats, ', ') FROM tenancy.audit_rules() ORDER BY rule COLLATE \"C\"";
    for row in client.query(rules, &[]).unwrap() {
        let text = |at| row.get::<_, String>(at);
        let _ = writeln!(page, "| `{}` | {} | {} | {} |", text(0), text(1), cell(&text(2)), text(3));
    }
    page
}

/// The families as they are exposed, after something of each kind has happened.
fn metrics(database: &Database) -> String {
    let mut client = database.superuser();
    client
        .batch_execute(
            "SELECT tenancy.register_user('ada'), tenancy.grant_credits(10, user_id => 'ada'), tenancy.set_event_consumer('mailer'),
                    tenancy.hold_credits('ada', 1), tenancy.set_rate_limit('calls', 10, '1 minute')",
        )
        .unwrap();
    let mut app = database.connect("app");
    for (call, works) in [
        ("tenancy.spend_credits(1)", true),
        ("tenancy.spend_credits(1000)", false),
        ("tenancy.take_rate_limit('calls')", true),
        ("tenancy.record_llm_usage('openai', 'gpt-x', 10, 10, cost => 1, latency_ms => 5)", true),
    ] {
        let mut transaction = app.transaction().unwrap();
        transaction.execute("SELECT tenancy.authenticate($1)", &[&Token::for_user("ada").sign()]).unwrap();
        assert_eq!(
            transaction.query(&format!("SELECT {call}"), &[]).map(|_| transaction.commit().unwrap()).is_ok(),
            works,
            "{call}"
        );
    }
    let text: String = client.query_one("SELECT tenancy.metrics_text()", &[]).unwrap().get(0);
    let mut families: BTreeMap<&str, (&str, &str, BTreeSet<&str>)> = BTreeMap::new();
    let mut family = "";
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "TYPE", name, kind] => {
                family = name;
                families.entry(name).or_default().0 = kind;
            }
            ["#", "HELP", name, help] => families.entry(name).or_default().1 = help,
            ["#", ..] => {}
            _ => {
                let labels = line
                    .split_once('{')
                    .and_then(|(_, rest)| rest.split_once('}'))
                    .map(|(labels, _)| labels)
                    .unwrap_or_default();
                let names = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name);
                families.get_mut(family).unwrap().2.extend(names.filter(|name| *name != "le"));
            }
        }
    }
    let source = fs::read_to_string(root().join("src/metering/mod.rs")).unwrap();
    for (family, _) in source.lines().filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" => ")) {
        assert!(families.contains_key(family), "{family} is not exposed by what this test does");
    }
    let mut page = format!(
        "# Metrics\n\n{WRITTEN}\n`tenancy.metrics_text()` gives them as OpenMetrics text, `tenancy.metrics()` as rows. A counter's samples end in \
         `_total`. Counters need preload.\n\n| family | kind | labels | meaning |\n|---|---|---|---|\n"
    );
    for (name, (kind, help, labels)) in families {
        assert!(!help.is_empty(), "{name} has no HELP");
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {} |", labels.join(" "), cell(help));
    }
    page
}

/// Reasons by SQLSTATE, read where they are raised: in SQL, in Rust, and in the lists of why a token or key is refused.
fn errors() -> String {
    let mut found: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let mut note = |state: &str, reason: &str, message: &str| {
        let messages = found.entry((state.to_owned(), reason.to_owned())).or_default();
        if !message.is_empty() {
            messages.insert(without_placeholders(message));
        }
    };
    for file in files(&root().join("sql"), "sql") {
        let text = fs::read_to_string(&file).unwrap();
        for (at, _) in text.match_indices("_raise(") {
            let words = literals(&text[at + 7..], '\'', 3);
            if let [state, reason, rest @ ..] = &words[..]
                && state.len() == 5
                && is_reason(reason)
            {
                note(state, reason, rest.first().map_or("", String::as_str));
            }
        }
    }
    let states = states();
    for file in files(&root().join("src"), "rs") {
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("\n#[cfg(test)]").next().unwrap();
        for (at, _) in text.match_indices("Error::new(") {
            let rest = text[at + 11..].trim_start();
            let Some((state, rest)) = rest.strip_prefix("State::").and_then(|rest| rest.split_once(',')) else {
                continue;
            };
            if let [reason, rest @ ..] = &literals(rest, '"', 2)[..]
                && is_reason(reason)
            {
                note(&states[state], reason, rest.first().map_or("", String::as_str));
            }
        }
        for (name, (reason, message)) in listed(text) {
            let state = match name.split("::").next().unwrap() {
                "KeyReason" => "22023",
                "SealError" => "55000",
                "Refusal" if matches!(reason.as_str(), "tenant_mismatch" | "tenant_taken" | "tenant_suspended") => {
                    "PT403"
                }
                "Reason" | "Refusal" => "PT401",
                _ => continue,
            };
            note(state, &reason, &message);
        }
    }
    assert!(found.len() > 100, "{}", found.len());
    let mut page = format!(
        "# Errors\n\n{}\nEvery error has an SQLSTATE, a DETAIL that is a JSON object with a stable `reason`, and a HINT. `PT` and three digits is an \
         outcome of the business, with the HTTP status that PostgREST and Supabase answer by themselves; the other codes are PostgreSQL's own. \
         What DETAIL holds beside the reason depends on it: PT402 `insufficient_credits`, for example, names the pool, what is required and \
         what is available.\n",
        WRITTEN
    );
    let mut last = "";
    for ((state, reason), messages) in &found {
        if state != last {
            let _ = write!(page, "\n## {state}\n\n{}\n\n| reason | message |\n|---|---|\n", meaning(state));
            last = state;
        }
        let messages: Vec<&str> = messages.iter().map(String::as_str).take(3).collect();
        let _ = writeln!(page, "| `{reason}` | {} |", cell(&messages.join("; ")));
    }
    page
}

fn meaning(state: &str) -> &'static str {
    match state {
        "PT401" => "Not authenticated.",
        "PT402" => "Not enough credits, or no subscription that pays.",
        "PT403" => "Not allowed.",
        "PT404" => "Unknown.",
        "PT409" => "A conflict with what is there.",
        "PT422" => "Not in a state for this.",
        "PT429" => "A limit is reached.",
        "22023" => "An argument that can never be right.",
        "22003" => "A number out of range.",
        "42501" => "The role may not do this.",
        "0A000" => "Not supported.",
        "25006" => "Not in a read-only transaction.",
        "40001" => "Somebody else was quicker: run the transaction again.",
        "53400" => "A limit of the configuration is reached.",
        "54000" => "An argument larger than this function takes.",
        "55000" => "The set-up is incomplete, or of another version.",
        "55006" => "In use.",
        "57014" => "Cancelled.",
        "XX000" => "An inconsistency inside: report it.",
        _ => "See PostgreSQL's list of error codes.",
    }
}

/// The constants of src/pg/error.rs: name and SQLSTATE.
fn states() -> BTreeMap<String, String> {
    let text = fs::read_to_string(root().join("src/pg/error.rs")).unwrap();
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": State = State(\""))
        .map(|(name, rest)| (name.to_owned(), rest[..5].to_owned()))
        .collect()
}

/// What `match` arms say of an enumeration's members: `Reason::Expired => "expired"`, and the sentence for people.
fn listed(text: &str) -> BTreeMap<String, (String, String)> {
    let mut members: BTreeMap<String, (String, String)> = BTreeMap::new();
    for line in text.lines() {
        let Some((member, value)) = line.trim().split_once(" => ") else { continue };
        let member = member.split('(').next().unwrap();
        let Some(literal) = literals(value, '"', 1).pop().filter(|_| member.contains("::")) else { continue };
        let entry = members.entry(member.to_owned()).or_default();
        if value.starts_with('"') && is_reason(&literal) && entry.0.is_empty() {
            entry.0 = literal;
        } else if literal.contains(' ') && entry.1.is_empty() {
            entry.1 = literal;
        }
    }
    members.retain(|_, (reason, message)| !reason.is_empty() && !message.is_empty());
    members
}

/// The first literals of a text, up to the statement's end.
fn literals(text: &str, quote: char, most: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ';' || found.len() == most {
            break;
        }
        if character != quote {
            continue;
        }
        let mut literal = String::new();
        while let Some(character) = characters.next() {
            match character {
                '\\' if quote == '"' => literal.extend(characters.next()),
                _ if character == quote && quote == '\'' && characters.peek() == Some(&quote) => {
                    literal.extend(characters.next())
                }
                _ if character == quote => break,
                _ => literal.push(character),
            }
        }
        found.push(literal);
    }
    found
}

fn is_reason(text: &str) -> bool {
    // What ends so is the begin of a reason that is put together.
    !text.is_empty()
        && !text.ends_with('_')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// `{name}`, `%s`, `%L`, `%I` stand for what is only known then.
fn without_placeholders(message: &str) -> String {
    let mut text = String::new();
    let mut characters = message.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '{' => {
                characters.by_ref().find(|c| *c == '}');
                text.push('…');
            }
            '%' if characters.peek().is_some_and(|c| "sLI".contains(*c)) => {
                characters.next();
                text.push('…');
            }
            '\n' => text.push(' '),
            other => text.push(other),
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text that Markdown leaves alone.
fn plain(text: &str) -> String {
    text.replace('<', "&lt;").replace('*', "\\*").replace('[', "\\[").replace('`', "\\`").replace('\n', " ")
}

fn cell(text: &str) -> String {
    plain(text).replace('|', "\\|")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == ending) {
                found.push(entry);
            }
        }
    }
    found.sort();
    found
}
