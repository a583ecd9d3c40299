# SPDX-License-Identifier: GPL-2.0-or-later
#
# The short names. What they do is in tools/ and meson.build; "make help"
# lists them. QEMU itself is built below build/.

export QEMU_SRC GUEST_KERNEL GUEST_INITRD

MAKEFLAGS += --no-print-directory

all: tree
	tools/build qemu

tree:
	tools/prepare

stock: tree
	tools/build stock

.PHONY: all tree stock
