"""The direction of imports, read from the source: ops <- nn <- world_model <- actor_critic <- algos; envs apart."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

LAYERS = {"ops": 0, "nn": 1, "world_model": 2, "actor_critic": 3, "belief": 2, "ppo": 2, "bonus": 3, "algos": 4}
"""A module may import modules of lower layers, and of its own folder."""


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(module: str) -> tuple[str, int] | None:
    """Part of the library and its layer, for a module name such as mamba_jax.nn.rssm."""
    parts = module.split(".")
    return (parts[1], LAYERS[parts[1]]) if parts[0] == "mamba_jax" and len(parts) > 1 and parts[1] in LAYERS else None


def test_library_and_environments_do_not_see_each_other():
    for package, other in (("mamba_jax", "envs"), ("envs", "mamba_jax")):
        for path in (ROOT / package).rglob("*.py"):
            for name in imports(path):
                assert name.split(".")[0] not in (other, "experiments", "tests"), f"{path} imports {name}"


def test_layers_import_downwards_only():
    for path in (ROOT / "mamba_jax").rglob("*.py"):
        own = layer(".".join(path.relative_to(ROOT).with_suffix("").parts))
        if own is None:
            continue
        for name in imports(path):
            other = layer(name)
            if other and other[0] != own[0]:
                assert other[1] < own[1], f"{path} imports {name}"


def test_importing_the_packages_changes_no_setting():
    code = (
        "import os, gymnax, jax; before = dict(os.environ), dict(jax.config.values)\n"  # gymnax sets one for pygame
        "import mamba_jax, envs\n"
        "assert before == (dict(os.environ), dict(jax.config.values))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)
