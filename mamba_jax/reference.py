"""Results to compare with: the paper's table and how much return there is to get.

Results: Rimon et al., "MAMBA: an Effective World Model Approach for Meta-Reinforcement Learning", ICLR 2024
(arXiv 2403.09859), table of mean returns of the whole meta-episode and their deviation over seeds. A result there is
that of the policy that evaluated best in training, in 1,000 fresh tasks.

Ceilings: the return of the best policy that does not know the task, computed for this project under the same protocols:
"exact" by dynamic programming over beliefs (rooms), "achieved" by the best explicit search policy found, which is a
lower bound of the optimum.
"""

from typing import NamedTuple


class Result(NamedTuple):
    """A published result. mean, std: of the return over seeds. steps: true environment steps of a seed."""

    mean: float
    std: float
    steps: int


class Reference(NamedTuple):
    """What is known about an environment.

    paper: results by algorithm. ceiling: return without knowing the task, None where unknown. kind: "exact" or
    "achieved". task_known: return of a policy that is told the task, None where unknown.
    """

    paper: dict[str, Result]
    ceiling: float | None = None
    kind: str = ""
    task_known: float | None = None


ALGORITHMS = ("rl2", "varibad", "hyperx", "dreamer-vanilla", "dreamer-tune", "mamba")
COUNTED_TWICE = ("dreamer-vanilla", "dreamer-tune", "mamba")
"""Algorithms of whose steps the paper counts every one twice."""
ROOMS_MILLIONS = (100, 100, 100, 5, 6, 6)
REACHER_MILLIONS = (150, 150, 150, 10, 10, 10)


def paper_row(millions: tuple[int, ...], *cells: tuple[float, float] | None) -> dict[str, Result]:
    """A row of the table, in the order of `ALGORITHMS`, steps as printed; None where the paper has no result."""
    found = {}
    for name, million, cell in zip(ALGORITHMS, millions, cells, strict=True):
        if cell is not None:
            found[name] = Result(*cell, million * 1_000_000 // (2 if name in COUNTED_TWICE else 1))
    return found


# (environment, sub-tasks) -> what is known
REFERENCES: dict[tuple[str, int | None], Reference] = {
    ("halfcircle", None): Reference(
        paper_row(
            (10, 10, 15, 2, 2, 2), (239.4, 3.1), (218.0, 26.0), (204.0, 19.9), (241.1, 9.9), (239.7, 3.1), (242.2, 7.9)
        ),
        269.4,
        "achieved",
        280.15,
    ),
    ("rooms", 3): Reference(
        paper_row(ROOMS_MILLIONS, (108.0, 31.7), (158.7, 2.6), (111.8, 20.2), (137.5, 6.2), (142.6, 4.1), (156.2, 1.7)),
        160.4,
        "exact",
        167.0,
    ),
    ("rooms", 4): Reference(
        paper_row(ROOMS_MILLIONS, (85.1, 19.0), (88.1, 39.2), (14.1, 30.0), (115.0, 6.7), (119.8, 3.1), (123.7, 1.4)),
        142.8,
        "exact",
        151.6,
    ),
    ("rooms", 5): Reference(
        paper_row(ROOMS_MILLIONS, (72.4, 36.8), (0.9, 2.5), (15.8, 6.4), (96.5, 2.5), (93.9, 1.3), (113.1, 5.7)),
        125.2,
        "exact",
        136.2,
    ),
    ("rooms", 6): Reference(
        paper_row(ROOMS_MILLIONS, (64.9, 15.9), (-11.0, 9.9), (-15.7, 7.7), (69.5, 6.3), (71.0, 6.3), (94.5, 1.2)),
        107.6,
        "exact",
        120.8,
    ),
    ("rooms", 7): Reference(
        paper_row(ROOMS_MILLIONS, (42.9, 22.9), None, None, (50.2, 4.4), (50.2, 4.4), (73.2, 2.9)), 90.0, "exact", 105.4
    ),
    ("rooms", 8): Reference(
        paper_row(ROOMS_MILLIONS, (29.0, 17.7), None, None, (29.1, 8.3), (29.1, 8.3), (55.6, 3.0)), 72.4, "exact", 90.0
    ),
    ("reacher", 1): Reference(
        paper_row(REACHER_MILLIONS, None, (473.7, 27.5), (555.9, 36.0), (552.0, 27.8), (503.4, 69.0), (655.5, 12.3)),
        793.2,
        "achieved",
        824.3,
    ),
    ("reacher", 2): Reference(
        paper_row(REACHER_MILLIONS, None, (46.6, 3.1), (30.0, 48.5), (247.4, 80.5), (217.6, 64.3), (285.8, 89.6)),
        712.8,
        "achieved",
        778.6,
    ),
    ("reacher", 3): Reference(
        paper_row(REACHER_MILLIONS, None, (0.2, 0.2), (0.5, 0.2), (183.6, 100.0), (76.9, 80.5), (325.0, 47.0)),
        643.3,
        "achieved",
        728.8,
    ),
    ("reacher", 4): Reference(
        paper_row(REACHER_MILLIONS, None, (0.0, 0.0), (-0.5, 1.1), (0.4, 0.0), (0.1, 0.2), (77.7, 61.1)),
        565.6,
        "achieved",
        683.5,
    ),
    ("escape-room", None): Reference(
        paper_row((20, 20, 20, 4, 4, 4), (79.9, 4.4), (70.7, 4.3), (60.9, 6.5), (68.2, 2.4), (73.2, 7.8), (73.9, 3.1)),
        92.4,
        "achieved",
        103.15,
    ),
    ("point-wind", None): Reference(
        paper_row((20, 20, 20, 2, 2, 2), None, (114.5, 44.7), (177.0, 118.5), (226.1, 3.5), (224.5, 4.4), (224.1, 5.2)),
        253.9,
        "achieved",
        266.6,
    ),
    ("humanoid-dir", None): Reference(
        paper_row(
            (100, 100, 100, 30, 30, 30), None, (1369.3, 75.3), None, (2068.3, 156.7), (2096.3, 79.8), (2405.9, 119.0)
        )
    ),
}


# sub-episodes and their length to which the table applies
PROTOCOLS = {
    "halfcircle": (3, 100),
    "point-wind": (3, 100),
    "escape-room": (2, 60),
    "rooms": (2, 100),
    "reacher": (3, 300),
    "humanoid-dir": (2, 200),
}


def reference(env: str, subtasks: int | None, sub_episodes: int, length: int) -> Reference:
    """What is known about an environment under this protocol; nothing where the table does not apply."""
    if PROTOCOLS.get(env) != (sub_episodes, length):
        return Reference({})
    return REFERENCES.get((env, subtasks), Reference({}))
