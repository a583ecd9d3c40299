/*
 * virtio-mem: the host refuses while a device comes, moves and goes
 *
 * Each call of each event fails once, and then every second one by chance.
 * What cannot be done is told, what is plugged stays as it is, and without
 * faults the same event succeeds.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qlist.h"
#include "qobject/qstring.h"
#include "virtio-mem-faults.h"
#include "virtio-mem-huge-pages.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-scene.h"
#include "virtio-mem-snapshots.h"

/* More calls than any event has, and how often chance decides. */
#define LIFE_MANY 100000
#define LIFE_NB_RANDOM 20

#define LIFE_REGION (1 * GiB)

typedef struct LifeEvent {
    /* What was said if it failed (caller frees), or NULL. */
    char *(*run)(VirtioMemGuest *vm);
    /* That it came to what was said. */
    void (*check)(VirtioMemGuest *vm, const char *error);
    uint32_t calls;             /* that are made, and others may be */
} LifeEvent;

/* Returns how many calls have failed. */
static uint32_t life_run(VirtioMemGuest *vm, const LifeEvent *event)
{
    g_autofree char *error = event->run(vm);
    const uint32_t nb = virtio_mem_faults_end();

    if (error) {
        g_test_message("%s", error);
        g_assert_cmpuint(nb, >, 0);
        g_assert_cmpuint(strlen(error), >, 0);
    }
    event->check(vm, error);
    return nb;
}

static void life_each(VirtioMemGuest *vm, const LifeEvent *event)
{
    for (VirtioMemHostFault call = 0; call < VM_FAULT__MAX; call++) {
        uint32_t after = 0, nb = 0;

        do {
            g_assert_cmpuint(after, <, LIFE_MANY);
            virtio_mem_faults_begin(call, after);
            /* Those of a snapshot are many, and alike. */
            after += 1 + after / 4;
        } while (life_run(vm, event) && ++nb);
        g_test_message("call %d: %u faults", call, nb);
        if (event->calls & (1u << call)) {
            g_assert_cmpuint(nb, >, 0);
        }
    }
}

static void life_at_random(VirtioMemGuest *vm, const LifeEvent *event)
{
    uint32_t nb = 0;

    for (unsigned i = 0; i < LIFE_NB_RANDOM; i++) {
        virtio_mem_faults_begin_at_random(1 + (uint32_t)g_test_rand_int() / 2);
        nb += life_run(vm, event);
    }
    g_test_message("%u faults", nb);
    g_assert_cmpuint(nb, >, 0);
}

/* Nothing fails. */
static void life_well(VirtioMemGuest *vm, const LifeEvent *event)
{
    virtio_mem_faults_begin(0, UINT32_MAX);
    g_assert_cmpuint(life_run(vm, event), ==, 0);
}

static void life_test(VirtioMemGuest *vm, const LifeEvent *event)
{
    life_each(vm, event);
    life_at_random(vm, event);
    life_well(vm, event);
}

/* --- it comes and goes --- */

#define LIFE_SLOT 4

static const char *life_memdev;
static unsigned life_nb_files;      /* open after the device has gone */

static unsigned life_count_files(VirtioMemGuest *vm)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd",
                                            (int)qtest_pid(vm->qts));
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    unsigned nb = 0;

    while (g_dir_read_name(dir)) {
        nb++;
    }
    return nb;
}

static char *life_come_and_go(VirtioMemGuest *vm)
{
    char *error = virtio_mem_take_error(
        qtest_qmp(vm->qts, "{ 'execute': 'device_add', 'arguments': {"
                  " 'driver': 'virtio-mem-pci', 'id': 'vm0', 'addr': '4',"
                  " 'memdev': %s } }", life_memdev));

    if (!error) {
        qpci_unplug_acpi_device_test(vm->qts, "vm0", LIFE_SLOT);
    }
    return error;
}

/* Nothing is left of it, whether it came or not. */
static void life_check_gone(VirtioMemGuest *vm, const char *error)
{
    QDict *response = qtest_qmp(vm->qts,
                                "{ 'execute': 'query-memory-devices' }");

    g_assert_true(qlist_empty(qdict_get_qlist(response, "return")));
    qobject_unref(response);
    if (!error && !life_nb_files) {
        life_nb_files = life_count_files(vm);
    }
    g_assert_cmpuint(life_count_files(vm), <=, life_nb_files);
}

static void test_come_and_go(VirtioMemGuest *unused)
{
    const uint32_t guarded = 1u << VM_FAULT_MADVISE | 1u << VM_FAULT_UFFD |
                             1u << VM_FAULT_EVENTFD | 1u << VM_FAULT_OPEN |
                             1u << VM_FAULT_THREAD;
    const struct {
        const char *memdev;
        uint32_t calls;
    } kinds[] = {
        { "vmem0", guarded },
        { "vmem1", guarded },
        { "vmem2", guarded | 1u << VM_FAULT_FALLOCATE },
        { "vmem3", 1u << VM_FAULT_MADVISE | 1u << VM_FAULT_FILE |
                   1u << VM_FAULT_MEMORY },
    };
    g_autofree char *path = g_strdup_printf("/dev/shm/virtio-mem-%d",
                                            (int)getpid());
    g_autofree char *args = g_strdup_printf(
        "-object thread-context,id=tc0"
        " -object memory-backend-ram,id=vmem1,size=1G,reserve=off,"
        "prealloc-context=tc0,prealloc-threads=4"
        " -object memory-backend-memfd,id=vmem2,size=1G,reserve=off,share=off"
        " -object memory-backend-file,id=vmem3,size=1G,reserve=off,share=off,"
        "mem-path=%s", path);
    const VirtioMemOptions opts = {
        .no_device = true, .region_size = LIFE_REGION,
        .args = args,
    };
    VirtioMemGuest *vm = virtio_mem_faults_start(&opts);

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        const LifeEvent event = {
            life_come_and_go, life_check_gone, kinds[i].calls,
        };

        life_memdev = kinds[i].memdev;
        life_nb_files = 0;
        life_well(vm, &event);
        life_test(vm, &event);
    }
    virtio_mem_guest_stop(vm);
    unlink(path);
}

/* --- snapshots --- */

static VirtioMemScene *life_scene;
static VirtioMemRing life_ring;

static char *life_load(VirtioMemGuest *vm)
{
    return virtio_mem_snapshot_try(vm, "snapshot-load");
}

/* One that was refused leaves a guest that stands still. */
static void life_check_loaded(VirtioMemGuest *vm, const char *error)
{
    if (error) {
        virtio_mem_snapshot_do(vm, "snapshot-load");
    }
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
    vm->ring = life_ring;
    virtio_mem_take_config_irq(vm);
    virtio_mem_scene_check(vm, life_scene);
}

static void test_load(VirtioMemGuest *unused)
{
    static const LifeEvent event = {
        life_load, life_check_loaded,
        1u << VM_FAULT_MADVISE | 1u << VM_FAULT_UFFD,
    };
    VirtioMemGuest *vm = virtio_mem_faults_start(&(VirtioMemOptions) {
        .region_size = LIFE_REGION, .may_notify = true,
    });

    life_scene = virtio_mem_scene_make(vm);
    virtio_mem_snapshot_add_disk(vm);
    virtio_mem_snapshot_do(vm, "snapshot-save");
    life_ring = vm->ring;
    life_test(vm, &event);
    virtio_mem_scene_free(life_scene);
    virtio_mem_guest_stop(vm);
}

static bool life_is_saved(VirtioMemGuest *vm, char **error)
{
    QDict *response = qtest_qmp(vm->qts, "{ 'execute': 'query-migrate' }");
    QDict *info = qdict_get_qdict(response, "return");
    const char *status = qdict_get_str(info, "status");
    const bool failed = g_str_equal(status, "failed");
    const bool ret = failed || g_str_equal(status, "completed");

    if (failed) {
        *error = g_strdup(qdict_get_try_str(info, "error-desc") ?: status);
    }
    qobject_unref(response);
    return ret;
}

static unsigned life_count_traces(const char *event)
{
    g_autofree char *path = virtio_mem_temp_path("drain.log");
    g_autofree char *log = NULL;
    unsigned nb = 0;

    if (g_file_get_contents(path, &log, NULL, NULL)) {
        for (const char *at = log; (at = strstr(at, event)); at++) {
            nb++;
        }
    }
    return nb;
}

static char *life_save(VirtioMemGuest *vm)
{
    const unsigned nb_before = life_count_traces("guard_pause");
    char *error = virtio_mem_take_error(
        qtest_qmp(vm->qts, "{ 'execute': 'migrate', 'arguments': {"
                  " 'uri': 'exec:cat > /dev/null' } }"));

    if (!error) {
        vm_wait_until(life_is_saved(vm, &error));
    }
    /* The device hears of it a little later, in the main loop. */
    vm_wait_until(life_count_traces("guard_resume") ==
                  life_count_traces("guard_pause"));
    g_assert_true(error || life_count_traces("guard_pause") > nb_before);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'query-status' }");
    return error;
}

/* The guest goes on, and soon its unplugged memory is out of reach again. */
static void life_check_saved(VirtioMemGuest *vm, const char *error)
{
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
    vm_wait_until(virtio_mem_is_protected(vm));
    virtio_mem_take_config_irq(vm);
    virtio_mem_scene_check(vm, life_scene);
}

static void test_save(VirtioMemGuest *unused)
{
    static const LifeEvent event = {
        life_save, life_check_saved,
        1u << VM_FAULT_MADVISE | 1u << VM_FAULT_UFFD,
    };
    VirtioMemGuest *vm = virtio_mem_faults_start(&(VirtioMemOptions) {
        .region_size = LIFE_REGION, .may_notify = true,
        .args = "-trace virtio_mem_guard_pause -trace virtio_mem_guard_resume",
    });

    life_scene = virtio_mem_scene_make(vm);
    if (virtio_mem_migrate_can(vm, "background-snapshot")) {
        life_test(vm, &event);
    }
    virtio_mem_scene_free(life_scene);
    virtio_mem_guest_stop(vm);
}

/* --- huge pages that the host has not --- */

#define LIFE_TOUCHED 8

/* What is touched consists of ordinary memory, until it shall be plugged. */
static char *life_touch(VirtioMemGuest *vm)
{
    for (unsigned i = 0; i < LIFE_TOUCHED; i++) {
        g_assert_true(virtio_mem_is_filled(vm, virtio_mem_block_gpa(vm, 2 * i),
                                           0, 16));
    }
    g_assert_cmpuint(vm_plug(vm, 0, 4), ==, VIRTIO_MEM_RESP_BUSY);
    g_assert_cmpuint(vm_plug(vm, 4, 1), ==, VIRTIO_MEM_RESP_BUSY);
    return NULL;
}

/* Nor is anything plugged. */
static void life_check_empty(VirtioMemGuest *vm, const char *error)
{
    virtio_mem_check_invariants(vm);
    vm_wait_until(virtio_mem_is_protected(vm));
    vm_assert_plugged(vm, 0);
    vm_assert_unplug_all(vm, ACK);
    virtio_mem_take_config_irq(vm);
}

static void test_no_huge_pages(VirtioMemGuest *unused)
{
    static const LifeEvent event = {
        life_touch, life_check_empty,
        1u << VM_FAULT_MADVISE | 1u << VM_FAULT_UFFD | 1u << VM_FAULT_MMAP |
        1u << VM_FAULT_FILE,
    };
    VirtioMemGuest *vm;

    if (!virtio_mem_huge_make_free(0)) {
        return;
    }
    vm = virtio_mem_faults_start(&(VirtioMemOptions) {
        .memdev = "memory-backend-memfd,id=vmem0,size=1G,reserve=off,"
                  "hugetlb=on,hugetlbsize=2M",
        .region_size = LIFE_REGION, .device = "prealloc=on",
        .may_notify = true,
    });
    virtio_mem_set_requested(vm, VM_REQUESTED);
    /*
     * Not by chance: where the kernel refuses to watch memory and then refuses
     * to watch it again, nothing guards it, and who touches a huge page that
     * the host has not gets SIGBUS.
     */
    life_each(vm, &event);
    life_well(vm, &event);
    virtio_mem_guest_stop(vm);
    virtio_mem_huge_done();
}

static const VirtioMemTest tests[] = {
    { "", "fault/come-and-go", test_come_and_go, .no_guest = true,
      .guard = true, .pc = true },
    { "", "fault/snapshot-load", test_load, .no_guest = true, .guard = true },
    { "", "fault/background-snapshot", test_save, .no_guest = true,
      .guard = true },
    { "", "fault/no-huge-pages", test_no_huge_pages, .no_guest = true,
      .guard = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
