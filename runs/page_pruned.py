"""The report of `python -m pruning` as one page: costs before and after, widths, what stayed, parity."""

from __future__ import annotations

from runs.html import page
from runs.markup import Markup, element
from runs.page_parts import details, figure, legend, note, section, table
from runs.pictures import WIDTHS_KEY, widths_picture
from runs.wording import cost, percent, ratio

COSTS = (
    ("macs", "MACs", "{:,}"),
    ("params", "parameters", "{:,}"),
    ("bytes", "bytes of weights", "{:,}"),
    ("ms", "milliseconds", "{:.3f}"),
)


def render_pruned(report: dict) -> str:
    """The page for what `recipes.prune.write_report` collects; every text in it is escaped."""
    (wanted, value), *_ = report["target"].items()
    title = f"{report['model']} · {wanted} {value:g}"
    header = element(
        "header",
        element("p", "Secateur · report of a pruned model", class_="brand"),
        element("h1", title),
        element("p", _sentence(report), class_="summary"),
    )
    main = element("main", header, _costs(report), _widths(report), _whole(report), _parity(report))
    return page(title, main, _footer(report))


def _sentence(report: dict) -> str:
    before, after = report["rows"]
    known = [(key, title) for key, title, _ in COSTS if before[key]]
    parts = [f"{ratio(after, before, key)} of the {title}" for key, title in known]
    return f"Keeps {', '.join(parts)}."


def _costs(report: dict) -> Markup:
    before, after = report["rows"]
    rows = [
        (title, cost(before[key], style), cost(after[key], style), ratio(after, before, key))
        for key, title, style in COSTS
    ]
    if "holdout_accuracy" in before:
        rows.append(
            ("accuracy on images held out", *(percent(r["holdout_accuracy"]) for r in (before, after)), "")
        )
    words = f"Milliseconds are of one call ({report['setup']}), the fastest of many."
    if before["ms"] is None:
        words = f"Milliseconds could not be measured ({report['setup']})."
    return section("Before and after", table(("", "before", "after", "left"), rows), note(words))


def _widths(report: dict) -> Markup:
    widths = report["widths"]
    before, after = (sum(row[key] for row in widths) for key in ("before", "after"))
    caption = (
        f"{before:,} → {after:,} channels in {len(widths)} groups. A group is the layers that must lose the "
        f"same channels together, named after the first. Criterion: {report['criterion']}."
    )
    return section("Widths", figure(widths_picture(widths), caption, legend(*WIDTHS_KEY)))


def _whole(report: dict) -> Markup:
    rows = [(", ".join(r["layers"]), r["channels"], r["reason"]) for r in report["untouched"]]
    if not rows:
        return Markup()
    title = f"{len(rows)} {'sets' if len(rows) > 1 else 'set'} of channels left whole"
    return section("Left whole", details(title, ("layers", "channels", "because"), rows))


def _parity(report: dict) -> Markup:
    found = report["parities"]
    if not found:
        return section("Parity", note("A dry run: nothing was written or compared."))
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
