"""What was measured, for people (a table, a plot, RESULTS.md) and for programs (JSON lines)."""

import datetime
import json
import os
import re
import statistics
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"
COLUMNS = ("bench", "metric", "unit", "better", "bauta", "peer", "peer_value", "ratio", "goal", "bound", "runs")
HEADINGS = ("bench", "metric", "unit", "better", "bauta", "peer", "its value", "ratio", "goal", "bound", "runs")
NUMBERS = {"bauta", "peer_value", "ratio", "bound", "runs"}
BAR, LONGEST = 32, 4.0  # characters, and the ratio that fills them
GOAL = re.compile(r"(ratio )?(<=|>=) ([\d.]+)")


class Samples:
    """Values of one bench by (metric, who), in the order in which they came."""

    def __init__(self, bench):
        self.bench, self.values, self.about, self.absent = bench, {}, {}, []

    def add(self, metric, who, value, unit, better, goal=None, bound=None):
        """One value. `goal` is text: "ratio >= 2" speaks of the ratio to a peer, "<= 40" of Bauta's own value in its unit; a dictionary
        has a goal for each peer. `bound` is what cannot be passed, in the same unit; values of who "bare" make it as well."""
        self.about.setdefault(metric, (unit, better, goal, bound))
        self.values.setdefault(metric, {}).setdefault(who, []).append(value)

    def kept(self):
        """How many values there are of each metric and whom, for `back_to`."""
        return {(metric, name): len(values) for metric, who in self.values.items() for name, values in who.items()}

    def back_to(self, kept):
        """Forgets what was added since."""
        for metric, who in list(self.values.items()):
            for name, values in list(who.items()):
                del values[kept.get((metric, name), 0) :]
                if not values:
                    del who[name]
            if not who:
                del self.values[metric], self.about[metric]

    def miss(self, peer):
        """A peer that is not here has a row of its own, so that programs see it too."""
        self.absent.append(peer)

    def rows(self):
        """One row a metric and peer: medians, and the median of the rounds' ratios."""
        for metric, (unit, better, goal, bound) in self.about.items():
            who = {name: statistics.median(values) for name, values in self.values[metric].items()}
            ours, bare = who.pop("bauta", None), who.pop("bare", None)
            bound = bare if bound is None else bound
            for peer, theirs in who.items() or [(None, None)]:
                pairs = [self.values[metric].get(name, []) for name in ("bauta", peer)]
                ratio = self._ratio(*pairs) if peer and ours is not None else None
                aim = goal.get(peer) if isinstance(goal, dict) else goal
                runs = min(len(values) for values in pairs if values)
                yield row(self.bench, metric, unit, better, ours, peer, theirs, ratio, aim, bound, runs)
        for peer in self.absent:
            yield row(self.bench, "this peer is missing", "", "higher", None, peer, None, None, None, None, 0)

    @staticmethod
    def _ratio(ours, theirs):
        """A round's two halves saw the same noise: their ratio says more than that of the medians."""
        ratios = [a / b for a, b in zip(ours, theirs) if b]
        return statistics.median(ratios) if ratios else None


def row(*values):
    return dict(zip(COLUMNS, (float(f"{v:.6g}") if isinstance(v, float) else v for v in values)))


def verdict(row):
    """Whether the goal is met; None where there is none, or nothing to hold against it."""
    goal = GOAL.fullmatch(row["goal"] or "")
    if not goal:
        return None
    value = row["ratio"] if goal[1] else row["bauta"]
    if value is None:
        return None
    return value >= float(goal[3]) if goal[2] == ">=" else value <= float(goal[3])


def number(value):
    if value is None:
        return "–"
    if isinstance(value, float) or value >= 1000:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def goal_text(row):
    mark = {True: " ✓", False: " ✗", None: ""}[verdict(row)]
    return (row["goal"] or "–") + mark


def cells(row):
    special = {"goal": goal_text(row), "bound": number(row["bound"]), "peer": row["peer"] or "–"}
    return [special.get(c) or (number(row[c]) if c in NUMBERS else row[c] or "–") for c in COLUMNS]


def table(rows):
    lines = [HEADINGS, *(cells(row) for row in rows)]
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(HEADINGS))]
    right = {i for i, column in enumerate(COLUMNS) if column in NUMBERS}
    align = lambda i, cell: str(cell).rjust(widths[i]) if i in right else str(cell).ljust(widths[i])
    return "\n".join("  ".join(align(i, cell) for i, cell in enumerate(line)).rstrip() for line in lines)


def plot(rows):
    """A bar a ratio, turned so that longer is better: 1 is as good as the peer, `|` where the goal is."""
    lines = []
    shown = [row for row in rows if row["ratio"]]
    if not shown:
        return ""
    label = lambda row: f"{row['bench']}: {row['metric']}"
    wide, peers = max(len(label(row)) for row in shown), max(len(row["peer"]) for row in shown)
    for row in shown:
        turn = (lambda v: v) if row["better"] == "higher" else (lambda v: 1 / v if v else LONGEST)
        times = turn(row["ratio"])
        bar = list(("█" * round(min(times, LONGEST) / LONGEST * BAR)).ljust(BAR, "·"))
        goal = GOAL.fullmatch(row["goal"] or "")
        if goal and goal[1]:
            bar[min(BAR - 1, round(turn(float(goal[3])) / LONGEST * BAR))] = "|"
        more = "›" if times > LONGEST else " "
        lines.append(f"{label(row).ljust(wide)}  {row['peer'].ljust(peers)}  {''.join(bar)}{more} {times:5.2f} ×")
    return "\n".join(lines)


def summary(rows, missing, broken):
    """The last line: what was met, and what did not take part."""
    verdicts = [verdict(row) for row in rows]
    line = f"{len(rows)} rows, {verdicts.count(True)} goals met, {verdicts.count(False)} not"
    line += f", {len(missing)} peers missing" + (f" ({', '.join(missing)})" if missing else "")
    return line + (f", {len(broken)} failed ({', '.join(broken)})" if broken else "")


def machine():
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), os.uname().machine)
    memory = int(next(l.split()[1] for l in open("/proc/meminfo"))) / (1 << 20)
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} × {cpu}, {memory:.0f} GiB, Linux {os.uname().release}, load {load:.1f} at the start"


def commit():
    git = lambda *words: subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True).stdout.strip()
    changed = " with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + changed


def append(rows, about, notes, compact=None):
    """Adds a section to RESULTS.md; `compact` are tables that stand for the rows of a bench which has too many."""
    when = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    lines = [f"\n## {when}, {about['commit']}\n", f"`{about['command']}`\n", about["machine"] + "\n"]
    lines += [f"- {note.splitlines()[0]}" for note in notes] + ([""] if notes else [])
    for name, short in (compact or {}).items():
        lines += [short([row for row in rows if row["bench"] == name]), ""]
    rows = [row for row in rows if row["bench"] not in (compact or {})]
    if rows:
        lines += ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
        lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    bars = plot(rows)
    lines += ["", "```text", bars, "```"] if bars else []
    with open(RESULTS, "a") as results:
        results.write("\n".join(lines) + "\n")


def json_lines(rows):
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
