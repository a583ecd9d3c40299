# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the shell tools share: where things are, how they speak, and the
# environment in which QEMU is configured and built. Source it, do not run it.
# shellcheck shell=bash

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# BUILD may be set, so that the tools' own tests work in a place of theirs.
BUILD=${BUILD:-$ROOT/build}
# Read by the scripts that source this file.
# shellcheck disable=SC2034
{
    BASE=$BUILD/base    # QEMU as Debian ships it, never touched
    TREE=$BUILD/tree    # the same with the overlay of this repository
    PKG=$BUILD/pkg      # one directory per unpacked package
    PYTHON=/usr/bin/python3
}

say() {
    printf '%s: %s\n' "${0##*/}" "$*"
}

die() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# apt_dir ARCH [SUITE]: what tools/apt-isolated keeps of an architecture of
# Debian's, and of a suite that is asked in addition.
apt_dir() {
    local suffix=${1/amd64/}
    echo "$BUILD/apt${suffix:+-$suffix}${2:+-$2}"
}

# One at a time: two runs of ninja in one directory spoil each other's work. A
# tool that another one calls is covered by its caller's lock.
lock() {
    [ -z "${BUILD_LOCKED:-}" ] || return 0
    mkdir -p "$BUILD"
    exec 9>"$BUILD/lock"
    flock --nonblock 9 || {
        say "waiting for another make in $BUILD"
        flock 9
    }
    export BUILD_LOCKED=1
}

# Meson 1.5 or newer runs where it was unpacked: Debian 12's own is too old.
# ccache must not see where a clone lies, or a second clone misses it.
build_env() {
    export PYTHONPATH=$PKG/meson/usr/lib/python3/dist-packages
    export PATH=$PKG/meson/usr/bin:$PATH
    export CCACHE_BASEDIR=$ROOT CCACHE_NOHASHDIR=1
}
