"""The whole EKG search with the published settings: seconds per step and candidate, beside two references.

    python -m benchmarks.search_step --trained_param RUN/snap_warm.pkl --data_path DATA
    python -m benchmarks.search_step                       random weights, images of DIGITS

Three searches (float32, bfloat16, widths in multiples of 8) take a step each in turn. In between a literal
reference is timed: a masked functional Keras model, a score pass of full width, and for every candidate a
forward pass of all search images and one more, of a single image (the cheapest reading), for counting its
operations. Its figures are medians of single score passes and candidates, multiplied by the steps and
candidates of our own search. The other reference is the original program, as measured elsewhere.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.common import print_table, save, timed
from secateur.runs import UsageError, cli, load_snapshot
from secateur.runs.start import start_tensorflow

if TYPE_CHECKING:
    from benchmarks.literal import Literal

ORIGINAL = {
    "source": "the authors' EKG program, measured once on a 2-core machine of the same kind",
    "score": 1.3,
    "candidate": 0.93,
}
OURS, BF16, ROUNDED = "float32", "bfloat16", "--round_to 8"


@dataclass
class Course:
    """A search under way: its latest state and how long each step took."""

    states: Iterator
    state: object = None
    seconds: list[float] = field(default_factory=list)
    done: bool = False

    def advance(self) -> None:
        """Takes one step, or sets `done` when there is none left."""
        found = []
        elapsed = timed(lambda: found.extend([state] if (state := next(self.states, None)) else []))
        self.done = not found
        if found:
            self.state = found[0]
            self.seconds.append(elapsed)

    @property
    def history(self) -> tuple:
        """The committed networks, without the unpruned one."""
        return self.state.history[1:]

    @property
    def candidates(self) -> int:
        """Networks evaluated so far."""
        return sum(interim.candidates for interim in self.history)


# --- the run ------------------------------------------------------------------------------------------------


def load(args: argparse.Namespace):
    """Network, normalised search images and the split that they come from."""
    import keras

    from secateur import dataloader, nets
    from secateur.dataloader.augment import normalise
    from secateur.recipes.engine.inputs import normalisation_of

    source = load_snapshot(args.trained_param) if args.trained_param else None
    splits = dataloader.load(args.dataset, args.data_path, normalisation_of("auto", source))
    keras.utils.set_random_seed(1)
    model = nets.load_params(None, source) if source else nets.build(args.arch)
    return model, splits, lambda images: normalise(images, splits.facts.mean, splits.facts.std)


def run(args: argparse.Namespace) -> tuple[list[dict], dict, Literal, list[float]]:
    """Searches to the end; returns rows, decisions, the reference, and its ratios to single steps of ours."""
    import keras

    from benchmarks.literal import Literal
    from secateur.pruning.search.ekg import Searcher
    from secateur.pruning.search.settings import SearchSettings

    model, splits, inputs = load(args)
    images, labels = inputs(splits.search.images).numpy(), splits.search.labels
    settings = {OURS: {}, BF16: {"dtype": "bfloat16"}, ROUNDED: {"round_to": 8}}
    searchers = {
        name: Searcher(model, images, labels, SearchSettings(args.target_rate, **more))
        for name, more in settings.items()
    }
    courses = {name: Course(searcher.run()) for name, searcher in searchers.items()}
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    literal = Literal(copy, searchers[OURS], images, labels, SearchSettings().batch_size)
    ratios = _alternate(courses, literal, args.every, args.limit)
    losses = {name: _loss(searchers[OURS], course, splits.search, inputs) for name, course in courses.items()}
    return _rows(searchers, courses, losses), _decisions(courses, losses), literal, ratios


def _alternate(courses: dict[str, Course], literal: Literal, every: int, limit: int | None) -> list[float]:
    ratios, step = [], 0
    while not all(course.done for course in courses.values()) and step != limit:
        for course in courses.values():
            if not course.done:
                course.advance()
        ours = courses[OURS]
        # The first step of ours traces its functions, which belongs to the search but to no ratio of steps.
        if step and step % every == 0 and not ours.done:
            literal.measure(ours.state.plan)
            reference = literal.score[-1] + ours.history[-1].candidates * literal.candidate[-1]
            ratios.append(reference / ours.seconds[-1])
        step += 1
        rate = ours.history[-1].macs / ours.state.history[0].macs
        print(f"\rstep {step}: {rate:.3f} of the operations", end="", flush=True)
    print()
    return ratios


def _loss(searcher, course: Course, split, inputs) -> float:
    """Cross-entropy of the final network on the search images, in float32 whatever the search computed in."""
    from secateur.recipes.training.scoring import score_logits

    logits = searcher.logits_of(course.state.plan, split.images, inputs, 256)
    return score_logits(logits, split.labels).loss


# --- results ------------------------------------------------------------------------------------------------


def _rows(searchers: dict, courses: dict[str, Course], losses: dict[str, float]) -> list[dict]:
    rows = []
    for name, course in courses.items():
        per_step = course.seconds
        per_candidate = [s / i.candidates for s, i in zip(per_step, course.history, strict=True)]
        rows.append(
            {
                "name": name,
                "steps": len(per_step),
                "candidates": course.candidates,
                "seconds": sum(per_step),
                "seconds_per_step": statistics.mean(per_step),
                "median_step": statistics.median(per_step),
                "min_step": min(per_step),
                "max_step": max(per_step),
                "median_per_candidate": statistics.median(per_candidate),
                "rate": course.state.history[-1].macs / searchers[name].dense_macs,
                "final_loss": losses[name],
                "widths": course.state.plan.widths(),
            }
        )
    return rows


def _decisions(courses: dict[str, Course], losses: dict[str, float]) -> dict:
    """How the bfloat16 search decided otherwise than the float32 search."""
    ours, other = courses[OURS].history, courses[BF16].history
    same = [a.plan == b.plan for a, b in zip(ours, other, strict=False)]
    first = same.index(False) + 1 if False in same else None
    moves = [(a.group, a.width) == (b.group, b.width) for a, b in zip(ours, other, strict=False)]
    differing = courses[OURS].state.plan.diff(courses[BF16].state.plan)
    return {
        "first_differing_step": first,
        "differing_moves": moves.count(False) + abs(len(ours) - len(other)),
        "groups_with_other_channels": len(differing),
        "groups_with_other_width": sum(a != b for a, b in differing.values()),
        "final_loss_float32": losses[OURS],
        "final_loss_bfloat16": losses[BF16],
    }


def _references(rows: list[dict], literal: Literal) -> list[dict]:
    """Seconds that each reference would need for the steps and candidates of each of our searches."""
    measured = {name: statistics.median(getattr(literal, name)) for name in ("score", "candidate")}
    references = {"literal, in this run": measured, "original": ORIGINAL}
    return [
        {
            "reference": name,
            "search": row["name"],
            "score": cost["score"],
            "candidate": cost["candidate"],
            "seconds": (seconds := row["steps"] * cost["score"] + row["candidates"] * cost["candidate"]),
            "times_faster": seconds / row["seconds"],
        }
        for name, cost in references.items()
        for row in rows
    ]


def report(
    args: argparse.Namespace, rows: list[dict], decisions: dict, literal: Literal, ratios: list[float]
) -> None:
    """Prints the tables and writes the JSON."""
    columns = ("search", "steps", "candidates", "s whole", "s/step", "s/candidate (median)", "rate", "loss")
    keys = (
        "steps",
        "candidates",
        "seconds",
        "seconds_per_step",
        "median_per_candidate",
        "rate",
        "final_loss",
    )
    print_table("EKG search", columns, [(r["name"], *(f"{r[k]:.4g}" for k in keys)) for r in rows])
    references = _references(rows, literal)
    cells = [
        (
            f"{r['reference']} ÷ {r['search']}",
            *(f"{r[k]:.3g}" for k in ("score", "candidate", "seconds", "times_faster")),
        )
        for r in references
    ]
    print_table("references", ("", "s score pass", "s candidate", "s whole", "times faster"), cells)
    print(
        f"literal ÷ float32, step by step: median {statistics.median(ratios):.2f}, "
        f"{min(ratios):.2f}–{max(ratios):.2f} over {len(ratios)} steps"
    )
    print("bfloat16: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in decisions.items()))
    stepwise = {
        "median": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "steps": len(ratios),
    }
    source = "given snapshot" if args.trained_param else f"{args.arch} with random weights"
    about = {"network": source, "dataset": args.dataset, "complete": args.limit is None, "original": ORIGINAL}
    results = {"searches": rows, "references": references, "literal_over_ours_by_step": stepwise}
    save("search_step", {**about, **results, "bfloat16": decisions})


def main() -> None:
    """argv → table and JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_step", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--trained_param", help="snapshot; the recipe's search starts from RUN/snap_warm.pkl")
    parser.add_argument("--data_path")
    parser.add_argument("--dataset", help="default: CIFAR10 with --trained_param, else DIGITS")
    parser.add_argument("--arch", default="ResNet-56", help="without --trained_param")
    parser.add_argument("--target_rate", type=float, default=0.45)
    parser.add_argument(
        "--every", type=int, default=5, help="steps from one timing of the reference to the next"
    )
    parser.add_argument("--limit", type=int, help="stop after so many steps (a trial, not a result)")
    args = parser.parse_args()
    if args.every < 1 or (args.limit is not None and args.limit <= args.every):
        raise UsageError(f"--limit must exceed --every ≥ 1. Received: limit={args.limit}, every={args.every}")
    args.dataset = args.dataset or ("CIFAR10" if args.trained_param else "DIGITS")
    start_tensorflow()
    report(args, *run(args))


if __name__ == "__main__":
    sys.exit(cli(main))
