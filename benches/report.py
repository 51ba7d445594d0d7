#!/usr/bin/env python3
"""Writes the tables of docs/explanation/performance.md from benches/results/*.json; --check only compares them."""

import json
import pathlib
import sys

from cases import CASES

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parent / "docs" / "explanation" / "performance.md"
BEGIN, END = "<!-- written by benches/report.py -->\n", "<!-- end of what is written -->\n"


def bars(results):
    lines = ["| work | ours against | of | at least | measured | lowest–highest | |", "|---|---|---|---|---|---|---|"]
    for case, result in results:
        for bar in result["bars"]:
            limit = f"{bar['at_least']}×" if "at_least" in bar else f"at most {bar['at_most']}×"
            lines.append(f"| {case['title']}{': ' + bar['ours'] if bar['ours'] != 'ours' else ''} | {bar['against']} | {bar.get('of', 'tps')} | {limit} "
                         f"| {bar['ratio']:.2f}× | {bar['lowest']:.2f}–{bar['highest']:.2f} | {'holds' if bar['holds'] else '**does not hold**'} |")
    return lines


def figures(results):
    lines = ["| work | clients | what | per second | p50 ms | p99 ms |", "|---|---|---|---|---|---|"]
    for case, result in results:
        for row in result["rows"]:
            lines.append(f"| {case['title']} | {case['clients']} | {row['name']} | {row['tps']:,.0f} | {row['p50']:.3f} | {row['p99']:.3f} |")
    return lines


def main():
    results = []
    for case in CASES:
        file = HERE / "results" / f"{case['name']}.json"
        if file.exists():
            results.append((case, json.loads(file.read_text())))
    missing = [case["title"] for case in CASES if not (HERE / "results" / f"{case['name']}.json").exists()]
    ran = sorted({f"{result['rounds']} rounds of {result['seconds']} s, {result['date']}, PostgreSQL {result['server'].split()[0]}, {result['cores']} cores"
                  for _, result in results})
    text = "\n".join(["", "Measured: " + "; ".join(ran) + ".", "", *bars(results), "", *figures(results), ""]
                     + ([f"Not measured yet: {', '.join(missing)}.", ""] if missing else [])) + "\n"
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    written = before + BEGIN + text + END + rest.split(END)[1]
    if "--check" in sys.argv:
        sys.exit(0 if written == page else "docs/explanation/performance.md is not what benches/report.py writes")
    PAGE.write_text(written)


if __name__ == "__main__":
    main()
