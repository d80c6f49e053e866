#!/usr/bin/env python3
"""The benches' own tests: the report and the register. tests/bench/tests.py"""

import argparse
import io
import json
import random
import socket
import struct
import subprocess
import sys
import tempfile
import unittest
from contextlib import redirect_stderr
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "deploy/lib")]

import benches
import classify
import report
import resilient
from course import Course
from links import Hosts
from scene.proc import Failed, wait_until


def samples():
    found = report.Samples("speed")
    for ours, theirs in ((30, 10), (20, 10), (40, 10)):
        found.add("TCP", "bauta", ours, "Mbit/s", "higher", {"slow": "ratio >= 2.5"})
        found.add("TCP", "slow", theirs, "Mbit/s", "higher", {"slow": "ratio >= 2.5"})
    found.add("TCP", "bare", 100, "Mbit/s", "higher")
    found.add("memory", "bauta", 41.5, "KiB", "lower", "<= 40")
    found.miss("absent")
    return list(found.rows())


def flows(share, dice):
    """Flows of 200 packets, of which a share is large."""
    return [[(n / 100, 1200 if dice.random() < share else 80, dice.random() < 0.5) for n in range(200)] for _ in range(12)]


class Classifier(unittest.TestCase):
    def test_it_guesses_at_like_flows_and_knows_unlike_ones(self):
        dice = random.Random(3)
        half, same, most = ([classify.features(flow) for flow in flows(share, dice)] for share in (0.5, 0.5, 0.9))
        self.assertAlmostEqual(classify.auc(half, same), 0.5, delta=0.25)
        self.assertGreater(classify.auc(half, most), 0.95)

    def test_the_first_packets_alone_tell_flows_that_begin_otherwise(self):
        dice = random.Random(5)
        half, same = ([classify.head(flow) for flow in flows(0.5, dice)] for _ in range(2))
        large = [classify.head([(0, 1200, True)] * 20 + flow) for flow in flows(0.5, dice)]
        self.assertAlmostEqual(classify.auc(half, same), 0.5, delta=0.25)
        self.assertGreater(classify.auc(half, large), 0.95)
        self.assertEqual(len(classify.head([])), len(half[0]))

    def test_a_flow_is_the_datagrams_of_the_gateway_in_the_window(self):
        ours, theirs = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))

        def packet(at, source, target, length, ports=(5000, 443), kind=17):
            ip = bytes([0x45]) + bytes(8) + bytes([kind]) + bytes(2) + source + target
            frame = bytes(12) + b"\x08\x00" + ip + struct.pack(">HHHH", *ports, length + 8, 0)
            return struct.pack("<IIII", at, 0, len(frame), length) + frame

        capture = b"\xd4\xc3\xb2\xa1" + bytes(20) + packet(7, theirs, ours, 1200) + packet(8, ours, theirs, 60, (443, 5000))
        capture += packet(8, theirs, ours, 9, (5000, 53)) + packet(8, theirs, ours, 9, kind=6) + packet(99, theirs, ours, 9)
        found = classify.flow(capture + b"cut off", ours, 443, 5)
        self.assertEqual(found, [(0, 1200, True), (1, 60, False)])


class Reports(unittest.TestCase):
    def test_a_row_has_medians_and_the_median_of_ratios(self):
        row = samples()[0]
        wanted = {"bench": "speed", "metric": "TCP", "unit": "Mbit/s", "better": "higher", "bauta": 30, "peer": "slow"}
        wanted |= {"peer_value": 10, "ratio": 3.0, "goal": "ratio >= 2.5", "bound": 100, "runs": 3}
        self.assertEqual(row, wanted)

    def test_json_has_exactly_these_keys(self):
        for line in report.json_lines(samples()).splitlines():
            self.assertEqual(tuple(json.loads(line)), report.COLUMNS)

    def test_goals_of_ratios_and_of_values(self):
        self.assertEqual([report.verdict(row) for row in samples()], [True, False, None])
        for goal, ours, ratio, met in (("ratio <= 0.5", 1.0, 0.5, True), ("ratio <= 0.5", 1.0, 0.6, False), (">= 3", 2.0, 9.0, False), ("<= 3", None, 1.0, None)):
            self.assertIs(report.verdict({"goal": goal, "bauta": ours, "ratio": ratio}), met, goal)

    def test_a_missing_peer_is_seen_everywhere(self):
        rows = samples()
        self.assertEqual((rows[-1]["peer"], rows[-1]["ratio"], rows[-1]["runs"]), ("absent", None, 0))
        self.assertIn("absent", report.table(rows))
        self.assertIn("1 peers missing (absent)", report.summary(rows, ["absent"], []))

    def test_a_bench_of_many_rows_has_a_compact_table(self):
        lossy = benches.load("lossy")
        found = report.Samples("lossy")
        for who, value in (("bauta", 80.0), ("plain", 2.0)):
            found.add("iid-5-50: goodput", who, value, "Mbit/s", "higher", bound=91.1)
        found.miss("absent")
        rows = list(found.rows())
        self.assertIn("| iid-5-50: goodput | Mbit/s | 80 | 2 | 91.1 |", lossy.compact(rows))
        with tempfile.NamedTemporaryFile("r+") as file, mock.patch.object(report, "RESULTS", file.name):
            report.append(rows + samples(), {"machine": "", "commit": "", "command": ""}, [], {"lossy": lossy.compact})
            text = file.read()
        self.assertIn("| cell | unit | bauta | plain | bound |", text)
        self.assertNotIn("| lossy | iid", text)
        self.assertIn("| speed | TCP |", text)

    def test_a_longer_bar_is_better_whatever_the_metric(self):
        low = report.row("b", "CPU", "s", "lower", 1.0, "p", 2.0, 0.5, "ratio <= 0.5", None, 1)
        high = report.row("b", "rate", "1/s", "higher", 2.0, "p", 1.0, 2.0, "ratio >= 2", None, 1)
        first, second = (line[-report.BAR - 10 :] for line in report.plot([low, high]).splitlines())
        self.assertEqual(first, second)
        self.assertIn("|", first)
        self.assertEqual(report.plot([samples()[-1]]), "")

    def test_results_are_appended(self):
        with tempfile.NamedTemporaryFile("r+") as file, mock.patch.object(report, "RESULTS", file.name):
            about = {"machine": "1 × abacus", "commit": "c0ffee", "command": "tests/bench/run"}
            report.append(samples(), about, ["speed: absent is MISSING"])
            text = file.read()
        for part in ("c0ffee", "1 × abacus", "- speed: absent is MISSING", "| speed | TCP |", "```text"):
            self.assertIn(part, text)


class Contender:
    def __init__(self, name, missing=None, fails=False):
        self.name, self.why, self.fails, self.downs = name, missing, fails, 0

    def missing(self):
        return self.why

    def down(self):
        self.downs += 1


class Courses(unittest.TestCase):
    def course(self):
        options = argparse.Namespace(seconds=1, rounds=3)
        return Course("test", options, lambda *_: None)

    def test_contenders_alternate_and_who_fails_is_out(self):
        turns, course = [], self.course()

        def measure(contender):
            turns.append(contender.name)
            if contender.fails:
                raise Failed("no")

        weak = Contender("weak", fails=True)
        course.alternate([Contender("bauta"), weak], measure, once=[Contender("rare")])
        self.assertEqual(turns, ["bauta", "weak", "rare", "bauta", "bauta"])
        self.assertEqual((course.broken, weak.downs), (["weak"], 1))
        self.assertIn("FAILED", course.notes[0])

    def test_a_missing_peer_is_noted_and_counted(self):
        course = self.course()
        course.alternate([Contender("bauta"), Contender("absent", "build it")], lambda _: None)
        self.assertEqual(course.missing, ["absent"])
        self.assertIn("build it", course.notes[0])

    def test_nothing_is_measured_without_bauta(self):
        with self.assertRaises(Failed):
            self.course().present([Contender("bauta", "build it")])


class Streams(unittest.TestCase):
    def test_a_stream_over_loopback_arrives_whole_and_in_order(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        start = lambda *words: subprocess.Popen([sys.executable, HERE / "stream.py", *words], stdout=subprocess.PIPE, text=True)
        receiver = start("receive", port, "20", "0.25")
        ready = lambda: f"{int(port):04X} " in Path("/proc/net/udp").read_text()
        wait_until(ready, "the receiver", daemons=[])
        sent = json.loads(start("send", "127.0.0.1", port, "200", "500", "0.5").communicate(timeout=20)[0])["sent"]
        got = json.loads(receiver.communicate(timeout=30)[0])
        self.assertEqual((got["received"], got["bytes"], got["doubles"], got["disorder"]), (sent, sent * 200, 0, 0))
        self.assertLessEqual(got["p50"], got["p999"])
        self.assertLessEqual(got["settled"]["p99"], got["p999"])


@mock.patch("links.stolen", return_value=0.0)
class Disturbed(unittest.TestCase):
    """Links that were late in some attempts."""

    def hosts(self, *late):
        hosts, said = Hosts.__new__(Hosts), []
        hosts.course = Course("links", argparse.Namespace(seconds=1, rounds=1), said.append)
        hosts.links = [mock.Mock(disturbed=mock.Mock(side_effect=late))]
        return hosts, said

    def test_what_was_disturbed_is_measured_again_and_forgotten(self, _):
        hosts, said = self.hosts("late", None)
        values, between = iter((1, 2)), mock.Mock()
        hosts.undisturbed(lambda: hosts.course.add("rate", "bauta", next(values), "Mbit/s", "higher"), between)
        self.assertEqual((hosts.course.samples.values, between.call_count), ({"rate": {"bauta": [2]}}, 1))
        self.assertEqual((hosts.course.notes, len(said)), ([], 1))

    def test_what_stays_disturbed_is_kept_and_said(self, _):
        hosts, _ = self.hosts(*["late"] * 3)
        self.assertEqual(hosts.undisturbed(lambda: 7), 7)
        self.assertEqual(len(hosts.course.notes), 1)
        self.assertIn("not to be used", hosts.course.notes[0])


class Rows(unittest.TestCase):
    def test_an_unknown_row_is_named_with_those_there_are(self):
        for bench, known in (("resilience", "failover"), ("pairs", "fiber_lte")):
            options = argparse.Namespace(seconds=1, rounds=1, rows=["nonsense"])
            with self.assertRaisesRegex(Failed, f"nonsense.*{known}"):
                benches.load(bench).run(Course(bench, options, lambda *_: None))

    def test_the_bounds_are_those_of_headers_and_loss(self):
        self.assertEqual([round(resilient.limit(100, loss), 1) for loss in (0.01, 0.05, 0.10, 0.15)], [94.9, 91.1, 86.3, 81.5])


class Register(unittest.TestCase):
    def test_every_bench_says_what_it_measures(self):
        for name in benches.NAMES:
            bench = benches.load(name)
            self.assertTrue(callable(bench.run), name)
            self.assertTrue((bench.__doc__ or "").strip(), name)
            for package in getattr(bench, "PACKAGES", []):
                self.assertRegex(package, r"^[^:]+:[^:]+$")

    def test_every_file_is_registered(self):
        files = {file.stem for file in (HERE / "benches").glob("*.py")} - {"__init__"}
        self.assertEqual(files, set(benches.NAMES))


if __name__ == "__main__":
    said = io.StringIO()
    with redirect_stderr(said):
        outcome = unittest.main(exit=False).result
    sys.stdout.write(said.getvalue())
    failed = len(outcome.failures) + len(outcome.errors)
    print(f"{outcome.testsRun - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)
