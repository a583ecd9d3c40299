/*
 * Memory of each kind with a guard on it, for tests of virtio-mem's guard.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VIRTIO_MEM_GUARD_SCENE_H
#define VIRTIO_MEM_GUARD_SCENE_H

#include "../../hw/virtio/virtio-mem-guard.h"

/* What differs between kinds of memory. */
typedef struct GuardKind {
    const char *name;
    bool shared;
    uint64_t page_size;
    uint64_t block_size;
    uint64_t skew;              /* from where page tables begin */
    unsigned int memfd_flags;
    uint64_t max_gain;          /* what a rogue guest may cost, in bytes */
    uint64_t room;              /* of its file system; 0: no limit */
} GuardKind;

extern const GuardKind guard_kinds[];
extern const size_t nb_guard_kinds;

typedef struct GuardScene {
    const GuardKind *kind;
    VirtIOMEMGuardArea area;
    VirtIOMEMGuard *guard;
    uint8_t *host;              /* area.host */
    int fd;                     /* -1: anonymous */
    int notified;               /* atomic: calls of area.notify */
    int map_left;               /* atomic: calls of area.map until it fails */
    VirtIOMEMGuardAccess access;        /* the last one that was fetched */
    char *pool;                 /* huge pages to give back: where and what */
    uint64_t old_pool;
    int pool_lock;              /* held while the pool is ours; or -1 */
} GuardScene;

/*
 * @size bytes of @kind, all guarded; NULL when the test is skipped, with its
 * reason, because this host has no userfaultfd or no huge pages.
 */
GuardScene *guard_scene_new(const GuardKind *kind, uint64_t size);
/* The same without a guard: set scene->area as it shall be, then start it. */
GuardScene *guard_scene_new_unguarded(const GuardKind *kind, uint64_t size);
bool guard_scene_start(GuardScene *scene, bool paused);
void guard_scene_free(GuardScene *scene);

/*
 * As the device does it: block numbers.  The first two are 0 or a negative
 * errno, the others must succeed.
 */
int guard_scene_try_plug(GuardScene *scene, uint64_t first, uint64_t nb_blocks);
int guard_scene_try_unplug(GuardScene *scene, uint64_t first,
                           uint64_t nb_blocks);
void guard_scene_plug(GuardScene *scene, uint64_t first, uint64_t nb_blocks);
void guard_scene_unplug(GuardScene *scene, uint64_t first, uint64_t nb_blocks);
int guard_scene_discard(void *scene, uint64_t offset, uint64_t size);

/* One word, with offsets in bytes. */
uint64_t guard_scene_read(const GuardScene *scene, uint64_t offset);
void guard_scene_write(GuardScene *scene, uint64_t offset, uint64_t value);

/*
 * Exactly those blocks are guarded that are drawn as '#', and the guard agrees.
 * What can be lent has to be: each block is written to.
 */
void guard_scene_assert_guarded(GuardScene *scene, const char *drawing);

/* Accesses that were noticed so far. */
uint64_t guard_scene_count(GuardScene *scene);

/* Memory of the host in use for the scene, page tables included. */
uint64_t guard_scene_memory(const GuardScene *scene);
/*
 * It is not more than @max above what it was @before; and where the host keeps
 * page tables (Linux before 6.14, or not x86-64), those of all of the scene.
 */
void guard_scene_assert_gain(const GuardScene *scene, uint64_t before,
                             uint64_t max);

/*
 * Mappings that the kernel has for the scene's memory.  Those of the whole
 * process would count threads and allocators, too.
 */
uint64_t guard_scene_mappings(const GuardScene *scene);

/* A number of bytes from a file in /proc/self like "VmPTE:   12 kB". */
uint64_t proc_self_bytes(const char *file, const char *key);
/* Pages of the scene's kind that the host, or a file system, has left. */
uint64_t guard_scene_free_pages(const GuardScene *scene);

/* Add @test for each kind of which the pages have so many bytes. */
void guard_scene_add_tests(const char *claim, uint64_t min_page_size,
                           uint64_t max_page_size,
                           void (*test)(const void *kind));

/* Numbers for long runs: @quick, or @slow with -m slow. */
uint64_t guard_scale(uint64_t quick, uint64_t slow);

#endif
