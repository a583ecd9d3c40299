/*
 * The host memory behind a virtio-mem region.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/madvise.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "exec/cpu-common.h"
#include "exec/ramblock.h"
#include "migration/misc.h"
#include "trace.h"
#include "virtio-mem-backing.h"

#define THP_DIR "/sys/kernel/mm/transparent_hugepage"

/* What Linux uses where it does not tell, by host architecture. */
static uint64_t virtio_mem_backing_guess_thp_size(void)
{
#if defined(__x86_64__) || defined(__arm__) || defined(__powerpc64__)
    return 2 * MiB;
#elif defined(__aarch64__)
    switch (qemu_real_host_page_size()) {
    case 4 * KiB:
        return 2 * MiB;
    case 16 * KiB:
        return 32 * MiB;
    case 64 * KiB:
        return 512 * MiB;
    }
#endif
    return VIRTIO_MEM_MIN_BLOCK_SIZE;
}

static uint64_t virtio_mem_backing_read_thp_size(void)
{
    g_autofree char *content = NULL;
    uint64_t size;

    if (!g_file_test(THP_DIR, G_FILE_TEST_IS_DIR)) {
        return VIRTIO_MEM_MIN_BLOCK_SIZE;
    }
    if (g_file_get_contents(THP_DIR "/hpage_pmd_size", &content, NULL, NULL) &&
        !qemu_strtou64(g_strchomp(content), NULL, 0, &size) &&
        is_power_of_2(size)) {
        return size;
    }

    size = virtio_mem_backing_guess_thp_size();
    warn_report("cannot read the size of transparent huge pages from '%s',"
                " assuming 0x%" PRIx64, THP_DIR "/hpage_pmd_size", size);
    return size;
}

static uint64_t virtio_mem_backing_thp_size(void)
{
    static uint64_t thp_size;

    if (!thp_size) {
        thp_size = virtio_mem_backing_read_thp_size();
    }
    return thp_size;
}

static bool virtio_mem_backing_uses_base_pages(HostMemoryBackend *memdev)
{
    return host_memory_backend_pagesize(memdev) == qemu_real_host_page_size();
}

uint64_t virtio_mem_backing_default_block_size(HostMemoryBackend *memdev)
{
    uint64_t page_size;

    if (!memdev || !memory_region_is_ram(&memdev->mr)) {
        return MAX(virtio_mem_backing_thp_size(), VIRTIO_MEM_MIN_BLOCK_SIZE);
    }

    page_size = host_memory_backend_pagesize(memdev);
    if (virtio_mem_backing_uses_base_pages(memdev)) {
        page_size = MAX(page_size, virtio_mem_backing_thp_size());
    }
    return MAX(page_size, VIRTIO_MEM_MIN_BLOCK_SIZE);
}

bool virtio_mem_backing_has_shared_zeropage(HostMemoryBackend *memdev)
{
    return !qemu_ram_is_shared(memdev->mr.ram_block) &&
           memory_region_get_fd(&memdev->mr) < 0 &&
           virtio_mem_backing_uses_base_pages(memdev);
}

bool virtio_mem_backing_is_ignored(HostMemoryBackend *memdev)
{
    return migrate_ram_is_ignored(memdev->mr.ram_block);
}

int virtio_mem_backing_discard(HostMemoryBackend *memdev, uint64_t offset,
                               uint64_t size)
{
    trace_virtio_mem_backing_discard(offset, size);

    /*
     * Linux locks a file while it punches a hole, and unmaps each page then.
     * Pages that are unmapped already, which several threads can do at a time,
     * save it a third of the time.
     */
    if (memory_region_get_fd(&memdev->mr) >= 0 &&
        virtio_mem_backing_uses_base_pages(memdev)) {
        qemu_madvise((char *)memory_region_get_ram_ptr(&memdev->mr) + offset,
                     size, QEMU_MADV_DONTNEED);
    }
    return ram_block_discard_range(memdev->mr.ram_block, offset, size);
}

/* Which pages, and where there are more: "Bad address" would tell neither. */
static void virtio_mem_backing_ask_for_huge_pages(HostMemoryBackend *memdev,
                                                  uint64_t size, Error **errp)
{
    const uint64_t page_size = host_memory_backend_pagesize(memdev);

    error_setg(errp, "at least %" PRIu64 " more huge pages of %" PRIu64 " KiB"
               " are needed; raise /sys/kernel/mm/hugepages/hugepages-%" PRIu64
               "kB/nr_hugepages or the limit of the control group or mount",
               size / page_size, page_size / KiB, page_size / KiB);
}

int virtio_mem_backing_populate(HostMemoryBackend *memdev, uint64_t offset,
                                uint64_t size, Error **errp)
{
    char *area = memory_region_get_ram_ptr(&memdev->mr);
    const bool is_huge = !virtio_mem_backing_uses_base_pages(memdev);

    trace_virtio_mem_backing_populate(offset, size);

    if (qemu_prealloc_mem(memory_region_get_fd(&memdev->mr), area + offset,
                          size, 1, NULL, false, is_huge ? NULL : errp)) {
        return 0;
    }
    if (is_huge) {
        virtio_mem_backing_ask_for_huge_pages(memdev, size, errp);
    }
    return -ENOMEM;
}
