/*
 * Pages that a guard lends to whoever touches memory out of reach.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/madvise.h"
#include "qemu/units.h"
#include "qemu/userfaultfd.h"
#include "virtio-mem-guard.h"
#include "virtio-mem-guard-lend.h"
#include <sys/ioctl.h>

/*
 * More than what the vCPUs' instructions touch at a time, or they would never
 * get on: an instruction starts anew for each page it misses.
 */
#define GUARD_MAX_LENT_HUGE 2

/* Pages for those who read on: a dump of a crashed guest, for instance. */
#define GUARD_MAX_WINDOW 16

static bool guard_lend_is_huge(const VirtIOMEMGuardLend *lend)
{
    return lend->area->page_size > qemu_real_host_page_size();
}

/* --- taking back --- */

static void guard_lend_forget_lot(VirtIOMEMGuardLend *lend, unsigned int i)
{
    lend->nb_lent -= lend->lots[i].nb_pages;
    lend->nb_lots--;
    memmove(&lend->lots[i], &lend->lots[i + 1],
            (lend->nb_lots - i) * sizeof(lend->lots[0]));
}

/*
 * Page tables go when all that they map goes at once.  Private memory loses
 * its content by that, so only the lot may go.  Shared memory does not, so that
 * lots need not begin where a page table does.
 */
static void guard_lend_drop_tables(VirtIOMEMGuardLend *lend, uint64_t offset,
                                   uint64_t size)
{
    const uintptr_t host = (uintptr_t)lend->area->host;
    uintptr_t first = host + offset;
    uintptr_t end = first + size;

    if (lend->area->shared && !guard_lend_is_huge(lend)) {
        first = MAX(QEMU_ALIGN_DOWN(first, lend->table_size), host);
        end = MIN(QEMU_ALIGN_UP(end, lend->table_size),
                  host + lend->area->size);
    }
    qemu_madvise((void *)first, end - first, QEMU_MADV_DONTNEED);
}

/* A lot that the host does not take back is no reason to keep others out. */
static void guard_lend_take_back_lot(VirtIOMEMGuardLend *lend, unsigned int i)
{
    const uint64_t offset = lend->lots[i].offset;
    const uint64_t size = MIN(lend->lot_size, lend->area->size - offset);

    if (lend->area->discard(lend->area->opaque, offset, size)) {
        warn_report_once("virtio-mem: the host did not take back unplugged"
                         " memory at offset 0x%" PRIx64, offset);
    }
    guard_lend_drop_tables(lend, offset, size);
    guard_lend_forget_lot(lend, i);
}

void virtio_mem_guard_lend_take_back(VirtIOMEMGuardLend *lend,
                                     uint64_t offset, uint64_t size)
{
    unsigned int i = 0;

    while (i < lend->nb_lots) {
        const uint64_t lot = lend->lots[i].offset;

        if (lot >= offset && lot - offset < size) {
            guard_lend_take_back_lot(lend, i);
        } else {
            i++;
        }
    }
}

void virtio_mem_guard_lend_take_back_all(VirtIOMEMGuardLend *lend)
{
    virtio_mem_guard_lend_take_back(lend, 0, lend->area->size);
}

/* --- lending --- */

/* Both return how many bytes were provided, or a negative errno. */
static int64_t guard_lend_zero(VirtIOMEMGuardLend *lend, uint64_t offset,
                               uint64_t size)
{
    struct uffdio_zeropage arg = {
        .range.start = (uintptr_t)lend->area->host + offset,
        .range.len = size,
    };

    return ioctl(lend->uffd, UFFDIO_ZEROPAGE, &arg) && !arg.zeropage ?
           -errno : arg.zeropage;
}

static int64_t guard_lend_copy(VirtIOMEMGuardLend *lend, uint64_t offset,
                               uint64_t size)
{
    struct uffdio_copy arg = {
        .dst = (uintptr_t)lend->area->host + offset,
        .src = (uintptr_t)lend->zeros,
        .len = size,
    };

    return ioctl(lend->uffd, UFFDIO_COPY, &arg) && !arg.copy ?
           -errno : arg.copy;
}

static int64_t guard_lend_provide(VirtIOMEMGuardLend *lend, uint64_t offset,
                                  uint64_t size)
{
    int64_t ret;

    do {
        ret = guard_lend_is_huge(lend) ? guard_lend_copy(lend, offset, size)
                                       : guard_lend_zero(lend, offset, size);
    } while (ret == -EAGAIN || ret == -EINTR);
    return ret;
}

static void guard_lend_account(VirtIOMEMGuardLend *lend, uint64_t offset,
                               uint64_t size)
{
    const uint64_t lot = QEMU_ALIGN_DOWN(offset, lend->lot_size);
    const uint64_t nb_pages = size / lend->area->page_size;
    unsigned int i;

    for (i = 0; i < lend->nb_lots && lend->lots[i].offset != lot; i++) {
        continue;
    }
    if (i == lend->nb_lots) {
        lend->lots[lend->nb_lots++] = (VirtIOMEMGuardLot) { .offset = lot };
    }
    lend->lots[i].nb_pages += nb_pages;
    lend->nb_lent += nb_pages;
}

/* How much to lend at @offset: more each time to those who read on. */
static uint64_t guard_lend_window(VirtIOMEMGuardLend *lend, uint64_t offset)
{
    const uint64_t page_size = lend->area->page_size;
    const uint64_t end = MIN(QEMU_ALIGN_DOWN(offset, lend->lot_size) +
                             lend->lot_size, lend->area->size);

    lend->window = offset == lend->next && !guard_lend_is_huge(lend) ?
                   MIN(2 * lend->window, GUARD_MAX_WINDOW * page_size) :
                   page_size;
    return MIN(lend->window, end - offset);
}

/* Only a page that came from elsewhere leaves waking to us. */
static bool guard_lend_is_there(VirtIOMEMGuardLend *lend, uint64_t offset,
                                int64_t provided)
{
    if (provided == -EEXIST) {
        uffd_wakeup(lend->uffd, (uint8_t *)lend->area->host + offset,
                    lend->area->page_size);
    }
    return provided > 0 || provided == -EEXIST;
}

bool virtio_mem_guard_lend_page(VirtIOMEMGuardLend *lend, uint64_t offset)
{
    const uint64_t page_size = lend->area->page_size;
    uint64_t size;
    int64_t ret;

    offset = QEMU_ALIGN_DOWN(offset, page_size);
    size = guard_lend_window(lend, offset);
    while (lend->nb_lent + size / page_size > lend->max_lent) {
        guard_lend_take_back_lot(lend, 0);
    }

    ret = guard_lend_provide(lend, offset, size);
    if (ret < 0 && ret != -EEXIST && lend->nb_lots) {
        virtio_mem_guard_lend_take_back_all(lend);
        ret = guard_lend_provide(lend, offset, page_size);
    }
    if (ret > 0) {
        guard_lend_account(lend, offset, ret);
        lend->next = offset + ret;
    }
    return guard_lend_is_there(lend, offset, ret);
}

bool virtio_mem_guard_lend_for_good(VirtIOMEMGuardLend *lend, uint64_t offset)
{
    const uint64_t page_size = lend->area->page_size;

    offset = QEMU_ALIGN_DOWN(offset, page_size);
    return guard_lend_is_there(lend, offset,
                               guard_lend_provide(lend, offset, page_size));
}

/* --- life --- */

/* Reading memory that was never written costs nothing but page tables. */
static bool guard_lend_init_zeros(VirtIOMEMGuardLend *lend)
{
    void *zeros = mmap(NULL, lend->area->page_size, PROT_READ,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (zeros == MAP_FAILED) {
        return false;
    }
    qemu_madvise(zeros, lend->area->page_size, QEMU_MADV_HUGEPAGE);
    lend->zeros = zeros;
    return true;
}

bool virtio_mem_guard_lend_init(VirtIOMEMGuardLend *lend, int uffd,
                                const VirtIOMEMGuardArea *area)
{
    const uint64_t page_size = area->page_size;

    *lend = (VirtIOMEMGuardLend) {
        .uffd = uffd,
        .area = area,
        .max_lent = VIRTIO_MEM_GUARD_MAX_LENT,
        /* One page table has 8 bytes for each page. */
        .table_size = page_size * (page_size / 8),
        .next = UINT64_MAX,
    };
    lend->lot_size = MIN(area->block_size, lend->table_size);
    if (!guard_lend_is_huge(lend)) {
        return true;
    }
    lend->max_lent = GUARD_MAX_LENT_HUGE;
    lend->lot_size = page_size;
    return guard_lend_init_zeros(lend);
}

void virtio_mem_guard_lend_cleanup(VirtIOMEMGuardLend *lend)
{
    if (lend->zeros) {
        munmap(lend->zeros, lend->area->page_size);
    }
}
