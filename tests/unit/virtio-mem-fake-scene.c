/*
 * A scene for tests of virtio-mem as a RamDiscardManager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "hw/virtio/virtio-mem-rdm.h"
#include "virtio-mem-fake-scene.h"

/* Where sections begin in an address space, beyond their place in the region */
#define ADDRESS (5 * GiB)

unsigned fake_nb_reports;

/* --- the fake device --- */

static void fake_device_class_init(ObjectClass *klass, void *data)
{
    virtio_mem_rdm_class_init(klass);
}

static const TypeInfo fake_types[] = {
    {
        .name = TYPE_RAM_DISCARD_MANAGER,
        .parent = TYPE_INTERFACE,
        .class_size = sizeof(RamDiscardManagerClass),
    }, {
        .name = TYPE_VIRTIO_DEVICE,
        .parent = TYPE_OBJECT,
        .instance_size = sizeof(VirtIODevice),
    }, {
        .name = TYPE_VIRTIO_MEM,
        .parent = TYPE_VIRTIO_DEVICE,
        .instance_size = sizeof(VirtIOMEM),
        .class_init = fake_device_class_init,
        .interfaces = (InterfaceInfo[]) { { TYPE_RAM_DISCARD_MANAGER }, { } },
    },
};

void scene_register_types(void)
{
    module_call_init(MODULE_INIT_QOM);
    type_register_static_array(fake_types, ARRAY_SIZE(fake_types));
}

MemoryRegionSection *memory_region_section_new_copy(MemoryRegionSection *s)
{
    return g_memdup2(s, sizeof(*s));
}

void memory_region_section_free_copy(MemoryRegionSection *s)
{
    g_free(s);
}

/* Reports are counted, by the line, and not printed. */
int error_vprintf(const char *fmt, va_list ap)
{
    fake_nb_reports += strchr(fmt, '\n') != NULL;
    return 0;
}

/* --- listeners --- */

MemoryRegionSection scene_section(Scene *scene, PageRange pages)
{
    const uint64_t offset = pages.first * FAKE_PAGE_SIZE;

    return (MemoryRegionSection) {
        .mr = &scene->memdev.mr,
        .size = int128_make64(pages.nb_pages * FAKE_PAGE_SIZE),
        .offset_within_region = offset,
        .offset_within_address_space = ADDRESS + offset,
        .nonvolatile = true,
        .unmergeable = true,
    };
}

/* The pages of @section; the rest of it must be what scene_section() made. */
PageRange scene_pages(Scene *scene, const MemoryRegionSection *section)
{
    const PageRange pages = {
        section->offset_within_region / FAKE_PAGE_SIZE,
        int128_get64(section->size) / FAKE_PAGE_SIZE
    };

    g_assert_cmpuint(pages.nb_pages, >, 0);
    g_assert_true(section->mr == &scene->memdev.mr);
    g_assert_true(section->nonvolatile && section->unmergeable);
    g_assert_false(section->readonly);
    g_assert_cmphex(section->offset_within_region % FAKE_PAGE_SIZE, ==, 0);
    g_assert_cmphex(section->offset_within_address_space, ==,
                    ADDRESS + section->offset_within_region);
    g_assert_cmphex(int128_get64(section->size) % FAKE_PAGE_SIZE, ==, 0);
    return pages;
}

static void listener_assert_inside(const FakeListener *listener,
                                   PageRange pages)
{
    g_assert_cmpuint(pages.first, >=, listener->pages.first);
    g_assert_cmpuint(pages.first + pages.nb_pages, <=,
                     listener->pages.first + listener->pages.nb_pages);
}

/* Each page is announced exactly once before it is taken back. */
static int listener_populate(RamDiscardListener *rdl,
                             MemoryRegionSection *section)
{
    FakeListener *listener = container_of(rdl, FakeListener, rdl);
    const PageRange pages = scene_pages(listener->scene, section);

    listener_assert_inside(listener, pages);
    listener->nb_populates++;
    if (listener->refuses) {
        return -ENOSPC;
    }
    for (unsigned i = 0; i < pages.nb_pages; i++) {
        g_assert_false(listener->known[pages.first + i]);
        listener->known[pages.first + i] = true;
    }
    return 0;
}

static void listener_discard(RamDiscardListener *rdl,
                             MemoryRegionSection *section)
{
    FakeListener *listener = container_of(rdl, FakeListener, rdl);
    const PageRange pages = scene_pages(listener->scene, section);

    listener_assert_inside(listener, pages);
    listener->nb_discards++;
    for (unsigned i = 0; i < pages.nb_pages; i++) {
        g_assert_true(listener->known[pages.first + i] ||
                      rdl->double_discard_supported);
        listener->known[pages.first + i] = false;
    }
}

/* --- the scene --- */

void scene_init(Scene *scene)
{
    rust_bql_mock_lock();
    memset(scene, 0, sizeof(*scene));
    scene->vmem = VIRTIO_MEM(object_new(TYPE_VIRTIO_MEM));
    scene->vmem->memdev = &scene->memdev;
    scene->vmem->block_size = BLOCK_PAGES * FAKE_PAGE_SIZE;
    scene->vmem->blocks = virtio_mem_blocks_new(NB_BLOCKS);
    virtio_mem_rdm_instance_init(scene->vmem);
    scene->rdm = RAM_DISCARD_MANAGER(scene->vmem);
    scene->rdmc = RAM_DISCARD_MANAGER_GET_CLASS(scene->rdm);
    for (unsigned i = 0; i < MAX_LISTENERS; i++) {
        scene->listeners[i].scene = scene;
    }
}

bool scene_is_registered(const Scene *scene, unsigned i)
{
    return scene->listeners[i].rdl.section;
}

void scene_register(Scene *scene, unsigned i, PageRange pages,
                    bool double_discard_supported)
{
    FakeListener *listener = &scene->listeners[i];
    MemoryRegionSection section = scene_section(scene, pages);

    ram_discard_listener_init(&listener->rdl, listener_populate,
                              listener_discard, double_discard_supported);
    listener->pages = pages;
    scene->rdmc->register_listener(scene->rdm, &listener->rdl, &section);
    /* The device has a copy: the caller's may change. */
    memset(&section, 0xff, sizeof(section));
    g_assert_true(scene_is_registered(scene, i));
}

void scene_unregister(Scene *scene, unsigned i)
{
    FakeListener *listener = &scene->listeners[i];

    scene->rdmc->unregister_listener(scene->rdm, &listener->rdl);
    g_assert_false(scene_is_registered(scene, i));
}

void scene_destroy(Scene *scene)
{
    for (unsigned i = 0; i < MAX_LISTENERS; i++) {
        if (scene_is_registered(scene, i)) {
            scene_unregister(scene, i);
        }
    }
    g_assert_true(QLIST_EMPTY(&scene->vmem->listeners));
    virtio_mem_blocks_free(scene->vmem->blocks);
    object_unref(OBJECT(scene->vmem));
}

int scene_plug(Scene *scene, VirtIOMEMRange range)
{
    const int ret = virtio_mem_rdm_ask_plug(scene->vmem, range);

    if (!ret) {
        virtio_mem_blocks_set_plugged(scene->vmem->blocks, range);
    }
    return ret;
}

void scene_unplug(Scene *scene, VirtIOMEMRange range)
{
    virtio_mem_rdm_tell_unplug(scene->vmem, range);
    virtio_mem_blocks_set_unplugged(scene->vmem->blocks, range);
}

void scene_unplug_all(Scene *scene)
{
    virtio_mem_rdm_tell_unplug_all(scene->vmem);
    virtio_mem_blocks_set_all_unplugged(scene->vmem->blocks);
}

bool scene_page_is_plugged(const Scene *scene, unsigned page)
{
    return virtio_mem_blocks_classify(scene->vmem->blocks, (VirtIOMEMRange) {
                                          page / BLOCK_PAGES, 1
                                      }) == VIRTIO_MEM_BLOCKS_PLUGGED;
}

void scene_assert_agreement(const Scene *scene)
{
    for (unsigned i = 0; i < MAX_LISTENERS; i++) {
        const FakeListener *listener = &scene->listeners[i];
        const PageRange pages = listener->pages;

        for (unsigned page = 0; page < NB_PAGES; page++) {
            g_assert_cmpint(listener->known[page], ==,
                            scene_is_registered(scene, i) &&
                            page >= pages.first &&
                            page < pages.first + pages.nb_pages &&
                            scene_page_is_plugged(scene, page));
        }
    }
}
