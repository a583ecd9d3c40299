"""Run unittest cases and report them in the Test Anything Protocol.

SPDX-License-Identifier: GPL-2.0-or-later

Meson counts the cases of a TAP test and shows why one was skipped.  QEMU's
own functional tests use pycotap for this, which distributions do not have.
"""

import os
from pathlib import Path
import signal
import time
import traceback
import unittest


def test_all():
    """Tell whether to run what is too slow for every day."""
    return bool(os.environ.get('VIRTIO_MEM_TEST_ALL'))


def slow(case):
    """Mark a case that only VIRTIO_MEM_TEST_ALL runs."""
    case.slow = True
    return case


def processor_time():
    """Return the seconds that this process and its children had so far.

    Unlike the time that passes, it depends little on what else the host does.
    """
    return sum(os.times()[:4])


class Loader(unittest.TestLoader):
    """Leaves out what only VIRTIO_MEM_TEST_ALL runs.

    These are the cases marked as slow and, of a class with in_ci, all that it
    does not name.
    """

    def getTestCaseNames(self, testCaseClass):
        names = super().getTestCaseNames(testCaseClass)
        if test_all():
            return names
        in_ci = getattr(testCaseClass, 'in_ci', names)
        return [name for name in names if name in in_ci and
                not hasattr(getattr(testCaseClass, name), 'slow')]


class TAPResult(unittest.TestResult):
    """Prints one line per case as it ends, and diagnostics behind it."""

    def __init__(self, nb_tests):
        super().__init__()
        self._started = 0
        self._used = 0
        self._failed_part = None
        print(f'1..{nb_tests}', flush=True)

    def startTest(self, test):
        super().startTest(test)
        self._started = time.monotonic()
        self._used = processor_time()
        self._failed_part = None

    def _report(self, verdict, test, suffix=''):
        name = test.id().rpartition('__main__.')[2]
        print(f'{verdict} {self.testsRun} - {name}{suffix}')
        taken = time.monotonic() - self._started
        used = processor_time() - self._used
        print(f'# {taken:.1f} s, {used:.1f} s of a processor', flush=True)

    def _report_failure(self, test, err):
        self._report('not ok', test)
        for line in ''.join(traceback.format_exception(*err)).splitlines():
            print(f'# {line}', flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self._report('ok', test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._report('ok', test, f' # SKIP {reason}')

    def addError(self, test, err):
        super().addError(test, err)
        self._report_failure(test, err)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._report_failure(test, err)

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self._report('not ok', test, ' # TODO expected to fail')

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self._report('ok', test, ' # TODO expected to fail')

    def addSubTest(self, test, subtest, err):
        # Once a part has failed, unittest says no more about the case.
        super().addSubTest(test, subtest, err)
        if err:
            self._failed_part = err

    def stopTest(self, test):
        super().stopTest(test)
        if self._failed_part:
            self._report_failure(test, self._failed_part)


class TAPRunner:
    """What unittest.main wants as testRunner."""

    def run(self, suite):
        """Run the tests of a suite."""
        result = TAPResult(suite.countTestCases())
        suite.run(result)
        return result


def main():
    """Run the cases of the calling script; -k PATTERN selects.

    A test that takes too long is terminated; it still has to clean up.

    QEMU's "make check-functional" first lets each test fetch what it needs from
    the network, which these do not, and wants a file as a sign of that.
    """
    if 'QEMU_TEST_PRECACHE' in os.environ:
        Path(os.environ['QEMU_TEST_PRECACHE']).touch()
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    unittest.main(testRunner=TAPRunner(), testLoader=Loader())
