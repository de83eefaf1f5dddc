"""What every script sets up before JAX starts. The library itself changes no settings."""

import argparse
import contextlib
import ctypes.util
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

FEW_CPUS = 8


class UsageError(ValueError):
    """A command line that cannot be run; the message is one sentence."""


class Parser(argparse.ArgumentParser):
    """argparse that raises UsageError and takes no abbreviations."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message.rstrip(".") + ".")


def run_script(main: Callable[[list[str]], int]) -> NoReturn:
    """Runs a script's `main` on the command line and ends the process with its exit code.

    Ctrl-C ends it at once and without a traceback, but where training asks for it to be told.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise SystemExit(main(sys.argv[1:]))


def set_environment(arguments: Sequence[str] = ()) -> None:
    """Environment variables that must be set before JAX and MuJoCo are imported; those that are set already stay.

    Makes the packages of this checkout importable too where they are not installed.
    """
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    if usable_cpus() < FEW_CPUS and uses_mjx(arguments):
        # With as few threads as CPUs, programs of MJX's humanoid wait for themselves in XLA's thread pool for ever;
        # everything else is faster with no more threads than CPUs.
        os.environ.setdefault("NPROC", str(FEW_CPUS))
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl" if ctypes.util.find_library("EGL") else "disabled")


def usable_cpus() -> int:
    """CPUs that this process may run on, which a batch system or `taskset` can make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def uses_mjx(arguments: Sequence[str]) -> bool:
    """Whether a command line, or the run folder that it names, asks for an environment on MJX."""
    folders = (Path(word) / "config.json" for word in arguments)
    words = [*arguments, *(file.read_text() for file in folders if file.is_file())]
    return any("humanoid" in word or "mjx" in word.replace("mujoco-mjx", "") for word in words)


def configure_jax(*, cpu_only: bool = False) -> None:
    """Keeps compiled programs between starts, apart for every version of jaxlib, and quietens the libraries.

    cpu_only: leave accelerators, whose memory the first process takes, to the processes that this one starts.
    """
    import jax
    import jaxlib

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "mamba_jax" / f"jaxlib-{jaxlib.__version__}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if cpu_only:
        jax.config.update("jax_platforms", "cpu")
    for name in ("absl", "asyncio"):  # what matters of theirs is raised too
        logging.getLogger(name).setLevel(logging.CRITICAL)


def join_processes() -> None:
    """Makes this process one of several whose devices JAX uses together; raises UsageError where that fails.

    On TPU pods and under Slurm and Open MPI JAX finds the others; elsewhere three environment variables say it all.
    """
    import jax

    found = (os.environ.get(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
    try:
        count, index = (int(word) if word else None for word in found)
        jax.distributed.initialize(num_processes=count, process_id=index)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UsageError(
            f"--distributed finds no other processes ({reason}): start it on a TPU pod, by Slurm or Open MPI, or set "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID."
        ) from None


@contextlib.contextmanager
def one_sentence_errors(script: str, kinds: dict[type[Exception], int]) -> Iterator[None]:
    """Ends the process on these exceptions with their message on standard error and this exit code."""
    try:
        yield
    except tuple(kinds) as error:
        print(f"{script}: {error}", file=sys.stderr)
        code = next(code for kind, code in kinds.items() if isinstance(error, kind))
        raise SystemExit(code) from None
