//! The documentation, run: every block of SQL of every page of docs/, in order, in a database of the page's own.
//!
//! A page is run by default, as the superuser, in a database with the extension, its tables, and the roles app, svc, ops
//! and met; `:'token'` is a token of user_1 of the organization acme. A comment `<!-- test … -->` in the page, a line
//! each, says what is different from there on:
//!
//! ```text
//! as ROLE                       the blocks run as this role
//! token NAME USER ORG|- [C=V…]  :'NAME' is a token, with these claims
//! before SQL                    run by the superuser before the page
//! shows LINE                    the page's output has this line
//! skip REASON                   the next block is not run, because
//! elsewhere TEST                the page is run by this test
//! ```
//!
//! A page that a test asks for by name (`sql_blocks("docs/…")`) is that test's.

mod common;

use common::{Part, Token, cluster, parts, psql};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Default)]
struct Page {
    script: String,
    before: Vec<String>,
    tokens: Vec<(String, String)>,
    shows: Vec<String>,
    elsewhere: Option<String>,
    blocks: usize,
}

#[test]
fn every_block_of_sql_runs() {
    let mut failures = Vec::new();
    let mut run = 0;
    let sources = sources();
    for file in files(&root().join("docs"), "md") {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let page = read(&fs::read_to_string(&file).unwrap()).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        if let Some(test) = &page.elsewhere {
            assert!(sources.contains(&format!("fn {test}(")), "{name} is run by {test}, which does not exist");
        } else if sources.contains(&format!("sql_blocks(\"{name}\")")) {
            println!("{name}: run by the test that names it");
        } else if page.blocks > 0 {
            run += page.blocks;
            println!("{name}");
            if let Err(problem) = page.run() {
                failures.push(format!("{name}: {problem}"));
            }
        }
    }
    println!("{run} blocks run");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(run >= 50, "{run}");
}

/// SQL in a block of another kind, or in an indented one, would be run by nobody.
#[test]
fn sql_stands_where_it_is_run() {
    const VERBS: [&str; 12] =
        ["SELECT", "CALL", "CREATE", "ALTER", "DROP", "INSERT", "UPDATE", "DELETE", "GRANT", "COPY", "BEGIN", "SET"];
    let statement = |line: &str| {
        let line = line.split("--").next().unwrap_or("").trim();
        line.ends_with(';') && VERBS.iter().any(|verb| line.split([' ', ';']).next() == Some(verb))
    };
    assert!(statement("    SELECT 1; -- one") && !statement("SELECTED;") && !statement("SELECT it"));
    let mut found = Vec::new();
    for file in files(&root().join("docs"), "md") {
        let text = fs::read_to_string(&file).unwrap();
        let mut indented = text.clone();
        for part in parts(&text).unwrap() {
            if let Part::Block { language, text } = part {
                indented = indented.replacen(&text, "", 1);
                if ["", "text"].contains(&language.as_str()) {
                    found.extend(
                        text.lines().filter(|line| statement(line)).map(|line| (file.clone(), line.to_owned())),
                    );
                }
            }
        }
        let indented = indented.lines().filter(|line| line.starts_with("    ") && statement(line));
        found.extend(indented.map(|line| (file.clone(), line.to_owned())));
    }
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn what_the_pages_name_is_there() {
    let database = cluster().database();
    let known = "SELECT proname::text FROM pg_proc WHERE pronamespace = 'tenancy'::regnamespace
                 UNION SELECT relname::text FROM pg_class WHERE relnamespace = 'tenancy'::regnamespace
                 UNION SELECT typname::text FROM pg_type WHERE typnamespace = 'tenancy'::regnamespace
                 UNION SELECT substr(name, 9) FROM pg_settings WHERE name LIKE 'tenancy.%'";
    let known: BTreeSet<String> =
        database.superuser().query(known, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    // Beginnings of an event's type and of a file's name.
    let others = ["credit", "key"];
    let mut pages = files(&root().join("docs"), "md");
    pages.push(root().join("README.md"));
    let mut named = 0;
    for file in pages {
        let text = fs::read_to_string(&file).unwrap();
        for (at, _) in text.match_indices("tenancy.") {
            let name: String =
                text[at + 8..].chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect();
            let before = text[..at].chars().next_back();
            if !name.is_empty() && !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
                named += 1;
                assert!(known.contains(&name) || others.contains(&name.as_str()), "{}: tenancy.{name}", file.display());
            }
        }
    }
    assert!(named > 300, "{named}");
}

#[test]
fn a_link_leads_somewhere_and_to_every_page() {
    let html = root().join("docs").canonicalize().unwrap();
    let mut broken = Vec::new();
    let mut pages = files(&root().join("docs"), "md");
    pages.push(root().join("README.md"));
    for file in pages {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (target, _) = target.split_once('#').unwrap_or((target, ""));
            if target.is_empty() || target.contains("://") {
                continue;
            }
            match file.parent().unwrap().join(target).canonicalize() {
                // What stands outside of docs/, or is a folder, is no page of the HTML.
                Ok(found) if name.starts_with("docs/") && !(found.is_file() && found.starts_with(&html)) => {
                    broken.push(format!("{name}: {target} is not below docs/"));
                }
                Ok(_) => {}
                Err(_) => broken.push(format!("{name}: {target}")),
            }
        }
    }
    // mdBook makes HTML of those pages alone that its summary names.
    let summary = fs::read_to_string(html.join("SUMMARY.md")).unwrap();
    for page in files(&html, "md") {
        let name = page.strip_prefix(&html).unwrap().display().to_string();
        if name != "SUMMARY.md" && !summary.contains(&format!("({name})")) {
            broken.push(format!("{name} is not in docs/SUMMARY.md"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Reads a page: its blocks of SQL as one script for psql.
fn read(text: &str) -> Result<Page, String> {
    let mut page = Page::default();
    let (mut role, mut connected) = ("postgres".to_owned(), "postgres".to_owned());
    let mut skip = false;
    for part in parts(text)? {
        match part {
            Part::Directives(directives) => {
                for directive in directives {
                    let (word, rest) = directive.split_once(' ').unwrap_or((&directive, ""));
                    match word {
                        "as" => role = rest.to_owned(),
                        "token" => page.tokens.push(token(rest)?),
                        "before" => page.before.push(rest.to_owned()),
                        "shows" => page.shows.push(rest.to_owned()),
                        "skip" if rest.len() > 10 => skip = true,
                        "elsewhere" => page.elsewhere = Some(rest.to_owned()),
                        _ => return Err(format!("not a directive, or without a reason: {directive}")),
                    }
                }
            }
            Part::Block { language, text } if language == "sql" => {
                if !std::mem::take(&mut skip) {
                    if role != connected {
                        page.script += &format!("\\connect - {role}\n");
                        connected.clone_from(&role);
                    }
                    page.script += &text;
                    page.blocks += 1;
                }
            }
            Part::Block { .. } => {}
        }
    }
    if skip { Err("a skip without a block".into()) } else { Ok(page) }
}

fn token(text: &str) -> Result<(String, String), String> {
    let mut words = text.split_whitespace();
    let (Some(name), Some(user), Some(org)) = (words.next(), words.next(), words.next()) else {
        return Err(format!("token wants a name, a user and an organization or -: {text}"));
    };
    let token = if org == "-" { Token::for_user(user) } else { Token::for_member(user, org) };
    let token =
        words.filter_map(|word| word.split_once('=')).fold(token, |token, (claim, value)| token.claim(claim, value));
    Ok((name.to_owned(), token.sign()))
}

impl Page {
    fn run(&self) -> Result<(), String> {
        let database = cluster().database();
        let mut superuser = database.superuser();
        superuser.batch_execute(&format!("GRANT CREATE ON DATABASE {} TO ops", database.name)).unwrap();
        for statement in &self.before {
            superuser.batch_execute(statement).map_err(|error| format!("{statement}: {error:?}"))?;
        }
        let usual = ("token".to_owned(), Token::for_member("user_1", "acme").sign());
        let tokens: Vec<(&str, &str)> =
            [&usual].into_iter().chain(&self.tokens).map(|(name, token)| (name.as_str(), token.as_str())).collect();
        let (shown, _) = psql(&database, "postgres", &tokens, &self.script);
        match self.shows.iter().find(|line| !shown.lines().any(|shown| shown == line.as_str())) {
            Some(missing) => Err(format!("{missing} is not in:\n{shown}")),
            None => Ok(()),
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Everything the tests' sources say.
fn sources() -> String {
    let folders = ["tests", "pgrx-tests", "src"];
    folders
        .iter()
        .flat_map(|folder| files(&root().join(folder), "rs"))
        .map(|file| fs::read_to_string(file).unwrap())
        .collect()
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

#[test]
fn a_page_says_how_it_is_run() {
    let page = read("<!-- test\nas ops\nshows t\nbefore SELECT 1\n-->\n```sql\nSELECT 1;\n```\n<!-- test skip it needs a broker -->\n```sql\nx\n```\n```sh\n```\n<!-- test as app -->\n```sql\nSELECT 2;\n```\n").unwrap();
    assert_eq!(page.script, "\\connect - ops\nSELECT 1;\n\\connect - app\nSELECT 2;\n");
    assert_eq!((page.blocks, page.shows.len(), page.before.len()), (2, 1, 1));
    for wrong in
        ["<!-- test skip -->\n```sql\n```\n", "<!-- test maybe -->\n", "<!-- test skip a long reason -->\n", "```sh\n"]
    {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

/// What health() looks at, by its comments, stands in the tests of it.
#[test]
fn every_check_of_health_is_tested() {
    let page = fs::read_to_string(root().join("docs/reference/health.md")).unwrap();
    let sources: String =
        files(&root().join("tests/operations"), "rs").iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let checks: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("- "))
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .collect();
    assert!(checks.len() >= 19, "{checks:?}");
    for check in checks {
        assert!(
            ["\"warning\"", "\"error\""].iter().any(|status| sources.contains(&format!("\"{check}\", {status}"))),
            "{check}"
        );
    }
}

#[test]
fn every_alert_has_a_runbook() {
    let rules = fs::read_to_string(root().join("monitoring/pg_tenancy.rules.yml")).unwrap();
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 8, "{alerts:?}");
    for alert in &alerts {
        let page = root().join(format!("docs/runbooks/{alert}.md"));
        let text = fs::read_to_string(&page).unwrap_or_else(|_| panic!("{alert} has no runbook"));
        for part in ["## What it means", "## Look", "## Do"] {
            assert!(text.contains(part), "{alert}: no {part}");
        }
        let pages = [format!("/runbooks/{alert}.html{{{{"), format!("}}}}docs/runbooks/{alert}.md{{{{")];
        assert!(pages.iter().all(|page| rules.contains(page)), "{alert} has no runbook_url");
    }
    let runbooks = files(&root().join("docs/runbooks"), "md").len();
    assert_eq!(runbooks, alerts.len() + 1, "a runbook of an alert that is gone");
}
