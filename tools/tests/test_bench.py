# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark's arithmetic: medians, bars, lock holds, lines of the table.

And that its groups fit together, without running any of them.
"""

import json
from pathlib import Path
import subprocess
import tempfile
import unittest

import backends
import bare_threads
import bench
import host
import measure
import p6_maximum
import p14_longest_wait
import trace_log
import virtio_mem_tap
from measure import Group, Results, Row


def results_of(group, ours, stock):
    """Results of a group of one row."""
    results = Results()
    name = group.rows[0].name
    for emulator, values in (('ours', ours), ('stock', stock)):
        for value in values:
            results.add(group, emulator, {name: value})
    return results


class Bars(unittest.TestCase):

    def verdict(self, bar, ours, stock):
        """Return the verdict over medians of one run."""
        group = Group('P0', '', (Row('row', 's', bar),), None)
        return results_of(group, [ours], [stock]).verdict(group,
                                                          group.rows[0])

    def test_absolute_bar_ignores_stock(self):
        self.assertEqual(self.verdict(measure.at_most(5), 5, 0.1), 'yes')
        self.assertEqual(self.verdict(measure.at_most(5), 5.01, 100), 'NO')

    def test_less_is_better(self):
        bar = measure.at_most_of_stock(0.6)
        self.assertEqual(self.verdict(bar, 6, 10), 'yes')
        self.assertEqual(self.verdict(bar, 6.1, 10), 'NO')

    def test_more_is_better(self):
        bar = measure.at_least_times_stock(1.8)
        self.assertEqual(self.verdict(bar, 18, 10), 'yes')
        self.assertEqual(self.verdict(bar, 17.9, 10), 'NO')

    def test_either_bar_will_do(self):
        bar = measure.either(measure.at_most(5),
                             measure.at_most_of_stock(0.02))
        self.assertEqual(self.verdict(bar, 4, 10), 'yes')
        self.assertEqual(self.verdict(bar, 10, 500), 'yes')
        self.assertEqual(self.verdict(bar, 11, 500), 'NO')

    def test_nothing_measured_meets_nothing(self):
        group = Group('P0', '', (Row('row', 's', measure.at_most(5)),), None)
        self.assertEqual(Results().verdict(group, group.rows[0]), 'no value')


class Table(unittest.TestCase):

    def setUp(self):
        self.group = Group(
            'P0', '', (Row('row', 's', measure.at_most_of_stock(1)),), None)

    def line(self, results):
        """Return the cells of the only line that has values."""
        return measure.table([self.group], results)[2].split()

    def test_median_spread_ratio_and_verdict(self):
        results = results_of(self.group, [1, 9, 2], [4, 4, 4])
        self.assertEqual(self.line(results)[:7],
                         ['P0', 'row', 's', '2', '±200%', '4', '±0%'])
        self.assertEqual(self.line(results)[7], '0.5')

    def test_what_must_not_happen_even_once(self):
        group = measure.Group('P0', '', (Row('row', '', measure.in_each_run(
            measure.at_most(0))),), None)
        for ours, verdict in (([0] * 9 + [1], 'NO'), ([0] * 10, 'yes')):
            results = results_of(group, ours, [0])
            self.assertEqual(results.verdict(group, group.rows[0]), verdict)

    def test_spread_beyond_the_bar_is_noise(self):
        for ours, stock, verdict in (
                ([1, 2, 2.9], [4], 'yes'), ([1, 2, 5.2], [4], 'noise'),
                ([4.9, 5, 5.1], [4], 'NO'), ([3, 5, 6], [4], 'noise'),
                ([2, 2, 2], [4, 1, 5], 'yes'),
                ([2, 2, 2], [4, 1, 6], 'noise')):
            results = results_of(self.group, ours, stock)
            self.assertEqual(self.line(results)[-1], verdict, (ours, stock))

    def test_broken_run_is_an_error_not_a_number(self):
        for broken in Results.EMULATORS:
            results = results_of(self.group, [1, 1], [4, 4])
            results.fail(self.group, broken, 'the guest fell over')
            line = ' '.join(self.line(results))
            self.assertIn('error', line)
            self.assertTrue(line.endswith('no value'), line)

    def test_run_without_all_rows_is_refused(self):
        with self.assertRaises(AssertionError):
            Results().add(self.group, 'ours', {'another row': 1})

    def test_columns_are_aligned(self):
        group = Group('P0', '', (Row('short', 's'), Row('a longer one', 's')),
                      None)
        results = Results()
        results.add(group, 'ours', {'short': 1, 'a longer one': 123456})
        lines = measure.table([group], results)
        self.assertEqual(lines[2].index('  1') + 2,
                         lines[3].index('123456') + 5)

    def test_json_has_all_values(self):
        results = results_of(self.group, [1, 3, 2], [4])
        (row,) = json.loads(json.dumps(measure.as_json([self.group],
                                                       results)))
        self.assertEqual(row['ours'], {'median': 2, 'values': [1, 3, 2]})
        self.assertEqual(row['met'], 'yes')


class LockHolds(unittest.TestCase):

    def holds(self, *lines):
        """Return the holds in a log, in milliseconds."""
        text = ''.join(f'17@10.{at:03}000:virtio_mem_{event}\n'
                       for at, event in lines)
        return [round(hold * 1000)
                for hold in trace_log.holds(trace_log.events(text))]

    def test_whole_request_without_work_away(self):
        self.assertEqual(self.holds(
            (1, 'plug_request addr=0x0 nb_blocks=64'),
            (61, 'send_response type=0')), [60])

    def test_work_away_from_the_lock_does_not_count(self):
        self.assertEqual(self.holds(
            (1, 'plug_request addr=0x0 nb_blocks=64'),
            (2, 'work_begin size=0x1 nb_threads=2 away=1'),
            (62, 'work_end ret=0'), (65, 'send_response type=0')), [1, 3])

    def test_work_in_place_counts(self):
        self.assertEqual(self.holds(
            (1, 'unplug_request addr=0x0 nb_blocks=64'),
            (2, 'work_begin size=0x1 nb_threads=2 away=0'),
            (62, 'work_end ret=0'), (65, 'send_response type=0')), [64])

    def test_other_events_do_not_matter(self):
        self.assertEqual(self.holds(
            (0, 'work_end ret=0'), (1, 'state_request addr=0x0 nb_blocks=1'),
            (2, 'resize old_size=0x0 new_size=0x1'),
            (3, 'state_response state=0'), (4, 'send_response type=0')), [3])


class Waits(unittest.TestCase):

    def test_time_between_question_and_answer(self):
        log = ('[I 0.000001] OPENED\n'
               '[R +1.000000] readl 0x7100\n[S +1.500000] OK 0x1\n'
               '[R +2.000000] readq 0x101fffffc\n'
               '[S +2.012000] OK 0x0000000000000000\n'
               '[R +3.000000] readq 0x103fffffc\n'
               '[S +3.000500] OK 0x0000000000000000\n')
        self.assertEqual([round(wait, 3)
                          for wait in p14_longest_wait.waits(log)], [12, 0.5])


class BareThreads(unittest.TestCase):

    def speeds(self, backend, nb_threads=2):
        """Measure a little memory."""
        with tempfile.TemporaryDirectory() as directory:
            run = bench.Run('ours', Path(directory))
            return bare_threads.measure(run, backend, 8 * measure.MiB,
                                        nb_threads)

    def test_they_populate_and_give_back(self):
        for backend in (backends.ANONYMOUS, backends.MEMFD):
            populate, discard = self.speeds(backend)
            self.assertGreater(populate, 0, backend)
            self.assertGreater(discard, 0, backend)

    def test_what_fails_has_no_speed(self):
        with self.assertRaises(subprocess.CalledProcessError):
            self.speeds(backends.MEMFD, nb_threads=0)


class Groups(unittest.TestCase):

    def test_keys_and_rows_are_unique(self):
        groups = bench.all_groups()
        keys = [group.key for group in groups]
        self.assertEqual(keys, ['P1', 'P2', 'P3', 'P4', 'P5', 'P6', 'P8',
                                'P10', 'P9', 'P11', 'P12', 'P13', 'P14'])
        for group in groups:
            names = [row.name for row in group.rows]
            self.assertEqual(len(set(names)), len(names), group.key)
            self.assertTrue(any(row.bar for row in group.rows), group.key)

    def test_groups_are_chosen_by_key(self):
        self.assertEqual([group.key for group in bench.choose('p10,P1')],
                         ['P1', 'P10'])
        with self.assertRaisesRegex(SystemExit, 'no P7; there are P1'):
            bench.choose('P1,P7')

    def test_nobody_is_always_first(self):
        self.assertEqual([measure.in_turn(('ours', 'stock'), number)
                          for number in range(3)],
                         [['ours', 'stock'], ['stock', 'ours'],
                          ['ours', 'stock']])

    def test_stock_is_spared_what_tells_nothing(self):
        every, once, never = (
            measure.Group('P0', 'title', (), None, once_is_enough=once,
                          ours_only=only)
            for once, only in ((False, False), (True, False), (False, True)))
        for group, runs in ((every, [True, True]), (once, [True, False]),
                            (never, [False, False])):
            self.assertEqual([bench.takes_part('stock', group, number)
                              for number in range(2)], runs)
            self.assertTrue(bench.takes_part('ours', group, 1))

    def test_maximum_has_a_value_for_each_row(self):
        found = p6_maximum.derive(
            {row.name: 2 for row in p6_maximum.ROWS},
            {size: 1 for size in p6_maximum.SIZES})
        self.assertEqual(set(found), {row.name for row in p6_maximum.ROWS})

    def test_settings_are_put_back(self):
        with host.environment(BENCH_SIZE='1G'):
            self.assertEqual(host.size(), 1 << 30)
            with host.environment(BENCH_SIZE='2G'):
                self.assertEqual(host.size(), 2 << 30)
            self.assertEqual(host.size(), 1 << 30)


if __name__ == '__main__':
    virtio_mem_tap.main()
