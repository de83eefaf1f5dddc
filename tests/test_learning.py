"""Learning runs of many minutes: `python -m pytest -m slow`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "experiments" / "run.py"


@pytest.mark.slow
def test_mamba_learns_half_circle_at_size_small(tmp_path):
    """One seed, 38,400 updates of 0.1 to 0.2 s on a CPU core; a random policy gets about 1."""
    folder = tmp_path / "run"
    command = [sys.executable, str(SCRIPT), "--env", "halfcircle", "--size", "small", "--logdir", str(folder)]
    subprocess.run(command, env=os.environ | {"XLA_FLAGS": ""}, check=True)
    assert json.loads((folder / "eval.json").read_text())["return_mean"] > 200
