"""Writes the README's tables from the files under results/: `python experiments/tables.py [--check]`."""

import json
import re
from pathlib import Path

from runtime import Parser, one_sentence_errors, run_script, set_environment

ROOT = Path(__file__).resolve().parent.parent


def main(words: list[str]) -> int:
    """Rewrites the marked parts of the README; with --check only says whether they are up to date."""
    set_environment()
    parser = Parser(prog="tables.py", description="Write the README's tables from the files under results/.")
    parser.add_argument("--check", action="store_true", help="exit with 1 where the README is out of date")
    with one_sentence_errors("tables.py", {ValueError: 2}):
        options = parser.parse_args(words)
    readme = ROOT / "README.md"
    text = readme.read_text()
    updated = replace_part(replace_part(text, "results", results_table()), "speed", speed_table())
    if options.check:
        return int(updated != text)
    readme.write_text(updated)
    return 0


def replace_part(text: str, name: str, table: str) -> str:
    """Puts a table between the comments `<!-- name -->` and `<!-- end name -->`."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)"
    if not re.search(pattern, text, re.DOTALL):
        raise SystemExit(f"The README has no part between <!-- {name} --> and <!-- end {name} -->.")
    return re.sub(pattern, lambda match: match[1] + table + match[2], text, flags=re.DOTALL)


def results_table() -> str:
    """A row for the finished runs of every setting under results/."""
    from mamba_jax.table import markdown, over_seeds, read_entries

    return markdown(over_seeds(read_entries(ROOT / "results")), ROOT)


def speed_table() -> str:
    """Figures of results/benchmark.jsonl that have a counterpart in the authors' release, and those of algorithms;
    figures of results/release_loop.jsonl."""
    lines = ["| what | ours | release, two CPU cores | ratio |", "|---|---|---|---|"]
    for line in (ROOT / "results" / "benchmark.jsonl").read_text().splitlines():
        figures = json.loads(line)
        if "release_steps_per_s" in figures:
            what = f"{figures['env']}, environment steps per second, {figures['lanes']} lanes"
            ours, theirs = f"{figures['steps_per_s']:,}", f"{figures['release_steps_per_s']:,} (one process)"
        elif "release_s" in figures:
            what = f"{figures['env']}, one paper-size update ({figures['batch']} x {figures['rows']})"
            ours, theirs = f"{figures['update_s']:.2f} s", f"{figures['release_s']} s"
        elif figures["part"] == "algorithm":
            what = (
                f"{figures['env']}, {figures['algo']}, size {figures['size']}: environment steps per second in training"
            )
            ours, theirs = f"{figures['steps_per_s']:,}", "not measured"
        else:
            continue
        lines.append(f"| {what} | {ours} | {theirs} | {figures.get('ratio', '-')} |")
    for line in (ROOT / "results" / "release_loop.jsonl").read_text().splitlines():
        figures = json.loads(line)
        for size in ("small", "paper"):
            what = f"{figures['env']}, {figures['algo']}, size {size}: the same, beside the release's loop (estimate)"
            ours, theirs = f"{figures[f'steps_per_s_{size}']:,}", f"{figures['release_estimate']:,} (estimate)"
            lines.append(f"| {what} | {ours} | {theirs} | {figures[f'ratio_{size}']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_script(main)
