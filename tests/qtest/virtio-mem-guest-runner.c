/*
 * Registers tests of the tiny guest once per variant, and runs them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/userfaultfd.h"
#include "virtio-mem-guest-internal.h"

/*
 * Each property of ring and interrupts at least once alone, and together.
 * The vIOMMU is asked for with INTx: a message would be translated, too.
 */
const VirtioMemVariant virtio_mem_variants[] = {
    { .name = "" },
    { .name = "intx", .intx = true },
    { .name = "indirect", .indirect = true },
    { .name = "event-idx", .event_idx = true },
    { .name = "packed", .packed = true },
    { .name = "packed-indirect-event-idx", .packed = true, .indirect = true,
      .event_idx = true },
    { .name = "readable-unplugged", .zeropage = true, .indirect = true,
      .event_idx = true, .intx = true, .pc = true },
    { .name = "iommu", .iommu = true, .intx = true, .pc = true },
};
const size_t virtio_mem_nb_variants = ARRAY_SIZE(virtio_mem_variants);

const VirtioMemVariant *virtio_mem_current_variant = &virtio_mem_variants[0];

typedef struct RunnerCase {
    const VirtioMemTest *test;
    const VirtioMemVariant *variant;
} RunnerCase;

/* The guest that the last sharing test left behind, if any. */
static VirtioMemGuest *runner_idle;

static void runner_drop_idle(void)
{
    if (runner_idle) {
        virtio_mem_guest_stop(runner_idle);
        runner_idle = NULL;
    }
}

static VirtioMemGuest *runner_get_guest(const VirtioMemTest *test, bool share)
{
    VirtioMemGuest *vm = runner_idle;

    if (vm && share && vm->variant == virtio_mem_current_variant) {
        runner_idle = NULL;
        virtio_mem_guest_recycle(vm);
        return vm;
    }
    runner_drop_idle();
    return virtio_mem_guest_start(test->options);
}

static void runner_run_guest(const VirtioMemTest *test)
{
    bool share = !test->options && !test->fresh;
    VirtioMemGuest *vm = runner_get_guest(test, share);

    test->fn(vm);
    if (!vm->opts.no_invariants && vm->pci) {
        if (!vm->running) {
            virtio_mem_restart_driver(vm);
        }
        virtio_mem_check_invariants(vm);
    }
    if (share) {
        runner_idle = vm;
    } else {
        virtio_mem_guest_stop(vm);
    }
}

/* QEMU must be able to, which runs with the same rights.  NULL if it can. */
static char *runner_why_no_guard(void)
{
    const int fd = uffd_create_fd(0, true);

    if (fd < 0) {
        return g_strdup_printf("no userfaultfd for faults of the kernel: %s",
                               strerror(errno));
    }
    uffd_close_fd(fd);
    return NULL;
}

/* Nothing else has VT-d, and drivers that read unplugged memory. */
static bool runner_needs_pc(const VirtioMemTest *test)
{
    const VirtioMemOptions *opts = test->options;

    return test->pc ||
           (opts && (opts->machine ||
                     (opts->variant && (opts->variant->zeropage ||
                                        opts->variant->iommu)) ||
                     (opts->device && strstr(opts->device,
                                             "unplugged-inaccessible"))));
}

static void runner_run(const void *opaque)
{
    const RunnerCase *c = opaque;
    g_autofree char *no_guard = c->test->guard ? runner_why_no_guard() : NULL;

    virtio_mem_current_variant = c->variant;
    if (no_guard) {
        g_test_skip(no_guard);
    } else if (runner_needs_pc(c->test) && !virtio_mem_machine_is_pc()) {
        g_test_skip("about a PC");
    } else if (c->variant->iommu && !qtest_has_device("intel-iommu")) {
        g_test_skip("no intel-iommu");
    } else if (c->test->no_guest) {
        c->test->fn(NULL);
    } else {
        runner_run_guest(c->test);
    }
    virtio_mem_current_variant = &virtio_mem_variants[0];
}

static void runner_add(const VirtioMemTest *test,
                       const VirtioMemVariant *variant)
{
    RunnerCase *c = g_new(RunnerCase, 1);
    g_autofree char *path = g_strdup_printf("/virtio-mem/%s%s%s",
                                            variant->name,
                                            *variant->name ? "/" : "",
                                            test->path);

    *c = (RunnerCase){ .test = test, .variant = variant };
    qtest_add_data_func_full(path, c, runner_run, g_free);
}

static bool runner_needs_all_variants(const VirtioMemTest *test)
{
    return test->no_guest ? test->each_variant : !test->once;
}

void virtio_mem_add_tests(const VirtioMemTest *tests, size_t nb)
{
    atexit(runner_drop_idle);
    for (size_t i = 0; i < nb; i++) {
        const size_t nb_variants = runner_needs_all_variants(&tests[i])
                                   ? virtio_mem_nb_variants : 1;

        for (size_t v = 0; v < nb_variants; v++) {
            if (!virtio_mem_variants[v].pc || virtio_mem_machine_is_pc()) {
                runner_add(&tests[i], &virtio_mem_variants[v]);
            }
        }
    }
}
