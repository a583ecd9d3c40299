# SPDX-License-Identifier: GPL-2.0-or-later
"""A made-up project, with a series of two patches."""

import os
from unittest import mock

OURS = 'hw/virtio/virtio-mem.c'
TEXT = 'int ours;\n' * 30


def write(top, files):
    for path, text in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)


def edit(path, old, new):
    return f'Why.\n\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-{old}\n+{new}\n'


def files(**more):
    """Its files; what is in @more is in the second patch, too."""
    second = ', '.join(f'"{path}"' for path in (OURS, *more))
    return {OURS: TEXT, **more,
            'notes.patch': edit('notes', 'old', 'new'),
            'tools/off.patch': edit('Kconfig', 'on', 'off'),
            'tools/series.toml': f'''
                growing = []
                cover = {{subject = "the whole", body = "Why."}}
                [[patch]]
                subject = "one"
                body = "first"
                files = ["notes"]
                [[patch]]
                subject = "two"
                body = "second"
                files = [{second}]
                '''}


def patches(series, project, result):
    """What makes @series that of @project, in @result, with commits by T."""
    return (
        mock.patch.dict(os.environ, {
            f'GIT_{role}_{what}': 'T' for role in ('AUTHOR', 'COMMITTER')
            for what in ('NAME', 'EMAIL')}),
        mock.patch.multiple(
            series, ROOT=project, SERIES=result, TREE=result / 'tree',
            EDIT=project / 'tools/off.patch', COMPLETE=OURS))
