"""One line per check, and a count at the end."""

import sys
import traceback


class Checks:
    """Results so far. A check that raises has failed; the others go on."""

    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []
        self.group = ""

    def begin(self, group):
        self.group = group

    def check(self, name, action, expected=None):
        """Runs `action`; with `expected`, compares what it returns. Returns the result, or None after a failure."""
        try:
            result = action()
            if expected is not None and result != expected:
                raise AssertionError(f"got {result!r}, expected {expected!r}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the check failed
            self.fail(name, f"{type(error).__name__}: {error}")
            if not isinstance(error, AssertionError):
                traceback.print_exc(limit=3, file=sys.stdout)
            return None
        self._pass(name)
        return result

    def refused(self, name, action, *words):
        """`action` must raise, and the message must contain all `words`."""
        try:
            result = action()
        except Exception as error:  # noqa: BLE001
            text = str(error)
            missing = [word for word in words if word not in text]
            if missing:
                self.fail(name, f"the error does not say {missing}: {text[:400]}")
            else:
                self._pass(name)
            return
        self.fail(name, f"it succeeded: {result!r}")

    def gap(self, name, action, symptom, reason):
        """A check that a peer cannot take part in. That it still cannot is proven by `symptom`, which `action` returns, or
        raises as a part of its message; otherwise the gap is closed, and the check can be written."""
        try:
            found = action()
        except Exception as error:  # noqa: BLE001
            found = symptom if isinstance(symptom, str) and symptom in str(error) else error
        if found != symptom:
            self.fail(name, f"it is skipped because {reason}, which shows no more: {found!r}")
            return
        self.skip(name, reason)

    def skip(self, name, reason):
        self.skipped.append(name)
        print(f"skip  {self.group}: {name}: {reason}", flush=True)

    def fail(self, name, reason):
        line = f"{self.group}: {name}: {' '.join(reason.split())[:600]}"
        self.failed.append(line)
        print(f"FAIL  {line}", flush=True)

    def add(self, other):
        """Takes the results of another part of the run."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def summary(self):
        """Prints the count; returns the exit status."""
        for line in self.failed:
            print(f"FAIL  {line}")
        print(f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped", flush=True)
        return 1 if self.failed else 0

    def _pass(self, name):
        self.passed += 1
        print(f"ok    {self.group}: {name}", flush=True)
