"""The report of `python -m pruning` as one page: costs before and after, widths, what stayed, parity."""

from __future__ import annotations

from secateur.runs.html import page
from secateur.runs.markup import Markup, element
from secateur.runs.page_parts import details, figure, legend, note, section, table
from secateur.runs.pictures import WIDTHS_KEY, widths_picture
from secateur.runs.sensitivity_picture import sensitivity_picture
from secateur.runs.wording import number, percent, ratio

COSTS = (
    ("macs", "MACs", ","),
    ("params", "parameters", ","),
    ("bytes", "bytes of weights", ","),
    ("ms", "milliseconds", ".3f"),
)


def costs_of(convention: str = "mac") -> tuple[tuple[str, str, str], ...]:
    """`COSTS`, operations by the name of what is counted as one."""
    counted = "MACs" if convention == "mac" else f"operations ({convention})"
    return tuple((key, counted if key == "macs" else title, style) for key, title, style in COSTS)


def render_pruned(report: dict) -> str:
    """The page for what `commands.prune_report.write_report` collects; every text in it is escaped."""
    (wanted, value), *_ = report["target"].items()
    title = f"{report['model']} · {wanted} {value if isinstance(value, str) else f'{value:g}'}"
    header = element(
        "header",
        element("p", "Secateur · report of a pruned model", class_="brand"),
        element("h1", title),
        element("p", _sentence(report), class_="summary"),
    )
    sections = (_costs, _widths, _sensitivity, _whole, _parity)
    return page(title, element("main", header, *(part(report) for part in sections)), _footer(report))


def _sentence(report: dict) -> str:
    before, after = report["rows"]
    known = [(key, title) for key, title, _ in costs_of(report["convention"]) if before[key]]
    parts = [f"{ratio(after, before, key)} of the {title}" for key, title in known]
    return f"Keeps {', '.join(parts)}."


def _costs(report: dict) -> Markup:
    before, after = report["rows"]
    rows = [
        (title, number(before[key], style), number(after[key], style), ratio(after, before, key))
        for key, title, style in costs_of(report["convention"])
    ]
    if "holdout_accuracy" in before:
        rows.append(
            ("accuracy on images held out", *(percent(r["holdout_accuracy"]) for r in (before, after)), "")
        )
    words = f"Milliseconds are of one call ({report['setup']}), the fastest of many."
    if before["ms"] is None:
        words = f"Milliseconds could not be measured ({report['setup']})."
    if before["macs"] is None:
        words = "Operations and milliseconds depend on the size of the input, which this model leaves open."
    return section("Before and after", table(("", "before", "after", "left"), rows), note(words))


def _widths(report: dict) -> Markup:
    widths = report["widths"]
    before, after = (sum(row[key] for row in widths) for key in ("before", "after"))
    caption = (
        f"{before:,} → {after:,} channels in {len(widths)} groups. A group is the layers that must lose the "
        f"same channels together, named after the first."
    )
    if "plan" not in report["target"]:
        caption += f" Criterion: {report['criterion']}."
    return section("Widths", figure(widths_picture(widths), caption, legend(*WIDTHS_KEY)))


def _sensitivity(report: dict) -> Markup:
    found = report["sensitivity"]
    if not found:
        return Markup()
    caption = (
        f"Accuracy on {found['images']:,} training images when one group keeps that share of its channels "
        f"and all others are whole; {percent(found['whole'])} with all channels. Those that go "
        f"are chosen by {report['criterion']}."
    )
    titles = ("group", *(f"{100 * ratio:g} % kept" for ratio in found["ratios"]))
    rows = [(name, *map(percent, curve)) for name, curve in found["curves"].items()]
    numbers = details(f"All {len(rows)} curves", titles, rows)
    return section("Sensitivity", figure(sensitivity_picture(found), caption), numbers)


def _whole(report: dict) -> Markup:
    rows = [(", ".join(r["layers"]), r["channels"], r["reason"]) for r in report["untouched"]]
    if not rows:
        return Markup()
    title = f"{len(rows)} {'sets' if len(rows) > 1 else 'set'} of channels left whole"
    return section("Left whole", details(title, ("layers", "channels", "because"), rows))


def _parity(report: dict) -> Markup:
    found = report["parities"]
    if not found:
        return section("Parity", note("A dry run: no model was written or compared."))
    rows = [(name, f"{p['absolute']:.1e}", f"{p['relative']:.1e}") for name, p in found.items()]
    titles = ("compared with the compact model", "largest difference", "of an output's largest number")
    return section("Parity", table(titles, rows))


def _footer(report: dict) -> Markup:
    facts = {**report["machine"], "date": report["date"]}
    texts = {k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in facts.items()}
    return element(
        "footer",
        element("h2", "How to get these numbers"),
        element("pre", element("code", report["command"])),
        element("dl", *(element("div", element("dt", k), element("dd", v)) for k, v in texts.items())),
    )
