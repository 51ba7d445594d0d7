#!/usr/bin/env python3
"""Writes the road from one version of the extension to the next: what differs between their scripts.

upgrade_script.py OLD.sql NEW.sql: functions that changed are replaced, comments that changed are given anew, and what is
new is made and closed to PUBLIC; internal functions, on which nothing of anybody's rests, are made anew where their
arguments changed. What it cannot tell (something gone, a type or another signature that changed) it names and ends with
1: that is written by hand.
"""

import re
import sys

HEAD = '\\echo Use "ALTER EXTENSION pg_tenancy UPDATE" to load this file. \\quit\n'
# Every session looks at the versions again.
TAIL = """DO $$
BEGIN
    IF to_regclass('tenancy.schema_migrations') IS NOT NULL THEN
        PERFORM tenancy._changed('schema_migrations');
    END IF;
END
$$;
"""
TOKEN = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|(\$\w*\$).*?\1|;|\s+|.", re.DOTALL)
FUNCTION = re.compile(r'CREATE\s+(?:FUNCTION|PROCEDURE)\s+(?:tenancy\.)?"?(\w+)"?\s*\(')


def statements(script):
    """The statements of a script without the comments between them."""
    found, current = [], []
    for token in TOKEN.finditer(script):
        text = token.group()
        if not current and (text.isspace() or text.startswith(("--", "/*"))):
            continue
        current.append(text)
        if text == ";":
            # Comments that pgrx puts into a statement say where in the sources it stands.
            found.append("".join(part for part in current if not part.startswith("/*")))
            current = []
    return found


def name(statement):
    match = FUNCTION.match(statement)
    return match and match.group(1)


def arguments(statement):
    """A function's arguments, as DROP FUNCTION takes them."""
    rest, depth = statement[FUNCTION.match(statement).end():], 1
    for end, character in enumerate(rest):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return re.sub(r"\s+DEFAULT\s+[^,]+", "", " ".join(rest[:end].split()))
    raise ValueError(statement[:200])


def main(old, new):
    old, new = (statements(open(file, encoding="utf-8").read()) for file in (old, new))
    plain = lambda statement: " ".join(statement.split())
    known, kept = {plain(statement) for statement in old}, {plain(statement) for statement in new}
    gone = [statement for statement in old if plain(statement) not in kept]
    made = [statement for statement in new if plain(statement) not in known]
    before = {name(statement): statement for statement in gone}
    dropped, replaced, added, comments, by_hand = [], [], [], [], []
    for statement in made:
        if not name(statement):
            (comments if statement.startswith("COMMENT ON") else by_hand).append(statement)
        elif name(statement) not in before:
            added.append(statement)
        elif name(statement).startswith("_") and arguments(statement) != arguments(before[name(statement)]):
            dropped.append(f"DROP FUNCTION tenancy.{name(statement)}({arguments(before[name(statement)])});")
            added.append(statement)
        else:
            replaced.append(statement.replace("CREATE", "CREATE OR REPLACE", 1))
    # pgrx orders its script anew in each build; here the order is always the same.
    script = [HEAD.rstrip(), *sorted(dropped), *sorted(added, key=name), *sorted(replaced), *sorted(comments)]
    script += [f"REVOKE ALL ON ROUTINE tenancy.{name(statement)} FROM PUBLIC;" for statement in sorted(added, key=name)]
    after = {name(statement) for statement in made}
    by_hand += [statement for statement in gone if not statement.startswith("COMMENT ON") and name(statement) not in after]
    print("\n\n".join([*script, TAIL.rstrip()]))
    for statement in by_hand:
        print(f"by hand: {statement[:200]}", file=sys.stderr)
    return bool(by_hand)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
