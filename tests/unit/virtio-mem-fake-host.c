/*
 * A fake host for tests of virtio-mem's door
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/thread-context.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "hw/virtio/virtio-mem-backing.h"
#include "hw/virtio/virtio-mem-guard.h"
#include "hw/virtio/virtio-mem-memslots.h"
#include "hw/virtio/virtio-mem-rdm.h"
#include "hw/virtio/virtio-mem-stats.h"
#include "hw/virtio/virtio-mem-unit.h"
#include "hw/virtio/virtio-mem-work.h"
#include "virtio-mem-fake-host.h"

unsigned fake_nb_reports;
GString *fake_said;
uint64_t fake_usable_extent;
bool fake_asks_guest;

static FakeHost *fake_host_of(VirtIOMEM *vmem)
{
    return container_of(vmem, FakeHost, vmem);
}

static void fake_host_log(FakeHost *host, const char *what,
                          VirtIOMEMRange range)
{
    g_string_append_printf(host->log, "%s %" PRIu64 "+%" PRIu64 ", ", what,
                           range.first, range.nb_blocks);
}

static bool fake_host_refuses(FakeHost *host)
{
    host->nb_fallible++;
    return host->nb_fallible == host->refuse_at ||
           host->nb_fallible == host->refuse_next_at;
}

static void fake_fill(bool *books, VirtIOMEMRange range, bool value)
{
    for (uint64_t i = 0; i < range.nb_blocks; i++) {
        books[range.first + i] = value;
    }
}

static VirtIOMEMBlocksState fake_host_state(FakeHost *host,
                                            VirtIOMEMRange range)
{
    return virtio_mem_blocks_classify(host->vmem.blocks, range);
}

static bool fake_host_is_plugged(const FakeHost *host, uint64_t block)
{
    return virtio_mem_blocks_classify(host->vmem.blocks,
                                      (VirtIOMEMRange) { block, 1 }) ==
           VIRTIO_MEM_BLOCKS_PLUGGED;
}

uint64_t virtio_mem_unit_usable_extent(void)
{
    return fake_usable_extent;
}

/* --- backing --- */

static VirtIOMEMRange fake_host_range(FakeHost *host, uint64_t offset,
                                      uint64_t size)
{
    g_assert_true(QEMU_IS_ALIGNED(offset | size, host->vmem.block_size));
    return (VirtIOMEMRange) { offset / host->vmem.block_size,
                              size / host->vmem.block_size };
}

bool virtio_mem_backing_is_empty(const VirtIOMEM *vmem, uint64_t offset,
                                 uint64_t size)
{
    return false;
}

int virtio_mem_backing_discard(const VirtIOMEM *vmem, uint64_t offset,
                               uint64_t size)
{
    FakeHost *host = container_of(vmem, FakeHost, vmem);
    const VirtIOMEMRange range = fake_host_range(host, offset, size);

    fake_host_log(host, "discard", range);
    if (fake_host_refuses(host)) {
        return -EIO;
    }
    fake_fill(host->books.memory, range, false);
    return 0;
}

/* A failure may leave a part populated: let it be the first half. */
int virtio_mem_backing_populate(const VirtIOMEM *vmem, uint64_t offset,
                                uint64_t size, Error **errp)
{
    FakeHost *host = container_of(vmem, FakeHost, vmem);
    VirtIOMEMRange range = fake_host_range(host, offset, size);
    const bool refuse = fake_host_refuses(host);

    fake_host_log(host, "populate", range);
    if (refuse) {
        error_setg(errp, "the fake host refuses");
        range.nb_blocks = DIV_ROUND_UP(range.nb_blocks, 2);
    }
    fake_fill(host->books.memory, range, true);
    return refuse ? -ENOMEM : 0;
}

/* So large that the door's ranges are one slice each. */
size_t host_memory_backend_pagesize(HostMemoryBackend *memdev)
{
    return 64 * MiB;
}

uint64_t virtio_mem_backing_default_block_size(HostMemoryBackend *memdev)
{
    return FAKE_BLOCK_SIZE;
}

/* --- guard --- */

/* Nobody but the guard looks into a guard, so the host can be its own. */
void fake_host_start_guard(FakeHost *host)
{
    host->vmem.guard = (VirtIOMEMGuard *)host;
    for (uint64_t i = 0; i < FAKE_BLOCKS; i++) {
        host->books.guarded[i] = !fake_host_is_plugged(host, i);
    }
}

int virtio_mem_guard_protect(VirtIOMEMGuard *guard, uint64_t offset,
                             uint64_t size)
{
    FakeHost *host = (FakeHost *)guard;
    VirtIOMEMRange range;

    if (!host) {
        return 0;
    }
    range = fake_host_range(host, offset, size);
    fake_host_log(host, "guard", range);
    if (fake_host_refuses(host)) {
        return -ENOMEM;
    }
    fake_fill(host->books.guarded, range, true);
    return 0;
}

int virtio_mem_guard_release(VirtIOMEMGuard *guard, uint64_t offset,
                             uint64_t size)
{
    FakeHost *host = (FakeHost *)guard;
    VirtIOMEMRange range;

    if (!host) {
        return 0;
    }
    range = fake_host_range(host, offset, size);
    fake_host_log(host, "release", range);
    if (fake_host_refuses(host)) {
        return -ENOSPC;
    }
    fake_fill(host->books.guarded, range, false);
    return 0;
}

void virtio_mem_guard_force(VirtIOMEMGuard *guard, uint64_t offset,
                            uint64_t size, bool protect)
{
    FakeHost *host = (FakeHost *)guard;

    if (host) {
        const VirtIOMEMRange range = fake_host_range(host, offset, size);

        fake_host_log(host, protect ? "guard" : "release", range);
        fake_fill(host->books.guarded, range, protect);
    }
}

void virtio_mem_guard_take_back(VirtIOMEMGuard *guard)
{
    FakeHost *host = (FakeHost *)guard;

    if (host) {
        g_string_append(host->log, "take back, ");
    }
}

void virtio_mem_guard_set_clean(VirtIOMEMGuard *guard, bool clean)
{
    FakeHost *host = (FakeHost *)guard;

    if (host) {
        host->is_clean = clean;
    }
}

bool virtio_mem_guard_is_clean(VirtIOMEMGuard *guard)
{
    return guard && ((FakeHost *)guard)->is_clean;
}

/* --- memslots --- */

static VirtIOMEMRange fake_slot_blocks(unsigned slot)
{
    const uint64_t first = slot * FAKE_BLOCKS_PER_SLOT;

    return (VirtIOMEMRange) { first, MIN(FAKE_BLOCKS_PER_SLOT,
                                         FAKE_BLOCKS - first) };
}

static bool fake_slot_overlaps(unsigned slot, VirtIOMEMRange range)
{
    const VirtIOMEMRange blocks = fake_slot_blocks(slot);

    return blocks.first < range.first + range.nb_blocks &&
           range.first < blocks.first + blocks.nb_blocks;
}

void virtio_mem_memslots_map(VirtIOMEM *vmem, VirtIOMEMRange range)
{
    FakeHost *host = fake_host_of(vmem);

    fake_host_log(host, "map", range);
    g_assert_cmpint(fake_host_state(host, range), ==,
                    VIRTIO_MEM_BLOCKS_UNPLUGGED);
    for (unsigned i = 0; i < FAKE_SLOTS; i++) {
        if (fake_slot_overlaps(i, range)) {
            host->books.mapped[i] = true;
        }
    }
}

void virtio_mem_memslots_unmap_empty(VirtIOMEM *vmem, VirtIOMEMRange range)
{
    FakeHost *host = fake_host_of(vmem);

    fake_host_log(host, "unmap", range);
    g_assert_cmpint(fake_host_state(host, range), ==,
                    VIRTIO_MEM_BLOCKS_UNPLUGGED);
    for (unsigned i = 0; i < FAKE_SLOTS; i++) {
        if (fake_slot_overlaps(i, range) &&
            fake_host_state(host, fake_slot_blocks(i)) ==
            VIRTIO_MEM_BLOCKS_UNPLUGGED) {
            host->books.mapped[i] = false;
        }
    }
}

/* --- listeners --- */

static void fake_listener_toggle(FakeHost *host, unsigned listener,
                                 VirtIOMEMRange range, bool known)
{
    for (uint64_t i = range.first; i < range.first + range.nb_blocks; i++) {
        g_assert_cmpint(host->books.known[listener][i], ==, !known);
        host->books.known[listener][i] = known;
    }
}

bool virtio_mem_rdm_has_listeners(const VirtIOMEM *vmem)
{
    return container_of(vmem, const FakeHost, vmem)->has_pinned;
}

int virtio_mem_rdm_ask_plug(VirtIOMEM *vmem, VirtIOMEMRange range)
{
    FakeHost *host = fake_host_of(vmem);

    g_assert_cmpint(fake_host_state(host, range), ==,
                    VIRTIO_MEM_BLOCKS_UNPLUGGED);
    for (unsigned i = 0; i < FAKE_LISTENERS; i++) {
        fake_host_log(host, "ask", range);
        /* To pin memory populates it, also if that fails at the end. */
        fake_fill(host->books.memory, range, true);
        if (fake_host_refuses(host)) {
            while (i--) {
                fake_listener_toggle(host, i, range, false);
            }
            return -EBUSY;
        }
        fake_listener_toggle(host, i, range, true);
    }
    return 0;
}

void virtio_mem_rdm_tell_unplug(VirtIOMEM *vmem, VirtIOMEMRange range)
{
    FakeHost *host = fake_host_of(vmem);

    fake_host_log(host, "tell", range);
    g_assert_cmpint(fake_host_state(host, range), ==,
                    VIRTIO_MEM_BLOCKS_PLUGGED);
    for (unsigned i = 0; i < FAKE_LISTENERS; i++) {
        fake_listener_toggle(host, i, range, false);
    }
}

void virtio_mem_rdm_tell_unplug_all(VirtIOMEM *vmem)
{
    FakeHost *host = fake_host_of(vmem);
    VirtIOMEMRange run;

    g_string_append(host->log, "tell all, ");
    VIRTIO_MEM_BLOCKS_FOREACH_RUN(vmem->blocks,
                                  virtio_mem_blocks_all(vmem->blocks), true,
                                  run) {
        for (unsigned i = 0; i < FAKE_LISTENERS; i++) {
            fake_listener_toggle(host, i, run, false);
        }
    }
}

/* --- whatever else the door needs --- */

uint64_t memory_region_size(MemoryRegion *mr)
{
    return int128_get64(mr->size);
}

void thread_context_create_thread(ThreadContext *tc, QemuThread *thread,
                                  const char *name,
                                  void *(*start_routine)(void *), void *arg,
                                  int mode)
{
    g_assert_not_reached();
}

void virtio_notify_config(VirtIODevice *vdev)
{
    g_assert_true(fake_asks_guest);
}

uint32_t fake_host_generation(const FakeHost *host)
{
    return host->vmem.parent_obj.generation;
}

/* Reports are counted, by the line, and not printed. */
int error_vprintf(const char *fmt, va_list ap)
{
    if (fake_said) {
        g_string_append_vprintf(fake_said, fmt, ap);
    }
    fake_nb_reports += strchr(fmt, '\n') != NULL;
    return 0;
}

static void fake_host_hear_size(Notifier *notifier, void *data)
{
    FakeHost *host = container_of(notifier, FakeHost, size_change);

    host->books.told_size = *(uint64_t *)data;
    g_string_append_printf(host->log, "size %" PRIu64 ", ",
                           host->books.told_size / host->vmem.block_size);
}

/* --- for tests --- */

void fake_host_init(FakeHost *host)
{
    VirtIOMEM *vmem = &host->vmem;

    rust_bql_mock_lock();
    memset(host, 0, sizeof(*host));
    host->log = g_string_new("");
    host->memdev.mr.size = int128_make64(FAKE_BLOCKS * FAKE_BLOCK_SIZE);
    host->size_change.notify = fake_host_hear_size;

    vmem->memdev = &host->memdev;
    vmem->block_size = FAKE_BLOCK_SIZE;
    vmem->blocks = virtio_mem_blocks_new(FAKE_BLOCKS);
    virtio_mem_stats_realize(vmem);
    g_assert_true(virtio_mem_work_realize(vmem, &error_abort));
    notifier_list_init(&vmem->size_change_notifiers);
    notifier_list_add(&vmem->size_change_notifiers, &host->size_change);
}

void fake_host_destroy(FakeHost *host)
{
    virtio_mem_work_unrealize(&host->vmem);
    virtio_mem_stats_unrealize(&host->vmem);
    virtio_mem_blocks_free(host->vmem.blocks);
    g_string_free(host->log, true);
}

/* Each fact is set by hand: the door is what is tested. */
void fake_host_draw(FakeHost *host, const char *drawing)
{
    fake_host_init(host);
    g_assert_cmpuint(strlen(drawing), ==, FAKE_BLOCKS);
    for (uint64_t i = 0; i < FAKE_BLOCKS; i++) {
        if (drawing[i] != '#') {
            continue;
        }
        virtio_mem_blocks_set_plugged(host->vmem.blocks,
                                      (VirtIOMEMRange) { i, 1 });
        host->books.memory[i] = true;
        host->books.mapped[i / FAKE_BLOCKS_PER_SLOT] = true;
        for (unsigned l = 0; l < FAKE_LISTENERS; l++) {
            host->books.known[l][i] = true;
        }
        host->books.told_size += FAKE_BLOCK_SIZE;
    }
    fake_host_assert_agreement(host);
}

void fake_host_assert_drawing(const FakeHost *host, const char *expect)
{
    char drawing[FAKE_BLOCKS + 1] = "";

    for (uint64_t i = 0; i < FAKE_BLOCKS; i++) {
        drawing[i] = fake_host_is_plugged(host, i) ? '#' : '.';
    }
    g_assert_cmpstr(drawing, ==, expect);
}

void fake_host_refuse_at(FakeHost *host, unsigned n)
{
    g_string_truncate(host->log, 0);
    host->nb_fallible = 0;
    host->refuse_at = n;
    host->refuse_next_at = 0;
}

bool fake_host_has_refused(const FakeHost *host)
{
    return host->refuse_at && host->nb_fallible >= host->refuse_at;
}

void fake_host_assert_agreement(const FakeHost *host)
{
    const FakeBooks *books = &host->books;
    bool mapped[FAKE_SLOTS] = { false };

    g_assert_true(virtio_mem_blocks_check(host->vmem.blocks));
    g_assert_cmpuint(books->told_size, ==,
                     virtio_mem_plugged_size(&host->vmem));
    for (uint64_t i = 0; i < FAKE_BLOCKS; i++) {
        const bool plugged = fake_host_is_plugged(host, i);

        for (unsigned l = 0; l < FAKE_LISTENERS; l++) {
            g_assert_cmpint(books->known[l][i], ==, plugged);
        }
        g_assert_true(plugged || !books->memory[i]);
        g_assert_cmpint(books->guarded[i], ==, host->vmem.guard && !plugged);
        mapped[i / FAKE_BLOCKS_PER_SLOT] |= plugged;
    }
    g_assert_cmpmem(mapped, sizeof(mapped), books->mapped, sizeof(mapped));
}

void fake_host_assert_books(const FakeHost *host, const FakeBooks *before,
                            bool may_lose)
{
    const FakeBooks *books = &host->books;

    g_assert_cmpmem(books->mapped, sizeof(books->mapped),
                    before->mapped, sizeof(before->mapped));
    g_assert_cmpmem(books->known, sizeof(books->known),
                    before->known, sizeof(before->known));
    g_assert_cmpmem(books->guarded, sizeof(books->guarded),
                    before->guarded, sizeof(before->guarded));
    g_assert_cmpuint(books->told_size, ==, before->told_size);
    for (uint64_t i = 0; i < FAKE_BLOCKS; i++) {
        if (!may_lose || books->memory[i]) {
            g_assert_cmpint(books->memory[i], ==, before->memory[i]);
        }
    }
}
