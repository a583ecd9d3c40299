#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Lay the files of this repository over a QEMU tree.

usage: tools/overlay.py BASE PROJECT TREE

A file at path P of PROJECT is the whole file P of the tree: TREE/P becomes
a link to it, so that an edit here rebuilds there.  P.patch and P.TOPIC.patch
are applied to BASE/P with no fuzz.  Two files hold named units (see units.py).
TREE is a copy of BASE, made here when it is missing.  Everything is computed
before anything is written, and a file that is already right is not touched:
its time stays, and nothing that needs it is built again.

What is different for another series of QEMU's releases lies in a folder of its
own: for a BASE whose VERSION is 11.1.x, bases/11.1/P of PROJECT stands in the
place of P or P.patch, bases/11.1/P.patch in that of P.patch; an empty patch
there stands for none.

Of a checkout, only what git knows is part of the project: a core dump or an
editor's copy is not, nor is a new file before "git add", which is said.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import units

# Of the project, not of QEMU's tree.  So is every dot file.
OWN = {'README.md', 'CONTRIBUTING.md', 'COPYING', 'Makefile',
       'meson.build', 'meson.options',
       'build', 'tools', 'bases', 'tests/bench',
       'tests/functional/test_virtio_mem_demo.py',
       'tests/functional/test_virtio_mem_install.py'}
# Leftovers of editors and of failed patches.
IGNORED = re.compile(r'(~|\.orig|\.rej|\.pyc)$|^__pycache__$')
# QEMU's own implementation of this device, which ours replaces.
REMOVED = ['hw/virtio/virtio-mem.c', 'hw/virtio/virtio-mem-pci.c',
           'hw/virtio/virtio-mem-pci.h', 'include/hw/virtio/virtio-mem.h']


class OverlayError(Exception):
    """The overlay does not fit the base."""


def git_files(project):
    """The paths that git knows; None if @project is no checkout."""
    if not (project / '.git').exists():
        return None
    run = subprocess.run(['git', '-C', project, 'ls-files', '-z'], text=True,
                         check=False, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    if run.returncode:
        raise OverlayError(f'git does not list the files of {project}: '
                           f'{run.stderr.strip()}')
    return set(run.stdout.split('\0'))


def overlay_files(project, folder=''):
    """The paths, relative to @project/@folder, of what belongs to the overlay.
    """
    known = git_files(project)
    return [path for path in present_files(project / folder)
            if known is None or str(Path(folder, path)) in known]


def folder_of(base):
    """Where a project has what is different for the series of @base."""
    version = (base / 'VERSION').read_text().split('.')
    return f'bases/{".".join(version[:2])}'


def sources(base, project):
    """Return {path that a file of the overlay has: where it is in @project}.

    That is the same path, or one below the folder for the series of @base.
    """
    result = {path: path for path in overlay_files(project)}
    folder = folder_of(base)
    for path in overlay_files(project, folder):
        source = f'{folder}/{path}'
        if path.endswith('.patch') and not (project / source).stat().st_size:
            if path not in result:
                raise OverlayError(f'{source} is empty, to be in the place of '
                                   f'{path}, but there is none')
            del result[path]
            continue
        if not path.endswith('.patch') and f'{path}.patch' in result:
            del result[f'{path}.patch']
        result[path] = source
    return result


def strangers(base, project):
    """The paths of what would belong to the overlay if git knew it."""
    return sorted(str(Path(folder, path)) for folder in ('', folder_of(base))
                  for path in {*present_files(project / folder)} -
                  {*overlay_files(project, folder)})


def present_files(project):
    """The paths, relative to @project, of all that may be overlay."""
    for top, dirs, files in os.walk(project):
        top = Path(top).relative_to(project)
        own = {n for n in dirs + files
               if n.startswith('.') or IGNORED.search(n)
               or str(top / n) in OWN}
        dirs[:] = sorted(set(dirs) - own)
        yield from (str(top / n) for n in sorted(set(files) - own))


def target(project, name, source):
    """The path that the patch @name edits: P.patch and P.TOPIC.patch edit P.

    Edits of one file that have nothing to do with each other are patches of
    their own, and each of them applies to the base alone.
    """
    targets = re.findall(r'^\+\+\+ (?:b/)?(\S+)',
                         (project / source).read_text(), re.M)
    if len(targets) != 1 or not re.fullmatch(
            r'(\.[\w-]+)?\.patch', name.removeprefix(targets[0])):
        raise OverlayError(f'{source} must edit {name.removesuffix(".patch")} '
                           'and nothing else, it names: '
                           f'{", ".join(targets) or "no file"}')
    return targets[0]


def patched(base, path, project, name, text=None):
    """@text, by default that of @base/@path, with a patch applied."""
    if not (base / path).is_file():
        raise OverlayError(f'{name}: QEMU has no file {path}')
    patch = (project / name).read_text()
    with tempfile.TemporaryDirectory() as tmp:
        before, after = Path(tmp, 'before'), Path(tmp, 'after')
        before.write_text((base / path).read_text() if text is None else text)
        run = subprocess.run(
            ['patch', '--fuzz=0', '--reject-file=-', f'--output={after}',
             str(before)], input=patch, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if run.returncode == 0:
            return after.read_text()
    hunks = re.findall(r'^@@ .*', patch, re.M)
    failed = [int(n) for n in re.findall(r'Hunk #(\d+) FAILED', run.stdout)]
    what = '; '.join(f'hunk {n} ({hunks[n - 1]})' for n in failed)
    raise OverlayError(
        f'{name}: {what or run.stdout.strip()} does not apply to {path} '
        f'of QEMU {(base / "VERSION").read_text().strip()}. Fix the patch '
        f'so that it fits {base / path}')


def plan(base, project):
    """Return {path: link target or text or None (to be removed)}."""
    result = {path: None for path in REMOVED}
    patches = []
    for name, source in sources(base, project).items():
        if name in units.FORMATS:
            result[name] = units.merge(name, (base / name).read_text(),
                                       (project / source).read_text())
        elif name.endswith('.patch'):
            patches.append((name, source))
        else:
            result[name] = project / source
    for name, source in patches:
        path = target(project, name, source)
        if isinstance(result.get(path), Path):
            raise OverlayError(f'both {path} and {source} exist')
        result[path] = patched(base, path, project, source, result.get(path))
    return result


def patches_of(base, project):
    """Return {path: {name of a patch of it: where that is in @project}}."""
    result = {}
    for name, source in sources(base, project).items():
        if name.endswith('.patch'):
            result.setdefault(target(project, name, source), {})[name] = source
    return result


def put(path, wanted):
    """Make @path a link, a file of this text, or absent. True if changed."""
    if isinstance(wanted, Path):
        target = os.path.relpath(wanted, os.path.realpath(path.parent))
        if path.is_symlink() and os.readlink(path) == target:
            return False
    elif wanted is None:
        if not os.path.lexists(path):
            return False
    elif path.is_file() and not path.is_symlink() \
            and path.read_text() == wanted:
        return False
    if os.path.lexists(path):
        path.unlink()
    if isinstance(wanted, Path):
        path.symlink_to(target)
        # Newer than what was built from the file that stood here before.
        os.utime(path)
    elif wanted is not None:
        path.write_text(wanted)
    return True


def restore(base, tree, path):
    """Undo an overlay that is gone; the new time makes ninja notice."""
    put(tree / path, None)
    if (base / path).is_file():
        shutil.copyfile(base / path, tree / path)
        shutil.copymode(base / path, tree / path)


def copy_base(base, tree):
    """A fresh copy of the base, complete or not there at all."""
    new = tree.with_suffix('.new')
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(base.resolve(), new, symlinks=True, ignore=lambda top, _:
                    {'.git', 'build'} if top == str(base.resolve()) else ())
    new.rename(tree)


def lay_over(base, project, tree):
    """Bring @tree up to date; return the number of paths that changed."""
    wanted = plan(base, project)
    listing = tree / '.overlay'
    identity = f'{base.resolve()} {(base / "VERSION").stat().st_mtime_ns}'
    before = listing.read_text().splitlines() if listing.is_file() else []
    if before[:1] != [identity]:
        copy_base(base, tree)
        before = [identity]
    listing.write_text('\n'.join(
        [identity] + sorted({*before[1:], *wanted})) + '\n')
    gone = set(before[1:]) - set(wanted)
    for path in gone:
        restore(base, tree, path)
    for path in wanted:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
    changed = sum([put(tree / path, what) for path, what in wanted.items()])
    listing.write_text('\n'.join([identity] + sorted(wanted)) + '\n')
    return changed + len(gone)


def main():
    if len(sys.argv) != 4:
        sys.exit('usage: tools/overlay BASE PROJECT TREE')
    base, project, tree = (Path(os.path.abspath(a)) for a in sys.argv[1:])
    try:
        changed = lay_over(base, project, tree)
        unknown = strangers(base, project)
    except (OverlayError, units.UnitError) as error:
        sys.exit(f'overlay: error: {error}')
    if unknown:
        print('overlay: left out, because git does not know it ("git add" '
              f'makes it part of the tree): {" ".join(unknown)}')
    if changed:
        print(f'overlay: {changed} files of the tree brought up to date')


if __name__ == '__main__':
    main()
