/*
 * A scene for tests of virtio-mem as a RamDiscardManager: one device, and
 * listeners that keep books on the pages they know.
 *
 * The device is an instance of a type made here: all that it shares with the
 * real one is its struct and its implementation of the interface.  The unit
 * of bookkeeping is a page, several of which are a block, because the sections
 * of listeners need not be aligned to blocks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VIRTIO_MEM_FAKE_SCENE_H
#define VIRTIO_MEM_FAKE_SCENE_H

#include "hw/virtio/virtio-mem-region.h"

#define FAKE_PAGE_SIZE (4 * KiB)
#define BLOCK_PAGES 4
#define NB_BLOCKS 70                /* more than one word of bits */
#define NB_PAGES (NB_BLOCKS * BLOCK_PAGES)
#define MAX_LISTENERS 4

typedef struct PageRange {
    unsigned first;
    unsigned nb_pages;
} PageRange;

/* That each notification lies in its section and is due is asserted. */
typedef struct FakeListener {
    RamDiscardListener rdl;
    struct Scene *scene;
    PageRange pages;                /* of the section it registered */
    bool known[NB_PAGES];
    bool refuses;                   /* to populate */
    unsigned nb_populates;          /* calls */
    unsigned nb_discards;
} FakeListener;

typedef struct Scene {
    VirtIOMEM *vmem;
    RamDiscardManager *rdm;
    RamDiscardManagerClass *rdmc;
    HostMemoryBackend memdev;
    FakeListener listeners[MAX_LISTENERS];
} Scene;

/* What was reported by error_report() or warn_report(), in all scenes. */
extern unsigned fake_nb_reports;

/* Once, before the first scene. */
void scene_register_types(void);

/* No block is plugged and no listener registered. */
void scene_init(Scene *scene);
void scene_destroy(Scene *scene);

void scene_register(Scene *scene, unsigned i, PageRange pages,
                    bool double_discard_supported);
void scene_unregister(Scene *scene, unsigned i);
bool scene_is_registered(const Scene *scene, unsigned i);

/* Plug and unplug in the order of the door. */
int scene_plug(Scene *scene, VirtIOMEMRange range);
void scene_unplug(Scene *scene, VirtIOMEMRange range);
void scene_unplug_all(Scene *scene);

bool scene_page_is_plugged(const Scene *scene, unsigned page);

/* A section, and which pages one is that was derived from such a section. */
MemoryRegionSection scene_section(Scene *scene, PageRange pages);
PageRange scene_pages(Scene *scene, const MemoryRegionSection *section);

/* Listeners know each plugged page of their section, and nothing else. */
void scene_assert_agreement(const Scene *scene);

#endif
