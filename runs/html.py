"""report.json as one page that stands alone: tables and pictures, no script, nothing from a network."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence

from runs.pictures import (
    Markup,
    cost_picture,
    duration,
    element,
    search_picture,
    seconds_picture,
    si,
    training_picture,
    widths_picture,
)

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
COLUMNS = (
    ("params", "parameters", "{:,}"),
    ("macs", "MACs", "{:,}"),
    ("flops_ekg", "operations, EKG’s count", "{:,}"),
    ("file_bytes", "LiteRT file, bytes", "{:,}"),
    ("ms_litert", "ms per batch, LiteRT", "{:.1f}"),
    ("ms_frozen", "ms per batch, TensorFlow", "{:.1f}"),
    ("holdout_accuracy", "hold-out accuracy", "{:.2f} %"),
    ("test_accuracy", "test accuracy", "{:.2f} %"),
)
STAGES = (
    ("holdout_batch_statistics", "slimmed, statistics of each batch", "as the search evaluates"),
    (
        "holdout_stale_averages",
        "slimmed, averages of the wide network",
        "slicing alone, nothing re-estimated",
    ),
    ("holdout_reestimated", "slimmed, averages re-estimated", "where fine-tuning starts"),
)
PHASES = {
    "baseline": "Baseline training",
    "warm-up": "Warm-up before the search",
    "fine-tune": "Fine-tuning of the slimmed network",
}


def write_html(report: dict) -> str:
    """The page for the dict that report.json holds; every text in it is escaped.

    Parts that a run did not have (search, bank, stages, epochs, seconds) are left out.
    """
    config = report.get("config") or {}
    subject = f"{config.get('arch', 'network')} on {config.get('dataset', 'data')}"
    title = f"{subject} · {report.get('system', 'pruned')}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", f"{title} · Secateur"),
        element("style", Markup(CSS)),
    )
    sections = (_table_of_rows, _widths, _search, _stages, _training, _costs, _seconds)
    body = [_header(report, title), *(section(report) for section in sections)]
    page = element("html", head, element("body", element("main", *body), _footer(report)), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def summary(report: dict) -> str:
    """First network → last network in one sentence."""
    rows = report.get("rows") or []
    if not rows:
        return "Nothing was measured."
    first, last = rows[0], rows[-1]
    parts = [
        f"{first['params']:,} → {last['params']:,} parameters ({_ratio(last, first, 'params')})",
        f"{si(first['macs'])} → {si(last['macs'])} MACs ({_ratio(last, first, 'macs')})",
    ]
    if None not in (first.get("ms_litert"), last.get("ms_litert")):
        times = f"{first['ms_litert']:.1f} → {last['ms_litert']:.1f} ms per batch of {last.get('batch')}"
        parts.append(f"{times} on LiteRT ({_ratio(last, first, 'ms_litert')})")
    parts.append(f"test accuracy {_accuracy(first)} → {_accuracy(last)} %")
    tail = "" if last["name"] == "fine-tuned" else f" ({last['name']}; not fine-tuned)"
    sentence = f"{', '.join(parts)}{tail}."
    return sentence.replace(" %", "\u00a0%")  # no line may begin with the sign


# --- sections -----------------------------------------------------------------------------------------------


def _header(report: dict, title: str) -> Markup:
    label = report.get("setting")
    return element(
        "header",
        element("p", "Secateur · report of a run", class_="brand"),
        element("h1", title),
        element("p", label, class_="setting") if label else "",
        element("p", summary(report), class_="summary"),
    )


def _table_of_rows(report: dict) -> Markup:
    rows = report.get("rows") or []
    if not rows:
        return Markup()
    columns = [c for c in COLUMNS if any(c[0] in row for row in rows)]
    titles = element("tr", *(element("th", t, scope="col") for t in ("network", *(c[1] for c in columns))))
    table = element(
        "table",
        element("caption", "In grey: what is left of the first row, or the difference in points"),
        element("thead", titles),
        element("tbody", *(_line(row, rows[0], columns) for row in rows)),
    )
    notes = map(_note, _caveats(report))
    return _section("Before and after", element("div", table, class_="scroll"), *notes)


def _line(row: dict, first: dict, columns: Sequence[tuple[str, str, str]]) -> Markup:
    cells = (_cell(row, first, key, style) for key, _, style in columns)
    return element("tr", element("th", row["name"], scope="row"), *cells)


def _cell(row: dict, first: dict, key: str, style: str) -> Markup:
    value, before = row.get(key), first.get(key)
    if value is None:
        return element("td", "–")
    accuracy = key.endswith("accuracy")
    small = ""
    if row is not first and before is not None:
        change = f"{100 * (value - before):+.2f}".replace("-", "−") if accuracy else _ratio(row, first, key)
        small = element("small", change)
    return element("td", style.format(100 * value if accuracy else value), small)


def _caveats(report: dict) -> list[str]:
    """What a reader must know to read the table rightly."""
    rows, machine = report["rows"], report.get("machine") or {}
    devices = " + ".join(machine.get("devices") or ["CPU"])
    where = f"{machine.get('processor', 'an unknown processor')} ({devices})"
    notes = [f"Times are medians for a batch of {rows[0].get('batch')} float32 images on {where}."]
    notes += _timing_noise(rows)
    if report.get("bn") == "batch":
        notes.append(
            "Accuracies use the BN statistics of each evaluated batch, as EKG’s program does: they depend on "
            "how the images are batched."
        )
    reads = report.get("test_reads")
    if reads is not None:
        notes.append(
            f"The test images were read {'once, for this table' if reads == 1 else f'{reads} times'}."
        )
    return notes


def _timing_noise(rows: Sequence[dict]) -> list[str]:
    """Where twins were timed apart, their difference is the error of the measurement."""
    twins = [
        (a, b) for a, b in itertools.pairwise(rows) if (a["params"], a["macs"]) == (b["params"], b["macs"])
    ]
    return [
        f"{a['name']} and {b['name']} are the same architecture, yet {title} took {a[key]:.1f} and "
        f"{b[key]:.1f} ms: take no difference of that size for a gain or a loss."
        for a, b in twins
        for key, title in (("ms_litert", "LiteRT"), ("ms_frozen", "TensorFlow"))
        if None not in (a.get(key), b.get(key)) and max(a[key], b[key]) > 1.1 * min(a[key], b[key])
    ]


def _widths(report: dict) -> Markup:
    widths = report.get("widths") or []
    if not widths:
        return Markup()
    before, after = (sum(w[key] for w in widths) for key in ("before", "after"))
    cut = sum(w["after"] < w["before"] for w in widths)
    caption = (
        f"{before:,} → {after:,} channels in {len(widths)} groups, {cut} of them cut. A group is the layers "
        "that must lose the same channels together, named after the first. Each stage has its own scale."
    )
    legend = _legend(("after", "stays"), ("before", "removed"), ("whole", "group left whole"))
    return _section("Widths", _figure(widths_picture(widths), caption, legend))


def _search(report: dict) -> Markup:
    search = report.get("search") or []
    if len(search) < 2:
        return Markup()
    teachers = [t for t in (report.get("bank") or {}).get("teachers", []) if t < len(search)]
    target = (report.get("config") or {}).get("search_target_rate")
    picture = search_picture(search, report.get("widths") or [], target, teachers)
    caption = (
        f"{len(search) - 1} cuts, chosen from {sum(r['candidates'] for r in search):,} candidates. A block "
        "is as wide as the operations that its cut removed (EKG’s count). Loss and accuracy are of "
        "the images that the search chose by, with the BN statistics of each batch: they flatter the network."
    )
    rings = " Ringed: the interim networks that teach in the fine-tuning." if teachers else ""
    titles = ("step", "group", "width", "operations", "left", "loss", "score", "accuracy", "candidates")
    table = _details(f"All {len(search) - 1} cuts", titles, map(_search_line, itertools.count(), search))
    return _section("Search", _figure(picture, caption + rings), table)


def _search_line(step: int, row: dict) -> tuple:
    return (
        step,
        row["group"] or "none yet",
        row["width"] or "–",
        f"{row['macs']:,}",
        _percent(row["rate"]),
        _number(row["loss"]),
        _number(row["score"]),
        _percent(row["accuracy"]),
        row["candidates"],
    )


def _stages(report: dict) -> Markup:
    facts = report.get("stages") or {}
    rows = [(name, _percent(facts[key]), why) for key, name, why in STAGES if facts.get(key) is not None]
    if not rows:
        return Markup()
    table = _table(("network", "hold-out accuracy", "what it is"), rows)
    text = (
        "Slicing changes what flows through the network, so the BN averages kept from the wide network are "
        "stale; they are estimated again from the warm-up images."
    )
    return _section(
        "From search to slimmed network", element("div", table, class_="scroll stages"), _note(text)
    )


def _training(report: dict) -> Markup:
    epochs = report.get("epochs") or []
    phases = {e["phase"]: [r for r in epochs if r["phase"] == e["phase"]] for e in epochs}
    if not phases:
        return Markup()
    legend = _legend(("one", "hold-out"), ("two", "training"), ("three", "learning rate"))
    note = (
        "The training loss is what its phase minimises (the warm-up doubles it, the fine-tuning may add "
        "teachers), a mean over the epoch while the weights move; the hold-out loss is the cross-entropy "
        "after the epoch, with moving averages. Compare losses within a phase only."
    )
    lines = [(r["phase"], r["step"], *(text for _, text in _values(r))) for r in epochs]
    titles = ("phase", "epoch", *(name for name, _ in _values({})))
    parts = [_phase(name, rows) for name, rows in phases.items()]
    return _section("Training", legend, *parts, _note(note), _details("All epochs", titles, lines))


def _phase(name: str, rows: Sequence[dict]) -> Markup:
    title = PHASES.get(name, name)
    if len(rows) == 1:  # one point makes no curve
        values = ", ".join(f"{what} {text}" for what, text in _values(rows[0]))
        return element("p", element("b", f"{title}, 1 epoch: "), values)
    caption = element("figcaption", element("b", f"{title}, {len(rows)} epochs"))
    return element("figure", caption, element("div", training_picture(name, rows), class_="pictures"))


def _values(row: dict) -> list[tuple[str, str]]:
    return [
        ("training loss", _number(row.get("loss"))),
        ("training accuracy", _percent(row.get("accuracy"))),
        ("hold-out loss", _number(row.get("holdout_loss"))),
        ("hold-out accuracy", _percent(row.get("holdout_accuracy"))),
        ("learning rate", _number(row.get("learning_rate"), ".3g")),
    ]


def _costs(report: dict) -> Markup:
    picture = cost_picture(report.get("rows") or [])
    caption = "Up is better, left is cheaper. Costs start at zero, accuracy does not."
    return _section("Accuracy and cost", _figure(picture, caption)) if picture else Markup()


def _seconds(report: dict) -> Markup:
    seconds = {k: v for k, v in (report.get("seconds") or {}).items() if v is not None}
    if not seconds:
        return Markup()
    total = duration(sum(seconds.values()))
    caption = (
        f"Wall time of each step, {total} in all. A step that was interrupted counts from its last start."
    )
    return _section("Time", _figure(seconds_picture(seconds), caption))


def _footer(report: dict) -> Markup:
    facts = {**(report.get("machine") or {}), "date": report.get("date")}
    texts = {
        k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in facts.items() if v is not None
    }
    config = json.dumps(report.get("config") or {}, indent=2, ensure_ascii=False)
    command = report.get("command")
    return element(
        "footer",
        element("h2", "How to get these numbers"),
        element("pre", element("code", command)) if command else "",
        element("dl", *(element("div", element("dt", k), element("dd", v)) for k, v in texts.items())),
        element("details", element("summary", "Configuration"), element("pre", element("code", config))),
    )


# --- parts --------------------------------------------------------------------------------------------------


def _section(title: str, *children: object) -> Markup:
    return element("section", element("h2", title), *children)


def _figure(picture: Markup, caption: str, *before: Markup) -> Markup:
    return element(
        "figure", *before, element("div", picture, class_="pictures"), element("figcaption", caption)
    )


def _legend(*entries: tuple[str, str]) -> Markup:
    items = (
        element("li", element("i", class_=f"key {class_}", aria_hidden="true"), text)
        for class_, text in entries
    )
    return element("ul", *items, class_="legend")


def _note(text: str) -> Markup:
    return element("p", text, class_="note")


def _table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    head = element("tr", *(element("th", title, scope="col") for title in titles))
    lines = (element("tr", *(element("td", value) for value in row)) for row in rows)
    return element("table", element("thead", head), element("tbody", *lines))


def _details(title: str, titles: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    return element(
        "details", element("summary", title), element("div", _table(titles, rows), class_="scroll")
    )


def _ratio(row: dict, first: dict, key: str) -> str:
    return f"{row[key] / first[key]:.0%}".replace("%", " %") if first.get(key) else "–"


def _accuracy(row: dict) -> str:
    value = row.get("test_accuracy")
    return "–" if value is None else f"{100 * value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _number(value: float | None, style: str = ".4f") -> str:
    return "–" if value is None else format(value, style)


CSS = """
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #ffffff; --ink: #1f2622; --soft: #5d6862;
  --line: #e3e4de;
  --green: #2f7d4f; --pale: #d3ddd5; --stone: #9fb3a6; --blue: #3c6fb4; --amber: #a8660f; }
@media (max-width: 600px) { main, footer { padding: 0 12px; } main section { padding: 18px 16px; } }
@media (prefers-color-scheme: dark) { :root { --paper: #141815; --card: #1b211d; --ink: #e4e9e5;
  --soft: #9ba8a0;
  --line: #2e3731; --green: #5dbb80; --pale: #34423a; --stone: #66796d; --blue: #7fabe6; --amber: #dba04c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
main, footer { max-width: 1060px; margin: 0 auto; padding: 0 24px; }
header { padding: 44px 0 4px; }
h1 { font-size: 32px; line-height: 1.2; margin: 0 0 12px; letter-spacing: -0.01em; text-wrap: balance; }
h2 { font-size: 19px; margin: 0 0 14px; }
.brand { color: var(--green); font-weight: 600; margin: 0 0 6px; }
.setting { display: inline-block; margin: 0 0 12px; padding: 1px 10px; border: 1px solid var(--stone);
  border-radius: 12px;
  color: var(--soft); font-size: 14px; overflow-wrap: anywhere; }
.summary { font-size: 19px; margin: 0 0 28px; max-width: 46em; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 22px 26px;
  margin: 0 0 20px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 15px; }
caption { text-align: left; color: var(--soft); font-size: 14px; padding-bottom: 8px; }
th, td { padding: 7px 12px; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top;
  white-space: nowrap; }
thead th { color: var(--soft); font-weight: 500; font-size: 13px; white-space: normal;
  vertical-align: bottom; line-height: 1.3; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td:last-child, th:last-child { padding-right: 0; }
tbody tr:last-child > * { border-bottom: 0; }
.stages td:last-child, .stages th:last-child { text-align: left; padding-left: 40px; color: var(--soft); }
.stages table { width: auto; }
td small { display: block; color: var(--soft); font-size: 13px; }
.note, figcaption { color: var(--soft); font-size: 14px; margin: 12px 0 0; max-width: 68em; }
figure { margin: 0 0 22px; }
figcaption:first-child { color: var(--ink); font-size: 15px; margin: 0 0 10px; }
figure:last-child { margin-bottom: 0; }
.pictures { display: flex; flex-wrap: wrap; gap: 20px 28px; align-items: flex-start; overflow-x: auto; }
svg { display: block; flex: none; overflow: visible; }
svg text { font-size: 12px; fill: var(--ink); }
svg .title { font-weight: 600; font-size: 13px; }
svg .label { fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .name { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 10.5px; fill: var(--soft); }
svg .rule { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--stone); stroke-width: 1; }
svg .goal { stroke: var(--amber); stroke-dasharray: 4 4; }
svg .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .curve.one { stroke: var(--green); }
svg .curve.two { stroke: var(--blue); stroke-dasharray: 5 3; }
svg .curve.three { stroke: var(--amber); }
svg .way { fill: none; stroke: var(--stone); stroke-dasharray: 2 4; }
svg .ring { fill: none; stroke: var(--amber); stroke-width: 2; }
.dot.one, .bar.after, .dot.n2 { fill: var(--green); }
.dot.two, .dot.n0 { fill: var(--blue); }
.dot.three, .dot.n1 { fill: var(--amber); }
.bar.before { fill: var(--pale); }
.bar.whole { fill: var(--stone); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; list-style: none; margin: 0 0 14px; padding: 0;
  font-size: 14px; }
.key { display: inline-block; width: 14px; height: 10px; margin-right: 7px; border-radius: 2px; }
.key.after, .key.one { background: var(--green); }
.key.before { background: var(--pale); }
.key.whole { background: var(--stone); }
.key.two { background: var(--blue); }
.key.three { background: var(--amber); }
details { margin-top: 14px; font-size: 15px; }
summary { cursor: pointer; color: var(--green); }
details .scroll { max-height: 420px; overflow: auto; margin-top: 8px; }
footer { padding-bottom: 60px; padding-top: 12px; font-size: 15px; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px;
  overflow-x: auto;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 10px 24px;
  margin: 18px 0; }
dt { color: var(--soft); font-size: 13px; }
dd { margin: 0; }
"""
