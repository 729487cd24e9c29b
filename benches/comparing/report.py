"""The rows as a table for people, as JSON for programs, and as a chart."""

import json
from xml.sax.saxutils import escape

from .ingress import OVER

HEADER = ("against", "ours", "theirs", "ours ÷ theirs (least to greatest)", "CPU time", "remarks")
NOTES = (
    "* of nginx and HAProxy the one to beat. A row says `less` or `more` only where the range does not",
    "  cross 1 in seven rounds or more, and the median is 5 % or more from it; all else is `even`.",
)


def settings():
    """What stands over config/ingress.toml in every case."""
    pairs = (f"{key.lower().replace('__', '.')} = {value}" for key, value in OVER.items())
    return "config/ingress.toml with " + ", ".join(pairs)


def table(rows):
    """The rows as text in columns."""
    lines = [HEADER, *(cells(row) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEADER))]
    out, title = [], None
    for row, line in zip([None, *rows], lines):
        if row is not None and row.title != title:
            title = row.title
            out.append(f"({row.letter}) {title}")
        out.append("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    return "\n".join([*out, *NOTES])


def cells(row):
    star = "*" if row.is_better_peer else ""
    keys = ", ".join(f"{key.lower().replace('__', '.')} = {value}" for key, value in row.keys.items())
    remarks = "; ".join([*row.marks, *([f"with {keys}"] if keys else [])])
    return (
        f"  {row.against}{star}", amount(row.ours, row.unit), amount(row.theirs, row.unit),
        figure(row), row.verdict, remarks,
    )


def amount(value, unit):
    if value is None:
        return ""
    digits = 0 if unit == "bytes" or value >= 1000 else 2
    return f"{value:.{digits}f} {unit.removesuffix(' CPU')}"


def figure(row):
    if row.median is None:
        return ""
    if row.figure == "difference":
        return f"{row.median:+.2f} µs ({row.least:+.2f} to {row.greatest:+.2f})"
    unit = f" {row.unit}" if row.figure == "value" else ""
    return f"{row.median:.3f}{unit} ({row.least:.3f} to {row.greatest:.3f})"


def write_json(path, machine, versions, arguments, rows):
    result = {
        "machine": machine,
        "versions": versions,
        "settings": settings(),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "rows": [row.to_json() for row in rows],
    }
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


# The chart: its measures in pixels, the ratio at its right edge, and a colour a verdict.
LINE, LEFT, WIDTH, TOP = 22, 430, 420, 64
MOST = 2.0
COLOURS = {"less": "#1a7f4b", "even": "#777777", "more": "#b3402e"}


def chart(rows, machine, versions):
    """A line for each ratio: the median as a dot, least to greatest as a bar, 1 as the mark."""
    rows = [row for row in rows if row.figure == "ratio" and row.median is not None]
    height = TOP + LINE * len(rows) + 36
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 130}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        text(12, 20, "M3O Ingress divided by its peers: CPU time or memory, less is better", "bold"),
        text(12, 38, f"{machine['processor']}, {machine['cores']} cores, {machine['kernel']}; "
                     f"{versions['m3o-ingress']}"),
    ]
    for value in (0, 0.5, 1, 1.5, 2):
        at = across(value)
        dashes = "" if value == 1 else ' stroke-dasharray="2 4"'
        out.append(f'<line x1="{at}" x2="{at}" y1="{TOP - 8}" y2="{height - 32}" stroke="#999"{dashes}/>')
        out.append(text(at, height - 16, f"{value:g}", anchor="middle"))
    title = None
    for number, row in enumerate(rows):
        y = TOP + LINE * number + LINE // 2
        colour = COLOURS[row.verdict]
        if row.title != title:
            title = row.title
            out.append(text(12, y, f"({row.letter}) {shortened(title)}"))
        star = " *" if row.is_better_peer else ""
        out.append(text(LEFT - 10, y, row.against + star, anchor="end"))
        low, high = across(row.least), across(row.greatest)
        out.append(
            f'<line x1="{low}" x2="{high}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}"'
            ' stroke-width="6" stroke-opacity="0.35"/>'
        )
        out.append(f'<circle cx="{across(row.median)}" cy="{y - 4}" r="4" fill="{colour}"/>')
        out.append(text(LEFT + WIDTH + 12, y, f"{row.median:.2f} ({row.least:.2f} to {row.greatest:.2f})"))
    return "\n".join([*out, "</svg>", ""])


def across(ratio):
    # What is off the chart stands at its edge; its figure is beside it.
    return round(LEFT + WIDTH * min(ratio, MOST) / MOST, 1)


def shortened(title):
    return title if len(title) <= 46 else title[:45] + "…"


def text(x, y, words, weight="normal", anchor="start"):
    return (
        f'<text x="{x}" y="{y}" font-weight="{weight}" text-anchor="{anchor}">{escape(words)}</text>'
    )
