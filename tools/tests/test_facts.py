# SPDX-License-Identifier: GPL-2.0-or-later
"""What is probed of the host is said, and is one answer or the other."""

import unittest
from pathlib import Path
from unittest import mock

import virtio_mem_facts
import virtio_mem_tap


class Facts(unittest.TestCase):

    def test_each_fact_is_one_line(self):
        facts = virtio_mem_facts.facts()
        self.assertGreater(len(facts), 3)
        for fact in facts:
            self.assertNotIn('\n', fact)

    def test_what_reading_costs_is_said(self):
        for costs, words in ((True, 'costs memory'), (False, 'costs nothing')):
            with mock.patch.object(virtio_mem_facts, 'reading_costs_memory',
                                   lambda costs=costs: costs):
                self.assertIn(words, ' '.join(virtio_mem_facts.facts()))

    def test_a_host_without_huge_pages_is_told(self):
        with mock.patch.object(virtio_mem_facts, 'HUGE_PAGES', Path('/none')):
            self.assertIn('huge pages: absent',
                          ' '.join(virtio_mem_facts.facts()))


if __name__ == '__main__':
    virtio_mem_tap.main()
