# SPDX-License-Identifier: GPL-2.0-or-later
"""Named units replace QEMU's unit of the same name, or join the file."""

import unittest

import units
import virtio_mem_tap

QAPI = """\
# A schema.

##
# @First:
#
# @a: a number
##
{ 'struct': 'First',
  'data': { 'a': 'int',
            'b': [ 'Second' ] } }

##
# @Second:
##
{ 'enum': 'Second', 'data': [ 'x', 'y' ] }

{ 'command': 'undocumented' }
"""

OURS = """\
# Licence and explanations stay here.

# unit: replaces
##
# @First:
#
# @c: ours
##
{ 'struct': 'First',
  'data': { 'c': 'int' } }

# unit: adds
##
# @THIRD:
##
{ 'event': 'THIRD' }
"""

SECTIONS = """\
The list
--------
        M: is described here

one
M: A
F: a.c

two
M: B
F: b.c
"""


class QapiUnits(unittest.TestCase):

    def test_unit_is_replaced_and_the_rest_untouched(self):
        merged = units.merge('qapi/machine.json', QAPI, OURS)
        self.assertIn("# @c: ours\n##\n{ 'struct': 'First',\n"
                      "  'data': { 'c': 'int' } }\n", merged)
        self.assertNotIn('a number', merged)
        self.assertTrue(merged.endswith(QAPI[QAPI.index('##\n# @Second'):]))
        self.assertNotIn('Licence', merged)
        self.assertNotIn('unit:', merged)

    def test_added_unit_goes_behind_the_unit_before_it(self):
        merged = units.merge('qapi/machine.json', QAPI, OURS)
        order = [merged.index(n) for n in ("'First',", "'THIRD'", "'Second',")]
        self.assertEqual(order, sorted(order))

    def test_first_added_unit_goes_to_the_end(self):
        ours = OURS[OURS.index('# unit: adds'):]
        merged = units.merge('qapi/machine.json', QAPI, ours)
        self.assertEqual(merged, QAPI + "\n##\n# @THIRD:\n##\n"
                         "{ 'event': 'THIRD' }\n")

    def test_unit_to_replace_that_qemu_has_not_is_refused(self):
        ours = OURS.replace('First', 'Renamed')
        with self.assertRaisesRegex(units.UnitError, 'Renamed.*has none'):
            units.merge('qapi/machine.json', QAPI, ours)

    def test_unit_to_add_that_qemu_has_is_refused(self):
        ours = OURS.replace('unit: replaces', 'unit: adds')
        with self.assertRaisesRegex(units.UnitError, 'First.*has one'):
            units.merge('qapi/machine.json', QAPI, ours)

    def test_unit_without_marker_is_refused(self):
        ours = OURS.replace('# unit: adds\n', '')
        with self.assertRaisesRegex(units.UnitError, 'THIRD needs a line'):
            units.merge('qapi/machine.json', QAPI, ours)

    def test_marker_without_unit_is_refused(self):
        with self.assertRaisesRegex(units.UnitError, 'no unit follows'):
            units.merge('qapi/machine.json', QAPI, OURS + '\n# unit: adds\n')

    def test_unknown_verb_is_refused(self):
        ours = OURS.replace('unit: adds', 'unit: removes')
        with self.assertRaisesRegex(units.UnitError, 'either "replaces"'):
            units.merge('qapi/machine.json', QAPI, ours)


class MaintainersUnits(unittest.TestCase):

    def test_section_is_replaced(self):
        merged = units.merge('MAINTAINERS', SECTIONS,
                             '# unit: replaces\none\nM: C\nF: c.c\n')
        self.assertEqual(merged, SECTIONS.replace('M: A\nF: a.c',
                                                  'M: C\nF: c.c'))

    def test_section_is_added(self):
        merged = units.merge('MAINTAINERS', SECTIONS,
                             '# unit: adds\nthree\nM: C\n')
        self.assertEqual(merged, SECTIONS + '\nthree\nM: C\n')


if __name__ == '__main__':
    virtio_mem_tap.main()
