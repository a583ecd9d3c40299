/*
 * The host memory behind a virtio-mem region.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/madvise.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "exec/cpu-common.h"
#include "exec/ramblock.h"
#include "hw/boards.h"
#include "migration/misc.h"
#include "system/qtest.h"
#include "trace.h"
#include "virtio-mem-backing.h"
#ifdef CONFIG_NUMA
#include <numa.h>
#include <numaif.h>
#endif

#define THP_DIR "/sys/kernel/mm/transparent_hugepage"

static int backing_pagemap = -1;

/* What Linux uses where it does not tell, by host architecture. */
static uint64_t backing_guess_thp_size(void)
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

static uint64_t backing_read_thp_size(void)
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

    size = backing_guess_thp_size();
    warn_report("cannot read the size of transparent huge pages from '%s',"
                " assuming 0x%" PRIx64, THP_DIR "/hpage_pmd_size", size);
    return size;
}

static uint64_t backing_thp_size(void)
{
    static uint64_t thp_size;

    if (!thp_size) {
        thp_size = backing_read_thp_size();
    }
    return thp_size;
}

static bool backing_uses_base_pages(HostMemoryBackend *memdev)
{
    return host_memory_backend_pagesize(memdev) == qemu_real_host_page_size();
}

uint64_t virtio_mem_backing_default_block_size(HostMemoryBackend *memdev)
{
    uint64_t page_size;

    if (!memdev || !memory_region_is_ram(&memdev->mr)) {
        return MAX(backing_thp_size(), VIRTIO_MEM_MIN_BLOCK_SIZE);
    }

    page_size = host_memory_backend_pagesize(memdev);
    if (backing_uses_base_pages(memdev)) {
        page_size = MAX(page_size, backing_thp_size());
    }
    return MAX(page_size, VIRTIO_MEM_MIN_BLOCK_SIZE);
}

bool virtio_mem_backing_has_shared_zeropage(HostMemoryBackend *memdev)
{
    return !qemu_ram_is_shared(memdev->mr.ram_block) &&
           memory_region_get_fd(&memdev->mr) < 0 &&
           backing_uses_base_pages(memdev);
}

bool virtio_mem_backing_is_ignored(HostMemoryBackend *memdev)
{
    return migrate_ram_is_ignored(memdev->mr.ram_block);
}

/*
 * A file that has a name can be the memory of other virtual machines, too.  One
 * without, such as a memfd, cannot.
 */
static bool backing_has_named_file(HostMemoryBackend *memdev)
{
    const int fd = memory_region_get_fd(&memdev->mr);
    struct stat st;

    return fd >= 0 && (fstat(fd, &st) || st.st_nlink);
}

bool virtio_mem_backing_is_private_copy(HostMemoryBackend *memdev)
{
    return !qemu_ram_is_shared(memdev->mr.ram_block) &&
           backing_has_named_file(memdev);
}

/* Drop what this process has of its own; the file is not touched. */
static int backing_unmap(HostMemoryBackend *memdev, uint64_t offset,
                         uint64_t size)
{
    char *area = memory_region_get_ram_ptr(&memdev->mr);

    return qemu_madvise(area + offset, size, QEMU_MADV_DONTNEED) ? -errno : 0;
}

/*
 * Where the file of a private copy has no page when the device comes.  On tmpfs
 * it gets one when the mapping is touched, even to be written.
 */
static unsigned long *backing_find_holes(HostMemoryBackend *memdev)
{
    const uint64_t page_size = host_memory_backend_pagesize(memdev);
    const uint64_t size = memory_region_size(&memdev->mr);
    const RAMBlock *rb = memdev->mr.ram_block;
    unsigned long *holes = bitmap_try_new(size / page_size);
    off_t hole, data = rb->fd_offset;

    if (!holes) {
        return NULL;
    }
    bitmap_set(holes, 0, size / page_size);
    while ((data = lseek(rb->fd, data, SEEK_DATA)) >= 0 &&
           data < rb->fd_offset + size) {
        hole = lseek(rb->fd, data, SEEK_HOLE);
        hole = MIN(hole < 0 ? INT64_MAX : hole, rb->fd_offset + size);
        bitmap_clear(holes, (data - rb->fd_offset) / page_size,
                     DIV_ROUND_UP(hole - rb->fd_offset, page_size) -
                     (data - rb->fd_offset) / page_size);
        data = hole;
    }
    return holes;
}

bool virtio_mem_backing_realize(VirtIOMEM *vmem, Error **errp)
{
    HostMemoryBackend *memdev = vmem->memdev;

    if (backing_pagemap < 0) {
        /* Now: a request should not take the time, and -chroot hides it. */
        backing_pagemap = qemu_open_old("/proc/self/pagemap", O_RDONLY);
    }
    if (!virtio_mem_backing_is_private_copy(memdev)) {
        return true;
    }
    vmem->holes = backing_find_holes(memdev);
    if (!vmem->holes) {
        error_setg(errp, "no memory for the table of holes in the file of '%s',"
                   " 0x%" PRIx64 " bytes; free memory of the host, or set its"
                   " 'share' to 'on'",
                   object_get_canonical_path_component(OBJECT(memdev)),
                   (uint64_t)memory_region_size(&memdev->mr) /
                   host_memory_backend_pagesize(memdev) / 8);
    }
    return vmem->holes;
}

void virtio_mem_backing_unrealize(VirtIOMEM *vmem)
{
    g_clear_pointer(&vmem->holes, g_free);
}

/* In small parts: a page may have 1 GiB. */
static bool backing_is_zero(const RAMBlock *rb, off_t at, uint64_t page_size)
{
    const off_t end = at + page_size;
    char part[4 * KiB];

    for (; at < end; at += sizeof(part)) {
        if (pread(rb->fd, part, sizeof(part), at) != sizeof(part) ||
            !buffer_is_zero(part, sizeof(part))) {
            return false;
        }
    }
    return true;
}

/* Pages of zeros that were holes become holes again: no content changes. */
static void backing_restore_holes(const VirtIOMEM *vmem,
                                  uint64_t offset, uint64_t size)
{
    const uint64_t page_size = host_memory_backend_pagesize(vmem->memdev);
    const RAMBlock *rb = vmem->memdev->mr.ram_block;
    const off_t end = rb->fd_offset + offset + size;
    off_t at = rb->fd_offset + offset;

    while (vmem->holes &&
           (at = lseek(rb->fd, at, SEEK_DATA)) >= 0 && at < end) {
        if (test_bit((at - rb->fd_offset) / page_size, vmem->holes) &&
            backing_is_zero(rb, at, page_size)) {
            fallocate(rb->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
                      page_size);
        }
        at += page_size;
    }
}

/* What this process has, and what its accesses have added to the file. */
static int backing_discard_private(const VirtIOMEM *vmem,
                                   uint64_t offset, uint64_t size)
{
    HostMemoryBackend *memdev = vmem->memdev;
    const RAMBlock *rb = memdev->mr.ram_block;
    int ret;

    if (backing_has_named_file(memdev)) {
        ret = backing_unmap(memdev, offset, size);
        backing_restore_holes(vmem, offset, size);
        return ret;
    }
    if (fallocate(rb->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  rb->fd_offset + offset, size)) {
        return -errno;
    }
    /* Huge pages are unmapped with the hole, and before Linux 5.18 only so. */
    return backing_uses_base_pages(memdev) ?
           backing_unmap(memdev, offset, size) : 0;
}

int virtio_mem_backing_discard(const VirtIOMEM *vmem, uint64_t offset,
                               uint64_t size)
{
    HostMemoryBackend *memdev = vmem->memdev;
    const bool has_file = memory_region_get_fd(&memdev->mr) >= 0;

    trace_virtio_mem_backing_discard(offset, size);

    if (has_file && !qemu_ram_is_shared(memdev->mr.ram_block)) {
        return backing_discard_private(vmem, offset, size);
    }
    /*
     * Linux locks a file while it punches a hole, and unmaps each page then.
     * Unmapping the pages first, which several threads can do in parallel,
     * makes the punch a third faster.
     */
    if (has_file && backing_uses_base_pages(memdev)) {
        backing_unmap(memdev, offset, size);
    }
    return ram_block_discard_range(memdev->mr.ram_block, offset, size);
}

/* --- what is there --- */

/* Of linux/fs.h, which may be older than the kernel; see PAGEMAP_SCAN there. */
typedef struct BackingRegion {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
} BackingRegion;

typedef struct BackingScan {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end;
    uint64_t regions;
    uint64_t nb_regions;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
} BackingScan;

#define BACKING_SCAN _IOWR('f', 16, BackingScan)
#define BACKING_PRESENT_OR_SWAPPED (1 << 3 | 1 << 4)

bool virtio_mem_backing_is_empty(const VirtIOMEM *vmem, uint64_t offset,
                                 uint64_t size)
{
    HostMemoryBackend *memdev = vmem->memdev;
    const char *area = memory_region_get_ram_ptr(&memdev->mr);
    BackingRegion found;
    BackingScan scan = {
        .size = sizeof(scan),
        .start = (uintptr_t)area + offset,
        .end = (uintptr_t)area + offset + size,
        .regions = (uintptr_t)&found,
        .nb_regions = 1,
        .max_pages = 1,
        .category_anyof_mask = BACKING_PRESENT_OR_SWAPPED,
        .return_mask = BACKING_PRESENT_OR_SWAPPED,
    };

    if (memory_region_get_fd(&memdev->mr) >= 0 ||
        qemu_ram_is_shared(memdev->mr.ram_block)) {
        /* What nobody has mapped can be there all the same. */
        return false;
    }
    return ioctl(backing_pagemap, BACKING_SCAN, &scan) == 0;
}

/*
 * Private memory in ordinary pages always has some to lend, the host's page of
 * zeros.
 */
bool virtio_mem_backing_can_map(HostMemoryBackend *memdev)
{
    const RAMBlock *rb = memdev->mr.ram_block;

    return rb->fd >= 0 &&
           (rb->flags & RAM_SHARED || !backing_uses_base_pages(memdev));
}

/* With shared memory, the reservation is the file's. */
bool virtio_mem_backing_has_reserve(HostMemoryBackend *memdev)
{
    const RAMBlock *rb = memdev->mr.ram_block;

    return rb->fd >= 0 && !backing_uses_base_pages(memdev) &&
           !(rb->flags & (RAM_SHARED | RAM_NORESERVE));
}

/*
 * A file of huge pages has what it reserved still, but for what was given back
 * since: that must not be reserved once more.  What a private mapping had
 * reserved is gone, and to reserve it again may fail when it is too late.
 */
static int backing_map_flags(HostMemoryBackend *memdev)
{
    const RAMBlock *rb = memdev->mr.ram_block;

    if (!(rb->flags & RAM_SHARED)) {
        return MAP_PRIVATE | MAP_NORESERVE;
    }
    return backing_uses_base_pages(memdev) && !(rb->flags & RAM_NORESERVE)
           ? MAP_SHARED : MAP_SHARED | MAP_NORESERVE;
}

/*
 * As the backend has done it for all of its memory, with a number too many for
 * an old Linux; see host_memory_backend_memory_complete().
 */
static int backing_bind(HostMemoryBackend *memdev, char *area, uint64_t size)
{
#ifdef CONFIG_NUMA
    const unsigned long last = find_last_bit(memdev->host_nodes, MAX_NODES);
    int mode = memdev->policy;

#ifdef HAVE_NUMA_HAS_PREFERRED_MANY
    if (mode == MPOL_PREFERRED && numa_has_preferred_many() > 0) {
        mode = MPOL_PREFERRED_MANY;
    }
#endif
    if (last < MAX_NODES &&
        mbind(area, size, mode, memdev->host_nodes, last + 2, 0)) {
        return -errno;
    }
#endif
    return 0;
}

/*
 * As QEMU sets up any guest memory: the kernel merges a mapping with others
 * only if they are alike.
 */
static void backing_advise(HostMemoryBackend *memdev, char *area, uint64_t size)
{
    qemu_madvise(area, size, QEMU_MADV_HUGEPAGE);
    if (!qtest_enabled()) {
        qemu_madvise(area, size, QEMU_MADV_DONTFORK);
    }
    if (!memdev->dump || !machine_dump_guest_core(current_machine)) {
        qemu_madvise(area, size, QEMU_MADV_DONTDUMP);
    }
}

int virtio_mem_backing_map(HostMemoryBackend *memdev, uint64_t offset,
                           uint64_t size)
{
    const RAMBlock *rb = memdev->mr.ram_block;
    char *area = (char *)memory_region_get_ram_ptr(&memdev->mr) + offset;
    const int flags = MAP_FIXED | backing_map_flags(memdev);
    int ret;

    if (mmap(area, size, PROT_READ | PROT_WRITE, flags, rb->fd,
             rb->fd_offset + offset) == MAP_FAILED) {
        return -errno;
    }
    ret = backing_bind(memdev, area, size);
    if (ret) {
        /* What was there was anonymous memory, and empty. */
        mmap(area, size, PROT_READ | PROT_WRITE,
             MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    backing_advise(memdev, area, size);
    return ret;
}

/* The file that has to hold the memory; NULL if there is none to look at. */
static char *backing_path(HostMemoryBackend *memdev)
{
    g_autofree char *link = g_strdup_printf(
        "/proc/self/fd/%d", memory_region_get_fd(&memdev->mr));
    g_autofree char *path = g_file_read_link(link, NULL);

    return path && !g_str_has_prefix(path, "/memfd:") ? g_steal_pointer(&path)
                                                      : NULL;
}

/* Which pages, and where there are more: "Bad address" would tell neither. */
static void backing_ask_for_huge_pages(HostMemoryBackend *memdev,
                                       uint64_t size, Error **errp)
{
    const uint64_t page_size = host_memory_backend_pagesize(memdev);
    g_autofree char *path = backing_path(memdev);

    error_setg(errp, "at least %" PRIu64 " more huge pages of %" PRIu64 " KiB"
               " are needed%s%s; raise /sys/kernel/mm/hugepages/hugepages-%"
               PRIu64 "kB/nr_hugepages or the limit of the control group or"
               " mount", size / page_size, page_size / KiB,
               path ? " for " : "", path ?: "", page_size / KiB);
}

/* How much, and where there has to be room for it. */
static void backing_ask_for_room(HostMemoryBackend *memdev,
                                 uint64_t size, Error **errp)
{
    g_autofree char *path = backing_path(memdev);
    struct statfs fs;

    if (!path || fstatfs(memory_region_get_fd(&memdev->mr), &fs)) {
        error_setg(errp, "0x%" PRIx64 " bytes are needed; free memory of the"
                   " host, or raise the limit of the control group", size);
        return;
    }
    error_setg(errp, "0x%" PRIx64 " bytes are needed for %s, whose file system"
               " has 0x%" PRIx64 " left; enlarge it, or raise the quota or the"
               " limit of the control group", size, path,
               (uint64_t)fs.f_bavail * fs.f_bsize);
}

/*
 * qemu_prealloc_mem() does the same, but each call reads from sysfs how many
 * processors there are: one part in fifteen of the time that a slice of
 * transparent huge pages takes.  It knows what to do before Linux 5.14.
 */
static bool backing_prealloc(HostMemoryBackend *memdev, char *area,
                             uint64_t size)
{
    if (!qemu_madvise(area, size, QEMU_MADV_POPULATE_WRITE)) {
        return true;
    }
    return errno == EINVAL &&
           qemu_prealloc_mem(memory_region_get_fd(&memdev->mr), area, size, 1,
                             NULL, false, NULL);
}

int virtio_mem_backing_populate(const VirtIOMEM *vmem, uint64_t offset,
                                uint64_t size, Error **errp)
{
    HostMemoryBackend *memdev = vmem->memdev;
    char *area = memory_region_get_ram_ptr(&memdev->mr);

    trace_virtio_mem_backing_populate(offset, size);

    if (backing_prealloc(memdev, area + offset, size)) {
        return 0;
    }
    if (backing_uses_base_pages(memdev)) {
        backing_ask_for_room(memdev, size, errp);
    } else {
        backing_ask_for_huge_pages(memdev, size, errp);
    }
    return -ENOMEM;
}
