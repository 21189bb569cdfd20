"""The style of the report page and of its pictures."""

from __future__ import annotations

import re

LIGHT = """
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #ffffff; --ink: #1f2622; --soft: #5d6862;
  --line: #e3e4de;
  --green: #2f7d4f; --pale: #d3ddd5; --stone: #9fb3a6; --blue: #3c6fb4; --amber: #a8660f; }
"""
COLOURS = dict(re.findall(r"--(\w+): (#\w+)", LIGHT))  # by the names that the rules use

_PAGE = """\
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
.learning td, .learning th { text-align: left; }
.learning table { width: auto; margin-bottom: 14px; }
td small { display: block; color: var(--soft); font-size: 13px; }
.note, figcaption { color: var(--soft); font-size: 14px; margin: 12px 0 0; max-width: 68em; }
figure { margin: 0 0 22px; }
figcaption:first-child { color: var(--ink); font-size: 15px; margin: 0 0 10px; }
figure:last-child { margin-bottom: 0; }
.pictures { display: flex; flex-wrap: wrap; gap: 20px 28px; align-items: flex-start; overflow-x: auto; }
"""

PICTURES = """\
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
"""

_DETAILS = """\
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

CSS = LIGHT + _PAGE + PICTURES + _DETAILS
