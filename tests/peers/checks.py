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
            self._fail(name, f"{type(error).__name__}: {error}")
            if not isinstance(error, AssertionError):
                traceback.print_exc(limit=3, file=sys.stdout)
            return None
        self.passed += 1
        print(f"ok    {self.group}: {name}", flush=True)
        return result

    def refused(self, name, action, *words):
        """`action` must raise, and the message must contain all `words`."""
        try:
            result = action()
        except Exception as error:  # noqa: BLE001
            text = str(error)
            missing = [word for word in words if word not in text]
            if missing:
                self._fail(name, f"the error does not say {missing}: {text[:400]}")
                return
            self.passed += 1
            print(f"ok    {self.group}: {name}", flush=True)
            return
        self._fail(name, f"it succeeded: {result!r}")

    def skip(self, name, reason):
        """A check that this peer cannot take part in, by name."""
        self.skipped.append(name)
        print(f"skip  {self.group}: {name}: {reason}", flush=True)

    def summary(self):
        print(f"\n{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped")
        for line in self.failed:
            print(f"FAIL  {line}")
        return 1 if self.failed else 0

    def _fail(self, name, reason):
        line = f"{self.group}: {name}: {' '.join(reason.split())[:600]}"
        self.failed.append(line)
        print(f"FAIL  {line}", flush=True)
