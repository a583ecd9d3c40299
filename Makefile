# SPDX-License-Identifier: GPL-2.0-or-later
#
# The short names. What they do is in tools/ and meson.build; everything that
# is made lies below build/.

export BOOTSTRAP QEMU_SRC GUEST_KERNEL GUEST_INITRD OLD_GUEST_KERNEL \
	OLD_GUEST_INITRD ARM64_GUEST_KERNEL ARM64_GUEST_INITRD \
	ARM64_16K_GUEST_KERNEL ARM64_16K_GUEST_INITRD S390X_GUEST_KERNEL \
	S390X_GUEST_INITRD ACCEL KEEP RUNS BENCH_SIZE BENCH_DEVICE \
	BENCH_PAUSES PREFIX DESTDIR CONFIGURE

MAKEFLAGS += --no-print-directory
FETCHED = $(wildcard build/apt build/apt-*) \
	$(addprefix build/,download pkg debian-qemu base)

all: tree                   ## build QEMU with this device
	tools/build qemu

install: tree               ## a QEMU for this host: PREFIX= DESTDIR=
	tools/bootstrap --install
	tools/install

uninstall:                  ## remove what install put there: PREFIX= DESTDIR=
	tools/install --uninstall

demo: all guest             ## resize a live Linux guest before your eyes
	tools/demo

lint:                       ## check what needs no build: style, pages, floors
	tools/bootstrap --lint
	tools/lint

unit: tree                  ## the unit tests only: no guest, no system emulator
	tools/check --suite unit $(T)

qtest: tree                 ## tests with a tiny guest; a part: make qtest T=X
	tools/check --suite qtest $(T)

check: all guest maybe-old-guest ## run all tests; a part: make check T=PATTERN
	tools/bootstrap --tests --docs $(if $(VIRTIO_MEM_TEST_ALL),--install)
	tools/check $(T)

check-all: export VIRTIO_MEM_TEST_ALL = 1
check-all: stock peers $(addprefix maybe-guest-,arm64 arm64-16k s390x)
check-all: check fuzz check-tsan ## all of "make check", and what takes hours

check-asan: tree            ## unit tests and qtests with ASan and UBSan
	tools/check --suite asan $(T)

check-tsan: tree            ## unit tests with threads under TSan, by clang
	tools/bootstrap --fuzz
	tools/check --suite tsan $(T)

check-compile: tree         ## compile for the other machines and configurations
	tools/check --suite compile $(T)

coverage: $(if $(ALL),guest old-guest)
coverage: tree              ## count what tests reach; ALL=1: also in Linux
	tools/bootstrap --coverage $(if $(ALL),--tests)
	tools/coverage $(if $(ALL),--linux) $(T)

fuzz: tree                  ## parts of the device under libFuzzer, by clang
	tools/bootstrap --fuzz
	tools/check --suite fuzz $(T)

mutate: tree                ## faults in the device: COUNT= SEED= FILES= ALL=1
	tools/mutate $(if $(COUNT),--count $(COUNT)) \
		$(if $(SEED),--seed $(SEED)) $(if $(ALL),--all) $(FILES)

docs: tree                  ## build QEMU's manual with our pages
	tools/bootstrap --docs
	tools/docs

stock: tree                 ## build QEMU as Debian ships it, to compare with
	tools/build stock

stock-next:                 ## fetch the newest QEMU of Debian's, as a program
	tools/fetch stock-next

libvirt-next:               ## fetch the newest libvirt of Debian's, for tests
	tools/fetch libvirt-next

# The mirror may lack them: their tests then say so, and all others go on.
peers:
	-tools/fetch stock-next
	-tools/fetch libvirt-next

series: $(if $(BASE),,tree) ## make a patch series for QEMU: build/series
	tools/series $(BASE)

dsc: series                 ## Debian's source package with the series
	tools/dsc

series-check: series        ## check each patch of it: style, build, tests
	tools/series-check
	tools/check --suite compile

series-style: series        ## check the style of each patch, build nothing
	tools/series-check --style

bench: all stock guest      ## compare with stock; a part: make bench B=P1,P4
	tools/bootstrap --bench
	/usr/bin/python3 tests/bench/bench.py $(B)

clean:                      ## remove what was built, keep what was fetched
	rm -rf $(filter-out $(FETCHED),$(wildcard build/*))

distclean:                  ## remove build/ but for downloads; ALL=1: them, too
ifeq ($(ALL),1)
	rm -rf build
else
	rm -rf $(filter-out build/download,$(wildcard build/* build/.[!.]*))
endif

help:                       ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 24
	@echo '  BOOTSTRAP=no          install no packages'
	@echo '  QEMU_SRC=DIR          use another unpacked QEMU 10.0.x'
	@echo '  BASE=DIR              for series: a git tree of QEMU 10.0.x'
	@echo '  CONFIGURE=...         for install: more options for configure'
	@echo '  SIZE=2G ACCEL=kvm KEEP=1               for demo: see tools/demo'
	@echo '  RUNS=5 BENCH_SIZE=8G                   for bench'
	@echo '  GUEST_KERNEL=FILE GUEST_INITRD=FILE    use another guest'

tree:
	tools/bootstrap
	tools/prepare

guest:
ifeq ($(and $(GUEST_KERNEL),$(GUEST_INITRD)),)
	tools/fetch guest
	tools/guest-image
endif

old-guest:
ifeq ($(and $(OLD_GUEST_KERNEL),$(OLD_GUEST_INITRD)),)
	tools/fetch old-guest
	tools/guest-image build/old-guest
endif

guest-arm64:
ifeq ($(and $(ARM64_GUEST_KERNEL),$(ARM64_GUEST_INITRD)),)
	tools/fetch guest-arm64
	tools/guest-image build/guest-arm64
endif

guest-arm64-16k:
ifeq ($(and $(ARM64_16K_GUEST_KERNEL),$(ARM64_16K_GUEST_INITRD)),)
	tools/fetch guest-arm64-16k
	tools/guest-image build/guest-arm64-16k
endif

guest-s390x:
ifeq ($(and $(S390X_GUEST_KERNEL),$(S390X_GUEST_INITRD)),)
	tools/bootstrap --cross
	tools/fetch guest-s390x
	tools/guest-driver build/guest-s390x
	tools/guest-image build/guest-s390x
endif

# What cannot be had says what was tried. All else goes on, and the tests that
# need it are skipped, which is a failure where skips need a reason.
maybe-%:
	-@$(MAKE) $*

# Both fetch; ninja and Meson use all processors by themselves.
.NOTPARALLEL:
.PHONY: all demo check check-all check-asan check-tsan check-compile coverage \
	docs stock fuzz mutate series series-check bench clean distclean help tree \
	guest old-guest lint unit qtest series-style guest-arm64 guest-arm64-16k \
	guest-s390x stock-next libvirt-next peers dsc install uninstall
