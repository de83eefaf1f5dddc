"""Draw the learning curves of several runs: `python experiments/plot.py RUN... [--out FILE]`.

Runs of one task share a panel, runs that differ only in their seeds a line. What is no run, or has no evaluation yet,
is left out, so that `runs/*` may hold other things.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import Parser, one_sentence_errors, run_script, set_environment

if TYPE_CHECKING:
    from mamba_jax.curves import Curve


def main(arguments: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    set_environment()
    from mamba_jax.curves import draw

    with one_sentence_errors("plot.py", {ValueError: 2, OSError: 2}):
        options = parser().parse_args(arguments)
        out = options.out if options.out.suffix else options.out.with_suffix(".png")
        draw(read_curves(options.runs), out)
    print(f"Wrote {out}.")
    return 0


def read_curves(paths: list[Path]) -> list[Curve]:
    """The curves of those that have one; says which have none. Raises ValueError if that is all of them."""
    from mamba_jax.curves import read_curve
    from mamba_jax.run_folder import RunFolder

    curves, reasons = [], []
    for path in paths:
        try:
            curves.append(read_curve(RunFolder(path)))
        except ValueError as error:
            reasons.append(error)
    if not curves:
        raise reasons[0]
    for reason in reasons:
        print(f"plot.py: left out: {reason}", file=sys.stderr)
    return curves


def parser() -> Parser:
    """The command line."""
    found = Parser(prog="plot.py", description="Draw the learning curves of runs.")
    found.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs")
    found.add_argument("--out", type=Path, default=Path("learning_curves.png"), help="default: learning_curves.png")
    return found


if __name__ == "__main__":
    run_script(main)
