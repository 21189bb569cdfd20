"""report.json as one page that stands alone: tables and pictures, no script, nothing from a network."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

from secateur.runs.learning_text import UNWEIGHTED
from secateur.runs.markup import Markup, element
from secateur.runs.page_files import files_section, files_sentence
from secateur.runs.page_learning import distilled, learning_section, part_names
from secateur.runs.page_parts import details, figure, legend, note, section, table
from secateur.runs.page_recipe import cuts_section, taught_section
from secateur.runs.page_style import CSS
from secateur.runs.page_table import before_and_after
from secateur.runs.pictures import WIDTHS_KEY, cost_picture, seconds_picture, training_picture, widths_picture
from secateur.runs.search_picture import search_picture, teachers
from secateur.runs.wording import accuracy, duration, number, percent, ratio, si

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STAGES = (
    ("holdout_batch_statistics", "slimmed, statistics of each batch", "no moving averages in use"),
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
PHASES_UNSLICED = PHASES | {"fine-tune": "Training of the student"}


def render_html(report: dict) -> str:
    """The page for the dict that report.json holds; every text in it is escaped.

    Parts that a run did not have (search, bank, stages, epochs, seconds) are left out.
    """
    config = report.get("config") or {}
    subject = f"{config.get('arch', 'network')} on {config.get('dataset', 'data')}"
    title = f"{subject} · {report.get('system', 'pruned')}"
    sections = (
        before_and_after, files_section, learning_section, _widths, _search, _stages, cuts_section,
        taught_section, _training, _costs, _seconds,
    )  # fmt: skip
    body = [_header(report, title), *(part(report) for part in sections)]
    return page(title, element("main", *body), _footer(report))


def page(title: str, *body: Markup) -> str:
    """A whole page with the style of the reports."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", f"{title} · Secateur"),
        element("style", Markup(CSS)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, element('body', *body), lang='en')}\n"


def summary(report: dict) -> str:
    """First network → last network in one sentence; of a distillation what the student has learnt."""
    rows = report.get("rows") or []
    if not rows:
        return "Nothing was measured."
    if report.get("learning"):
        sentence = distilled(report)
    else:
        sentence = _change(rows[0], rows[-1]) if len(rows) > 1 else _alone(rows[0])
    sentence += files_sentence(report)
    return sentence.replace(" %", "\u00a0%")  # no line may begin with the sign


def _change(first: dict, last: dict) -> str:
    parts = [
        f"{first['params']:,} → {last['params']:,} parameters ({ratio(last, first, 'params')})",
        f"{si(first['macs'])} → {si(last['macs'])} MACs ({ratio(last, first, 'macs')})",
    ]
    if None not in (first.get("ms_litert"), last.get("ms_litert")):
        times = f"{first['ms_litert']:.1f} → {last['ms_litert']:.1f} ms per batch of {last.get('batch')}"
        parts.append(f"{times} on LiteRT ({ratio(last, first, 'ms_litert')})")
    parts.append(f"test accuracy {accuracy(first)} → {accuracy(last)} %")
    tail = " (slimmed; not fine-tuned)" if last["name"] == "slimmed" else ""
    return f"{', '.join(parts)}{tail}."


def _alone(row: dict) -> str:
    sizes = f"{row['params']:,} parameters, {si(row['macs'])} MACs"
    return f"{sizes}, test accuracy {accuracy(row)} %."


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
    return section("Widths", figure(widths_picture(widths), caption, legend(*WIDTHS_KEY)))


def _search(report: dict) -> Markup:
    search = report.get("search") or []
    if len(search) < 2:
        return Markup()
    caption = (
        f"{len(search) - 1} cuts, chosen from {sum(r['candidates'] for r in search):,} candidates. A block "
        "is as wide as the operations that its cut removed (EKG’s count). Loss and accuracy are of "
        "the images that the search chose by, with the BN statistics of each batch: they flatter the network."
    )
    rings = " Ringed: the interim networks that teach in the fine-tuning." if teachers(report) else ""
    titles = ("step", "group", "width", "operations", "left", "loss", "score", "accuracy", "candidates")
    cuts = details(f"All {len(search) - 1} cuts", titles, map(_search_line, itertools.count(), search))
    return section("Search", figure(search_picture(report), caption + rings), cuts)


def _search_line(step: int, row: dict) -> tuple:
    return (
        step,
        row["group"] or "none yet",
        row["width"] or "–",
        f"{row['macs']:,}",
        percent(row["rate"]),
        number(row["loss"]),
        number(row["score"]),
        percent(row["accuracy"]),
        row["candidates"],
    )


def _stages(report: dict) -> Markup:
    facts = report.get("stages") or {}
    rows = [(name, percent(facts[key]), why) for key, name, why in STAGES if facts.get(key) is not None]
    if not rows:
        return Markup()
    accuracies = table(("network", "hold-out accuracy", "what it is"), rows)
    text = (
        "Slicing changes what flows through the network, so the BN averages kept from the wide network are "
        "stale; they are estimated again from training images."
    )
    start = "search" if report.get("search") else "whole"
    title = f"From {start} to slimmed network"
    return section(title, element("div", accuracies, class_="scroll stages"), note(text))


def _training(report: dict) -> Markup:
    epochs = report.get("epochs") or []
    phases = {e["phase"]: [r for r in epochs if r["phase"] == e["phase"]] for e in epochs}
    if not phases:
        return Markup()
    key = legend(("one", "hold-out"), ("two", "training"), ("three", "learning rate"))
    terms = part_names(epochs)
    lines = [(r["phase"], r["step"], *(text for _, text in _values(r, terms))) for r in epochs]
    titles = ("phase", "epoch", *(name for name, _ in _values({}, terms)))
    known = PHASES if report.get("stages") or not report.get("learning") else PHASES_UNSLICED
    parts = [_phase(known.get(name, name), name, rows) for name, rows in phases.items()]
    remark = note(_losses_remark(report))
    return section("Training", key, *parts, remark, details("All epochs", titles, lines))


def _losses_remark(report: dict) -> str:
    """What the two losses are, and of what."""
    what = (
        "the sum of its parts by their weights; the table has the parts unweighted"
        if report.get("learning")
        else "EKG's warm-up doubles it; teachers may add to it"
    )
    apart = "" if report.get("learning") else " Compare losses within a phase only."
    return (
        f"The training loss is what its phase minimises ({what}), a mean over the epoch while the weights "
        f"move; the hold-out loss is the cross-entropy after the epoch, with moving averages.{apart}"
    )


def _phase(title: str, name: str, rows: Sequence[dict]) -> Markup:
    if len(rows) == 1:  # one point makes no curve
        values = ", ".join(f"{what} {text}" for what, text in _values(rows[0]))
        return element("p", element("b", f"{title}, 1 epoch: "), values)
    caption = element("figcaption", element("b", f"{title}, {len(rows)} epochs"))
    return element("figure", caption, element("div", training_picture(name, rows), class_="pictures"))


def _values(row: dict, terms: Sequence[str] = ()) -> list[tuple[str, str]]:
    return [
        ("training loss", number(row.get("loss"))),
        ("training accuracy", percent(row.get("accuracy"))),
        ("hold-out loss", number(row.get("holdout_loss"))),
        ("hold-out accuracy", percent(row.get("holdout_accuracy"))),
        ("learning rate", number(row.get("learning_rate"), ".3g")),
        *((f"{name}, unweighted", number(row.get(UNWEIGHTED + name), ".4g")) for name in terms),
    ]


def _costs(report: dict) -> Markup:
    rows = report.get("rows") or []
    if report.get("learning") and len({(row["params"], row["macs"]) for row in rows}) < 2:
        return Markup()  # of one shape, only noise tells their times apart
    picture = cost_picture(rows)
    caption = "Up is better, left is cheaper. Costs start at zero, accuracy does not."
    return section("Accuracy and cost", figure(picture, caption)) if picture else Markup()


def _seconds(report: dict) -> Markup:
    seconds = {k: v for k, v in (report.get("seconds") or {}).items() if v is not None}
    if not seconds:
        return Markup()
    total = duration(sum(seconds.values()))
    caption = (
        f"Wall time of each step, {total} in all. A step that was interrupted counts from its last start."
    )
    return section("Time", figure(seconds_picture(seconds), caption))


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
