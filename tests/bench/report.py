"""What was measured, for people (a table, RESULTS.md) and for programs (JSON lines)."""

import datetime
import json
import os
import statistics
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"
COLUMNS = ("bench", "metric", "unit", "better", "bauta", "peer", "peer_value", "ratio", "goal", "bound", "runs")


class Samples:
    """Values by (bench, metric, who), in the order in which they came."""

    def __init__(self):
        self.values, self.about = {}, {}

    def add(self, bench, metric, who, value, unit, better, goal=None):
        self.about.setdefault((bench, metric), (unit, better, goal))
        self.values.setdefault((bench, metric), {}).setdefault(who, []).append(value)

    def rows(self, bound="bare"):
        """One row a metric and peer. `goal` speaks of the ratio; `bound` is the same metric without any tunnel."""
        for (bench, metric), (unit, better, goal) in self.about.items():
            who = {name: statistics.median(values) for name, values in self.values[bench, metric].items()}
            ours, limit = who.pop("bauta", None), who.pop(bound, None)
            runs = min(len(v) for v in self.values[bench, metric].values())
            for peer, theirs in who.items() or [(None, None)]:
                ratio = self._ratio(bench, metric, peer) if ours is not None and peer else None
                values = (bench, metric, unit, better, ours, peer, theirs, ratio, goal, limit, runs)
                yield dict(zip(COLUMNS, (round(v, 4) if isinstance(v, float) else v for v in values)))

    def _ratio(self, bench, metric, peer):
        """The median of the rounds' ratios: a round's two halves saw the same noise."""
        pairs = zip(self.values[bench, metric]["bauta"], self.values[bench, metric][peer])
        ratios = [ours / theirs for ours, theirs in pairs if theirs]
        return statistics.median(ratios) if ratios else None


def number(value):
    if value is None:
        return "–"
    if isinstance(value, float) or value >= 1000:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def goal_text(row):
    return row["goal"] or "–"


HEADINGS = ("bench", "metric", "unit", "better", "bauta", "peer", "its value", "ratio", "goal for the ratio", "without a tunnel", "runs")


def cells(row):
    numeric = {"bauta", "peer_value", "ratio", "bound", "runs"}
    return [number(row[c]) if c in numeric else (row[c] or "–") for c in COLUMNS]


def table(rows):
    lines = [HEADINGS, *(cells(row) for row in rows)]
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(HEADINGS))]
    right = {4, 6, 7, 9, 10}
    align = lambda i, cell: str(cell).rjust(widths[i]) if i in right else str(cell).ljust(widths[i])
    return "\n".join("  ".join(align(i, cell) for i, cell in enumerate(line)).rstrip() for line in lines)


def machine():
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), os.uname().machine)
    memory = int(next(l.split()[1] for l in open("/proc/meminfo"))) / (1 << 20)
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} × {cpu}, {memory:.0f} GiB, Linux {os.uname().release}, load {load:.1f} at the start"


def commit():
    git = lambda *words: subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True).stdout.strip()
    changed = " with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + changed


def append(rows, about, notes):
    """Adds a section to RESULTS.md."""
    when = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    lines = [f"\n## {when}, {about['commit']}\n", about["machine"] + "\n"]
    lines += [f"- {note}" for note in notes] + ([""] if notes else [])
    lines += ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    with open(RESULTS, "a") as results:
        results.write("\n".join(lines) + "\n")


def json_lines(rows):
    return "\n".join(json.dumps(row) for row in rows)
