#!/usr/bin/env python3
"""Runs the benchmarks side by side on one private cluster and holds them against their bars.

Started by scripts/bench.sh, which makes the cluster (PGHOST, PGUSER, PGDATABASE set) and loads benches/world.sql into
the database world, and benches/rows.sql on top of it into the database bench. Ours and its baselines run alternately; the figure is the median over the alternations, the ratio's spread is its
smallest and largest value. Absolute figures belong to the machine; ratios do not.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

from cases import CASES

HERE = pathlib.Path(__file__).parent


def psql(text, database="bench"):
    command = ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", text]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def make_database(name, fill, size):
    """A copy of the world, filled up to a size, unless it was made before; whether it was made now."""
    if psql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'", "postgres"):
        return False
    print(f"    making {name} …", flush=True)
    psql(f"CREATE DATABASE {name} TEMPLATE world", "postgres")
    subprocess.run(["psql", "-XqAt", "-d", name, "-v", f"size={size}", "-f", str(HERE / fill)], check=True, stdout=subprocess.DEVNULL)
    return True


def percentile(values, share):
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def pgbench(variant, case, seconds):
    """One run of one variant, once its sessions are warm: transactions a second, and the latencies of single
    transactions in milliseconds."""
    warm = case.get("warm", 1)
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(folder, "script.sql")
        script.write_text(variant["script"])
        command = ["pgbench", "-n", "-M", case.get("protocol", "prepared"), "-c", str(case["clients"]), "-j", "2", "-T", str(warm + seconds),
                   "-f", str(script), "-U", variant.get("role", "app"), "-d", variant.get("database", "bench"), "-l", "--log-prefix", str(pathlib.Path(folder, "log"))]
        for name, value in variant.get("variables", {}).items():
            command += ["-D", f"{name}={value}"]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"{variant['name']}: pgbench failed\n{run.stderr[-2000:]}")
        failed = re.search(r"number of failed transactions: (\d+)", run.stdout)
        if failed and int(failed.group(1)):
            sys.exit(f"{variant['name']}: {failed.group(1)} transactions failed")
        # Client, number, latency in µs, script, and when it ended: seconds and µs.
        lines = [line.split() for log in pathlib.Path(folder).glob("log*") for line in log.read_text().splitlines()]
    ends = [(int(line[4]) + int(line[5]) / 1e6, int(line[2]) / 1e6) for line in lines]
    begin = min(end - latency for end, latency in ends) + warm
    latencies = sorted(1000 * latency for end, latency in ends if end > begin)
    tps = len(latencies) / (max(end for end, _ in ends) - begin)
    return {"tps": tps * variant.get("units", 1), "p50": percentile(latencies, 0.5), "p99": percentile(latencies, 0.99)}


def measure(case, rounds, seconds):
    made = [database[0] for database in case.get("databases", []) if make_database(*database)]
    for statement in case.get("before", []):
        psql(statement)
    results = {variant["name"]: [] for variant in case["variants"]}
    for number in range(rounds):
        for variant in case["variants"]:
            for statement in variant.get("before", []):
                psql(statement)
            print(f"    {case['name']}: round {number + 1} of {rounds}, {variant['name']} …", flush=True)
            results[variant["name"]].append(pgbench(variant, case, seconds))
    for statement in case.get("after", []):
        psql(statement)
    for database in ["bench"] + [name for name, _, _ in case.get("databases", [])]:
        findings = psql("SELECT count(*) FROM tenancy.verify_ledger()", database) if verifies(case, database) else "0"
        if findings != "0":
            sys.exit(f"{case['name']}: verify_ledger finds {findings} faults in {database}")
    for name in made:
        psql(f"DROP DATABASE {name}", "postgres")
    return results


def verifies(case, database):
    """Whether the ledger is checked after a case: wherever it was written, but for one too long to read through."""
    return case.get("debits", False) and not database.endswith(str(10**7))


def summarise(case, results):
    """A row a variant; a verdict a bar. A ratio compares runs of the same round."""
    rows = [{"name": name, **{key: statistics.median(run[key] for run in runs) for key in ("tps", "p50", "p99")}}
            for name, runs in results.items()]
    verdicts = []
    for bar in case["bars"]:
        ours, theirs = results[bar["ours"]], results[bar["against"]]
        key = bar.get("of", "tps")
        ratios = [mine[key] / other[key] for mine, other in zip(ours, theirs)]
        ratio = statistics.median(ratios)
        holds = ratio >= bar["at_least"] if "at_least" in bar else ratio <= bar["at_most"]
        verdicts.append({**bar, "ratio": ratio, "lowest": min(ratios), "highest": max(ratios), "holds": holds})
    return rows, verdicts


def show(case, rows, verdicts):
    print(f"\n{case['title']}  ({case['clients']} clients)")
    print(f"  {'':34} {'per second':>12} {'p50 ms':>9} {'p99 ms':>9}")
    for row in rows:
        print(f"  {row['name']:34} {row['tps']:12,.0f} {row['p50']:9.3f} {row['p99']:9.3f}")
    for verdict in verdicts:
        bar = f"≥ {verdict['at_least']}" if "at_least" in verdict else f"≤ {verdict['at_most']}"
        print(f"  {verdict['ours']} / {verdict['against']}, {verdict.get('of', 'tps')}: {verdict['ratio']:.2f}× "
              f"({verdict['lowest']:.2f}–{verdict['highest']:.2f}), bar {bar}: {'holds' if verdict['holds'] else 'DOES NOT HOLD'}")


def plot(case, rows, folder):
    """A bar chart of the rates, as SVG."""
    width, bar, left = 760, 26, 260
    top = max(row["tps"] for row in rows)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{40 + bar * len(rows)}" font-family="sans-serif" font-size="13">',
             f'<text x="8" y="20" font-weight="bold">{case["title"]}, per second</text>']
    for index, row in enumerate(rows):
        y, length = 32 + bar * index, (width - left - 110) * row["tps"] / top
        colour = "#2b6cb0" if row["name"].startswith("ours") else "#a0aec0"
        lines.append(f'<text x="8" y="{y + 16}">{row["name"]}</text><rect x="{left}" y="{y + 3}" width="{length:.0f}" height="{bar - 8}" fill="{colour}"/>'
                     f'<text x="{left + length + 6:.0f}" y="{y + 16}">{row["tps"]:,.0f}</text>')
    pathlib.Path(folder, case["name"] + ".svg").write_text("\n".join(lines + ["</svg>", ""]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="one benchmark by name, or several with commas between")
    parser.add_argument("--seconds", type=int, help="how long one run of one variant takes")
    parser.add_argument("--prepare", action="store_true", help="only make the databases of different sizes, and leave them for the next run")
    parser.add_argument("--full", action="store_true", help="long enough to hold the bars; without it a short look")
    options = parser.parse_args()
    cases = [case for case in CASES if (not options.only or case["name"] in options.only.split(",")) and (options.full or options.only or not case.get("full_only"))]
    if not cases:
        sys.exit("no benchmark of that name: " + ", ".join(case["name"] for case in CASES))
    if options.prepare:
        for database in [database for case in cases for database in case.get("databases", [])]:
            make_database(*database)
        return
    rounds, seconds = (7, 4) if options.full else (3, 3)
    seconds = options.seconds or seconds
    started = time.monotonic()
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    everything = []
    for number, case in enumerate(cases):
        print(f"\n[{number + 1} of {len(cases)}, {time.monotonic() - started:.0f} s] {case['title']}", flush=True)
        results = measure(case, rounds, seconds)
        rows, verdicts = summarise(case, results)
        show(case, rows, verdicts)
        plot(case, rows, folder)
        (folder / f"{case['name']}.json").write_text(json.dumps(
            {"date": datetime.date.today().isoformat(), "server": psql("SHOW server_version"), "cores": os.cpu_count(), "rounds": rounds,
             "seconds": seconds, "title": case["title"], "rows": rows, "bars": verdicts, "runs": results}, indent=1) + "\n")
        everything += [(case, verdict) for verdict in verdicts]
    print("\nBars")
    for case, verdict in everything:
        print(f"  {'holds        ' if verdict['holds'] else 'DOES NOT HOLD'}  {case['title']}: {verdict['ours']} / {verdict['against']} = {verdict['ratio']:.2f}×")


if __name__ == "__main__":
    main()
