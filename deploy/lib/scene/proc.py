"""Programs that stay: started, watched, measured, ended."""

import glob
import os
import signal
import subprocess
import time

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Failed(Exception):
    """Something that should have worked did not; the message is for people."""


class Daemon:
    """A program in the background."""

    def __init__(self, name, command, log, **options):
        self.name, self.log = name, log
        with open(log, "ab") as out:
            options.setdefault("stdin", subprocess.DEVNULL)
            self.process = subprocess.Popen(command, stdout=out, stderr=out, **options)

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def stop(self, patience=5.0):
        """Asks it to end, then makes it. Returns its exit code."""
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def cpu_seconds(self):
        """User and system time of all its threads so far."""
        with open(f"/proc/{self.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        # In ticks of 10 ms, threads that have ended included; the scheduler's own account is in nanoseconds and leaves those out.
        return max((int(fields[11]) + int(fields[12])) / _TICKS, self._scheduled())

    def _scheduled(self):
        total = 0
        for task in glob.glob(f"/proc/{self.pid}/task/*/schedstat"):
            try:
                with open(task) as file:
                    total += int(file.read().split()[0])
            except OSError:
                pass  # the thread has just ended
        return total / 1e9

    def resident(self):
        """Bytes of memory that are its own or shared and present."""
        with open(f"/proc/{self.pid}/statm") as statm:
            return int(statm.read().split()[1]) * _PAGE

    def last_words(self, lines=12):
        with open(self.log, errors="replace") as log:
            return "".join(log.readlines()[-lines:]).rstrip()


def wait_until(ready, what, seconds=10.0, daemons=()):
    """Polls `ready()` until it is true and returns the seconds it took. Gives up at once when one of the daemons ends."""
    start = time.monotonic()
    while not ready():
        for daemon in daemons:
            if not daemon.alive():
                raise Failed(f"{daemon.name} ended with {daemon.process.returncode} before {what}:\n{daemon.last_words()}")
        if time.monotonic() - start > seconds:
            words = "".join(f"\n{d.name} said:\n{d.last_words()}" for d in daemons)
            raise Failed(f"waited {seconds:.0f} s in vain for {what}{words}")
        time.sleep(0.02)
    return time.monotonic() - start
