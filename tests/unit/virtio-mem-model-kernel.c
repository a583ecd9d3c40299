/*
 * A model of all that runs around a virtio-mem device: the kernel.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/userfaultfd.h"
#include "qapi/error.h"
#include "hw/virtio/virtio-mem-backing.h"
#include "hw/virtio/virtio-mem-guard-budget.h"
#include "virtio-mem-model-calls.h"
#include "virtio-mem-model-host.h"

#define NOWHERE (-1)

/* Of MODEL_LATE_WATCH. */
#define LATE_STEPS 6

static struct {
    GQueue faults;              /* struct uffd_msg, not read yet */
    int waits_at[MODEL_ROGUES]; /* a block, or NOWHERE */
    int late[MODEL_BLOCKS];     /* so many steps until it is watched */
    bool runs;
} kernel;

void model_kernel_begin(void)
{
    memset(model.pages, 0, sizeof(model.pages));
    memset(kernel.late, 0, sizeof(kernel.late));
    memset(kernel.waits_at, NOWHERE, sizeof(kernel.waits_at));
    kernel.runs = false;
}

/* --- vCPUs that wait --- */

static unsigned page_of(const void *host)
{
    return ((uint8_t *)host - MODEL_HOST) / MODEL_BLOCK;
}

/* The first block of which the first page is at @host or after it. */
static unsigned first_page_of(const void *host)
{
    return DIV_ROUND_UP((uint8_t *)host - MODEL_HOST, MODEL_BLOCK);
}

static void kernel_wake(unsigned first, unsigned end)
{
    for (unsigned i = 0; i < MODEL_ROGUES; i++) {
        if (kernel.waits_at[i] >= first && kernel.waits_at[i] < end &&
            model.seed != MODEL_NO_WAKE) {
            kernel.waits_at[i] = NOWHERE;
        }
    }
    for (GList *link = kernel.faults.head, *next; link; link = next) {
        struct uffd_msg *msg = link->data;
        const unsigned page = page_of((void *)(uintptr_t)
                                      msg->arg.pagefault.address);

        next = link->next;
        if (page >= first && page < end) {
            g_free(msg);
            g_queue_delete_link(&kernel.faults, link);
        }
    }
}

bool model_kernel_access(unsigned rogue, unsigned at)
{
    struct uffd_msg msg = { .event = UFFD_EVENT_PAGEFAULT };

    if (model.pages[at].present || !model.pages[at].watched) {
        model.pages[at].present = true;
        return true;
    }
    msg.arg.pagefault.address = (uintptr_t)MODEL_HOST + at * MODEL_BLOCK;
    msg.arg.pagefault.feat.ptid = 1 + rogue;
    msg.arg.pagefault.flags = UFFD_PAGEFAULT_FLAG_WRITE;
    g_queue_push_tail(&kernel.faults, g_memdup2(&msg, sizeof(msg)));
    kernel.waits_at[rogue] = at;
    return false;
}

bool model_kernel_waits(unsigned rogue)
{
    return kernel.waits_at[rogue] != NOWHERE;
}

bool model_kernel_has_faults(void)
{
    return kernel.faults.length;
}

int uffd_read_events(int fd, struct uffd_msg *msgs, int count)
{
    int nb = 0;

    while (nb < count && kernel.faults.length) {
        g_autofree struct uffd_msg *msg = g_queue_pop_head(&kernel.faults);

        msgs[nb++] = *msg;
    }
    /* Much may happen before it looks at them. */
    model_sleep();
    return nb;
}

int uffd_wakeup(int fd, void *host, uint64_t size)
{
    kernel_wake(page_of(host), page_of(host) + 1);
    return 0;
}

/* --- what is watched --- */

static void kernel_watch(void *host, uint64_t size, bool watch)
{
    const unsigned first = page_of(host);
    const unsigned end = first + size / MODEL_BLOCK;
    const bool is_late = model.seed == MODEL_LATE_WATCH && kernel.runs;

    g_assert_true(end <= MODEL_BLOCKS);
    for (unsigned i = first; i < end; i++) {
        kernel.late[i] = watch && is_late ? LATE_STEPS : 0;
        model.pages[i].watched = watch && !kernel.late[i];
    }
    if (!watch) {
        kernel_wake(first, end);
    }
}

void model_kernel_tick(void)
{
    kernel.runs = true;
    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        if (kernel.late[i] && !--kernel.late[i]) {
            model.pages[i].watched = true;
        }
    }
}

int uffd_register_memory(int fd, void *host, uint64_t size, uint64_t mode,
                         uint64_t *ioctls)
{
    kernel_watch(host, size, true);
    return 0;
}

int uffd_unregister_memory(int fd, void *host, uint64_t size)
{
    kernel_watch(host, size, false);
    return 0;
}

int uffd_query_features(uint64_t *features)
{
    *features = UFFD_FEATURE_THREAD_ID;
    return 0;
}

int uffd_create_fd(uint64_t features, bool non_blocking)
{
    return INT_MAX;
}

void uffd_close_fd(int fd)
{
}

/* --- memory --- */

int model_ioctl(unsigned long request, void *arg)
{
    const struct uffdio_zeropage *zero = arg;
    const unsigned at = page_of((void *)(uintptr_t)zero->range.start);
    ModelPage *page = &model.pages[at];

    g_assert_cmphex(request, ==, UFFDIO_ZEROPAGE);
    if (!page->watched || page->present) {
        errno = page->present ? EEXIST : ENOENT;
        return -1;
    }
    page->present = true;
    page->lent = true;
    kernel_wake(at, at + 1);
    return 0;
}

static void kernel_drop(unsigned first, unsigned end)
{
    for (unsigned i = first; i < MIN(end, MODEL_BLOCKS); i++) {
        model.pages[i].present = false;
        model.pages[i].lent = false;
        model.pages[i].epoch = 0;
    }
}

int model_madvise(void *host, uint64_t size, int advice)
{
    if (advice == QEMU_MADV_DONTNEED) {
        kernel_drop(first_page_of(host),
                    first_page_of((uint8_t *)host + size));
    }
    return 0;
}

void model_discard(uint64_t offset, uint64_t size)
{
    model_madvise(MODEL_HOST + offset, size, QEMU_MADV_DONTNEED);
}

bool virtio_mem_backing_is_empty(const VirtIOMEM *vmem, uint64_t offset,
                                 uint64_t size)
{
    return false;
}

int virtio_mem_backing_discard(const VirtIOMEM *vmem, uint64_t offset,
                               uint64_t size)
{
    if (model_stop() && model.seed == MODEL_NO_DISCARD) {
        return 0;
    }
    model_discard(offset, size);
    return 0;
}

int virtio_mem_backing_populate(const VirtIOMEM *vmem, uint64_t offset,
                                uint64_t size, Error **errp)
{
    model_stop();
    for (unsigned i = offset / MODEL_BLOCK;
         i < (offset + size) / MODEL_BLOCK; i++) {
        if (model.pages[i].watched) {
            model_fail("I13: memory is populated while it is watched");
        }
        model.pages[i].present = true;
    }
    return 0;
}

/* Mappings are no matter here. */
void virtio_mem_guard_budget_count(VirtIOMEMGuardBudget *budget,
                                   uint64_t nb_own)
{
}

bool virtio_mem_guard_budget_allows(VirtIOMEMGuardBudget *budget,
                                    uint64_t nb_own, uint64_t nb_more)
{
    return true;
}

uint64_t virtio_mem_guard_budget_max(const VirtIOMEMGuardBudget *budget)
{
    return UINT64_MAX;
}
