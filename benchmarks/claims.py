"""What the papers say beside what came out, for each claim that finished runs can judge. Trains nothing.

    python -m benchmarks.claims

A claim says that one row of a committed table is better than another. It holds, or does not hold, where the
95 % interval of the difference of the two means (Welch, seeds as samples) lies on one side of zero.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache

from scipy.stats import ttest_ind

from benchmarks.common import RESULTS
from secateur.runs import cli, read_json
from secateur.runs.text import table

RECIPES, LOSSES, MOBILE = "recipe_accuracy", "distill_accuracy", "own_model"
SMALL, HAPS = "ResNet-20 from random weights", "ResNet-56, 60 % of the channels kept"
HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided"


@dataclass(frozen=True)
class Claim:
    """Of a paper: `better` reaches more than `worse`, two rows of a table of results.

    Attributes:
        part: of a file that has several tables.
        beside: what `better` adds to, where its row does not say so.
    """

    source: str
    says: str
    better: str
    worse: str
    file: str = RECIPES
    part: str = ""
    beside: str = ""

    def points(self) -> tuple[float, float, float]:
        """The difference of test accuracies in points, and both ends of its interval."""
        better, worse = (
            [100 * value for value in self._row(name)["test_accuracy"]["values"]]
            for name in (self.better, self.worse)
        )
        low, high = ttest_ind(better, worse, equal_var=False).confidence_interval(0.95)
        return sum(better) / len(better) - sum(worse) / len(worse), low, high

    def _row(self, name: str) -> dict:
        found = _result(self.file)
        rows = found["tables"][self.part] if self.part else found["rows"]
        return next(row for row in rows if row["name"] == name)

    def cells(self) -> tuple[str, ...]:
        """A row of the page."""
        mean, low, high = self.points()
        verdict = HOLDS if low > 0 else FAILS if high < 0 else OPEN
        compared = f"{self.beside}{self.better} – {self.worse}"
        points = f"{mean:+.2f} ({low:+.2f} … {high:+.2f})"
        return self.source, self.says, compared, points, verdict, self.file


CLAIMS = (
    Claim("PFEC", "small filters are the ones to remove", "L1, one-cycle", "random, one-cycle"),
    Claim("KESI", "one-cycle retraining is better than a small constant rate", "L1, one-cycle",
          "L1, small rate (PFEC)"),
    Claim("KESI", "snapshots of the rounds teach the last network", "KESI: rounds, ensemble",
          "KESI: rounds, no teacher"),
    Claim("KESI", "rounds are better than one cut", "KESI: rounds, no teacher", "L1, one-cycle"),
    Claim("FPGM", "filters near the geometric median are the ones to remove, not small ones",
          "FPGM's score, one-cycle", "L1, one-cycle"),
    Claim("HAP", "NGGM is better than L1", "NGGM, one-cycle", "L1, one-cycle"),
    Claim("HAP", "the dense network teaches the pruned one (KD)", "NGGM, one-cycle, KD", "NGGM, one-cycle"),
    Claim("HAP", "its attention adds to KD", "NGGM, one-cycle, KD + HAP", "NGGM, one-cycle, KD"),
    Claim("HAP", "KD and its attention beat labels alone", "NGGM + HAP", "NGGM alone", LOSSES, HAPS),
    Claim("AT", "attention adds to KD", "AT", "KD", LOSSES, SMALL, "KD + "),
    Claim("SP", "similarities add to KD", "SP", "KD", LOSSES, SMALL, "KD + "),
    Claim("AFD", "attended features add to KD", "AFD", "KD", LOSSES, SMALL, "KD + "),
    Claim("EKG", "its search is better than L1", "EKG, labels alone", "L1, one-cycle"),
    Claim("EKG", "the memory bank adds to labels, ResNet-20", "EKG, memory bank", "EKG, labels alone"),
    Claim("EKG", "the memory bank adds to labels, MobileNetV2", "EKG, bank and two views",
          "EKG", MOBILE),
    Claim("NetAdapt", "networks that are tried are better than one rule", "NetAdapt", "L1, one-cycle"),
    Claim("AutoCompress", "ADMM before annealing is better than annealing", "AutoCompress", "annealing"),
    Claim("Liu et al. 2019", "the widths matter, not the weights that they keep",
          "random weights in L1's widths", "L1, one-cycle"),
)  # fmt: skip


@cache
def _result(name: str) -> dict:
    return read_json(RESULTS / f"{name}.json")


def main() -> None:
    """The table."""
    titles = ("paper", "says", "compared", "points of test accuracy (95 %)", "here", "table")
    print(table(titles, [claim.cells() for claim in CLAIMS]))


if __name__ == "__main__":
    sys.exit(cli(main))
