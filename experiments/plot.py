"""Draw the learning curves of several runs: `python experiments/plot.py RUN... [--out FILE]`.

Runs of one task share a panel, runs that differ only in their seeds a line.
"""

from pathlib import Path

from runtime import Parser, one_sentence_errors, run_script, set_environment


def main(arguments: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    set_environment()
    from mamba_jax.curves import draw, read_curve
    from mamba_jax.run_folder import RunFolder

    with one_sentence_errors("plot.py", {ValueError: 2, OSError: 2}):
        options = parser().parse_args(arguments)
        out = options.out if options.out.suffix else options.out.with_suffix(".png")
        draw([read_curve(RunFolder(path)) for path in options.runs], out)
    print(f"Wrote {out}.")
    return 0


def parser() -> Parser:
    """The command line."""
    found = Parser(prog="plot.py", description="Draw the learning curves of runs.")
    found.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs")
    found.add_argument("--out", type=Path, default=Path("learning_curves.png"), help="default: learning_curves.png")
    return found


if __name__ == "__main__":
    run_script(main)
