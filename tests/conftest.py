"""Shared fixtures. The environment variables must be set before JAX starts."""

import os
import tempfile
from importlib import metadata
from pathlib import Path

os.environ.setdefault("NPROC", "8")  # XLA's CPU client hangs in MJX humanoid programs with two threads
# Tests compile far longer than they compute: unoptimised, with the older fusions, it takes half the time.
flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
flags += " --xla_gpu_exclude_nondeterministic_ops=true"  # resuming is compared bit for bit
if metadata.version("jaxlib").startswith("0.10."):  # XLA ends a process for a flag that it does not know
    flags += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", flags)
os.environ.setdefault("MUJOCO_GL", "disabled")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share an accelerator

import jax
import numpy as np
import pytest

# Tests compile the same programs again and again; all their processes share them while they run.
COMPILED = tempfile.TemporaryDirectory()
os.environ.setdefault("MAMBA_JAX_COMPILED_TESTS", COMPILED.name)  # processes of pytest-xdist get that of their parent
jax.config.update("jax_compilation_cache_dir", os.environ["MAMBA_JAX_COMPILED_TESTS"])
jax.config.update("jax_default_matmul_precision", "highest")  # accelerators round products of float32 otherwise


def pytest_addoption(parser):
    parser.addoption(
        "--golden",
        default=str(Path(__file__).parent / "golden"),
        help="folder with golden arrays: envs/, model/ and baselines/, or the .npz files of one of them",
    )


def pytest_configure(config):
    """Refuses a folder without golden arrays, on which every test of them would be skipped."""
    folder = Path(config.getoption("--golden"))
    if not any(folder.rglob("*.npz")):
        raise pytest.UsageError(f"--golden {folder} holds no .npz file: choose a folder of golden arrays.")


def golden_paths(config, part: str, pattern: str) -> list[Path]:
    """The golden files of one part ("envs", "model", "baselines") that match a glob, sorted by name."""
    root = Path(config.getoption("--golden"))
    folder = root / part if (root / part).is_dir() else root
    return sorted(folder.glob(pattern))


def pytest_generate_tests(metafunc):
    """Run a test marked `golden_files(part, pattern)` once for every such file, under the fixture `golden_file`."""
    marker = metafunc.definition.get_closest_marker("golden_files")
    if marker is not None and "golden_file" in metafunc.fixturenames:
        paths = golden_paths(metafunc.config, *marker.args)
        metafunc.parametrize("golden_file", paths, ids=[path.stem for path in paths])


@pytest.fixture
def golden(golden_file) -> dict[str, np.ndarray]:
    """All arrays of one golden file by name."""
    with np.load(golden_file, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture
def x64():
    """Run the test in float64."""
    with jax.enable_x64(True):
        yield
