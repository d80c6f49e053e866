"""What a bench is given: a place for files, the length of a measurement, and somewhere to leave what it found."""

import tempfile
from pathlib import Path

from report import Samples
from scene import net
from scene.proc import Failed


class Course:
    """One run of one bench."""

    def __init__(self, name, options, say):
        self.name, self.seconds, self.rounds, self.say = name, options.seconds, options.rounds, say
        self.rows = getattr(options, "rows", [])  # of a bench that has many: those wanted, all if empty
        self.folder = Path(tempfile.mkdtemp(prefix=f"bauta-bench-{name}-"))
        self.samples, self.notes, self.missing, self.broken = Samples(name), [], [], []
        self.add = self.samples.add

    def stage(self):
        """Client, gateway and Internet in a row."""
        return net.three_hosts(f"bb-{self.name}", self.folder)

    def present(self, contenders):
        """Those that can run. A peer that cannot is named, counted, and has its row."""
        here = []
        for contender in contenders:
            why = contender.missing()
            if not why:
                here.append(contender)
            elif contender.name == "bauta":
                raise Failed(why)
            else:
                self.miss(contender.name, why)
        return here

    def miss(self, peer, why):
        self.missing.append(peer)
        self.samples.miss(peer)
        self.note(f"{peer} is MISSING and left out: {why}")

    def note(self, text):
        self.notes.append(f"{self.name}: {text}")
        self.say(f"! {self.notes[-1]}")

    def alternate(self, contenders, measure, once=()):
        """Rounds of every contender in turn, so that each sees the noise that the others see. Those of `once` have one round only.

        `measure(contender)` brings it up and measures; `contender.down()` follows in any case. Who fails is out, aloud.
        """
        contenders, occasional = self.present(contenders), self.present(once)
        for number in range(self.rounds):
            for contender in contenders + (occasional if number == 0 else []):
                if contender.name in self.broken:
                    continue
                self.say(f"{self.name}: round {number + 1} of {self.rounds}, {contender.name}")
                try:
                    measure(contender)
                except Failed as failure:
                    self.broken.append(contender.name)
                    self.note(f"{contender.name} FAILED in round {number + 1} and is out: {failure}")
                finally:
                    contender.down()
