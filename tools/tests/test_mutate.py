# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults are small, the same for a seed, and spread over the files."""

import contextlib
import io
import tempfile
import tomllib
import unittest
from pathlib import Path
from unittest import mock

import program
import virtio_mem_tap

mutate = program.load('mutate')

SOURCE = '''\
#define LIMIT(a, b) \\
    ((a) < (b))
/* a < b */
static bool change(Twin *twin, int i)
{
    int more = i + 1;

    assert(i < 3 && twin);
    trace_change(i - 1);
    if (more <= twin->max) {
        say("a < b",
            'x');
    }
    g_free(twin->text);
    g_clear_pointer(&twin->name, g_free);
    g_clear_pointer(&twin->other, twin_end);
    twin->nb += 2;
    return true;
}
type_init(change)
'''


class Mutate(unittest.TestCase):

    def shown(self, text=SOURCE):
        """Return all faults of a file."""
        with tempfile.TemporaryDirectory() as tmp:
            path = Path(tmp, 'virtio-mem-x.c')
            path.write_text(text)
            return [mutate.Shown(path, fault)
                    for fault in mutate.faults_of(text)]

    def test_all_faults_of_a_file(self):
        self.assertEqual([(shown.number, shown.after)
                          for shown in self.shown()], [
            (6, 'int more = i - 1;'),
            (6, 'int more = i + 2;'),
            (10, 'if (!(more <= twin->max)) {'),
            (10, 'if (more < twin->max) {'),
            (11, ';'),
            (16, ';'),
            (17, ';'),
            (17, 'twin->nb -= 2;'),
            (18, 'return false;')])

    @mock.patch('subprocess.run')
    def test_unit_tests_of_a_library(self, run):
        run.return_value.stdout = (
            'tests/unit/libx.a:\n  input: STATIC_LINKER\n'
            '    tests/unit/libx.a.p/x.c.o\n  outputs:\n'
            '    tests/unit/test-a\n    tests/unit/test-c.p/symbols\n')
        self.assertEqual(mutate.unit_tests([
            'libsystem.a.p/x.c.o', 'tests/unit/libx.a.p/x.c.o',
            'tests/unit/test-b.p/x.c.o']),
            ['tests/unit/test-a', 'tests/unit/test-b'])

    def test_lines_stay_where_they_are(self):
        for shown in self.shown():
            self.assertEqual(shown.text.count('\n'), SOURCE.count('\n'))

    def test_seed_chooses_and_files_take_turns(self):
        with tempfile.TemporaryDirectory() as tmp:
            paths = [Path(tmp, name) for name in 'abc']
            for path in paths:
                path.write_text(SOURCE)
            one, again, other = [list(mutate.choose(paths, seed))
                                 for seed in (1, 1, 2)]
        self.assertEqual(one, again)
        self.assertNotEqual(one, other)
        self.assertEqual(sorted(one), sorted(other))
        self.assertEqual([path for path, _ in one[:6]], paths * 2)

    def test_survivors_count_unless_there_is_a_reason(self):
        rules = {'equal': [{'file': 'virtio-mem-x.c', 'before': '+ 1',
                            'after': '+ 2', 'reason': 'why'}]}
        _, explained, survivor, noticed = self.shown()[:4]
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            nb_left = mutate.report([(explained, ''), (survivor, ''),
                                     (noticed, 'test')], rules)
        self.assertEqual(nb_left, 1)
        self.assertIn('+ int more = i + 2;\n    (why)', said.getvalue())
        self.assertIn('1 of 3 faults noticed, 33.3 %; of the others 1 have',
                      said.getvalue())

    def test_reason_may_name_the_line_before(self):
        rule = {'file': 'virtio-mem-x.c', 'before': 'return true;',
                'after': 'return false;', 'reason': 'why'}
        shown = self.shown()[-1]
        for follows, reason in ('twin->nb += 2;', 'why'), ('twin->nb -=', ''):
            self.assertEqual(shown.reason(
                {'equal': [{**rule, 'follows': follows}]}), reason)

    def test_each_file_has_tests_that_exist(self):
        rules = tomllib.loads(mutate.RULES.read_text())
        device = mutate.ROOT / 'hw/virtio'
        self.assertEqual(sorted(rules['qtests']), sorted(
            path.name for path in device.glob('virtio-mem*.c')))
        for name in {name for names in rules['qtests'].values()
                     for name in names}:
            self.assertTrue((mutate.ROOT / 'tests/qtest' /
                             f'virtio-mem-{name}-test.c').exists(), name)

    def test_reasons_are_of_code_that_is_there(self):
        for rule in tomllib.loads(mutate.RULES.read_text()).get('equal', []):
            path = mutate.ROOT / 'hw/virtio' / rule['file']
            self.assertTrue(any(
                shown.reason({'equal': [rule]}) for shown in
                (mutate.Shown(path, fault) for fault in
                 mutate.faults_of(path.read_text()))), rule)


if __name__ == '__main__':
    virtio_mem_tap.main()
