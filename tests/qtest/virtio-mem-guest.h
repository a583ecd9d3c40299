/*
 * A tiny guest with one virtio-mem-pci device: the vocabulary of its qtests.
 *
 * The words: a test gets a started guest (driver set up, DRIVER_OK), sets the
 * requested size, sends requests by block number and looks at answers, config
 * space, memory and events.  Each request is checked for form (3.0 of the
 * test plan): response poisoned before and guarded around, used.id is the head,
 * used.len is 10, bytes that carry nothing are zero, no config interrupt.
 *
 * Fixed names: @vm is the guest; B, A, R, U, P, Q in comments are block size,
 * address, region, usable, plugged and requested size.
 *
 * Layer: libqos (PCI, MSI-X, allocator) and virtio-mem-ring below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_GUEST_H
#define TESTS_QTEST_VIRTIO_MEM_GUEST_H

#include "qemu/units.h"
#include "libqtest.h"
#include "libqos/libqos-pc.h"
#include "libqos/virtio-pci.h"
#include "qobject/qdict.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_mem.h"
#include "virtio-mem-ring.h"

/* The default fixture: nothing plugged, U < R, everything 2 MiB aligned. */
#define VM_BLOCK        (2 * MiB)
#define VM_REGION       (64 * GiB)
#define VM_REQUESTED    (256 * MiB)
#define VM_RAM          (256 * MiB)

#define VM_BIT(nr)      (1ULL << (nr))

/*
 * What must happen soon: so much real time it has, on a busy host, and the test
 * fails and names what did not happen.  The condition may have side effects.
 * VIRTIO_MEM_TEST_WAIT has the seconds where many tests are going to fail.
 */
#define VM_WAIT_USEC    virtio_mem_wait_usec()
gint64 virtio_mem_wait_usec(void);

#define vm_wait_until(condition) do { \
        const gint64 end_ = g_get_monotonic_time() + VM_WAIT_USEC; \
        while (!(condition)) { \
            if (g_get_monotonic_time() > end_) { \
                g_assertion_message(G_LOG_DOMAIN, __FILE__, __LINE__, \
                                    G_STRFUNC, "no longer waiting until " \
                                    #condition); \
            } \
            g_usleep(50); \
        } \
    } while (0)

/*
 * How the driver talks to the device.  Chosen by the runner, so the same test
 * runs on each of them; see virtio_mem_variants[] for the list.
 */
typedef struct VirtioMemVariant {
    const char *name;       /* part of the test's path; "" for the plain one */
    bool packed;            /* packed ring */
    bool indirect;          /* requests in indirect tables */
    bool event_idx;         /* VIRTIO_RING_F_EVENT_IDX accepted */
    bool intx;              /* INTx and ISR instead of MSI-X */
    bool zeropage;          /* unplugged-inaccessible=off: no F1 */
    bool iommu;             /* q35, intel-iommu, ACCESS_PLATFORM, real IOVAs */
    bool pc;                /* only a PC has what it takes */
} VirtioMemVariant;

extern const VirtioMemVariant virtio_mem_variants[];
extern const size_t virtio_mem_nb_variants;

/* What the machine looks like.  A zero member means the default. */
typedef struct VirtioMemOptions {
    const char *machine;    /* -machine argument of a PC; chosen as needed */
    uint64_t block_size;    /* block-size; VM_BLOCK */
    uint64_t region_size;   /* size of the memory backend; VM_REGION */
    uint64_t requested;     /* requested-size at start; 0 means 0 */
    uint64_t memaddr;       /* memaddr; chosen by QEMU */
    const char *memdev;     /* -object arguments, size included, id=vmem0 */
    const char *device;     /* further device properties: "prealloc=on,..." */
    const char *args;       /* further command line */
    uint16_t ring_size;     /* slots of the queue; all that it may have */
    bool pcie;              /* q35, device behind a root port (for FLR) */
    bool no_device;         /* no virtio-mem: just vm->qts and vm->qs */
    bool no_driver;         /* device enabled, found, reset: status is 0 */
    bool may_notify;        /* the host is such that BUSY ends by itself */
    bool no_invariants;     /* the test leaves a device beyond checking */
    const VirtioMemVariant *variant; /* the runner's current one */
} VirtioMemOptions;

typedef struct VirtioMemGuest {
    QOSState *qs;           /* PCI bus and allocator */
    QTestState *qts;
    VirtioMemOptions opts;  /* defaults filled in */
    const VirtioMemVariant *variant;

    const char *id;         /* of the device in QEMU; "vm0" */
    int devfn;              /* 8 * slot, or 0x100 behind the root port */
    QVirtioPCIDevice *pci;  /* pci->pdev for config space, &pci->vdev */
    VirtioMemRing ring;
    QVirtQueuePCI vq;       /* vector and doorbell of the queue, no ring */
    uint64_t first_bar;     /* where BARs go after a system reset */
    uint64_t features;      /* as negotiated last */
    uint64_t dma_offset;    /* device address - guest physical address */
    bool running;           /* DRIVER_OK, ring set up */

    /* read from config space once; the node when features are negotiated */
    uint64_t block_size;    /* B */
    uint64_t addr;          /* A */
    uint64_t region_size;   /* R */
    uint16_t node_id;

    /* where requests and responses live: 64 guard bytes on both sides */
    uint64_t req_gpa;       /* 4096 bytes, page aligned */
    uint64_t resp_gpa;      /* 4096 bytes, page aligned */

    /* seen, not yet taken by the test */
    bool config_irq;
    bool queue_irq;
    unsigned size_events;
    uint64_t event_size;
    bool attached;          /* shares vm->qs with the guest that booted */
} VirtioMemGuest;

/* --- the machine --- */

/* Whether that is a PC, or else arm's virt: the emulator's name decides. */
bool virtio_mem_machine_is_pc(void);
/* Where VM_RAM bytes of boot memory begin. */
uint64_t virtio_mem_ram(void);
/* VIRTIO_MEM_F_PERSISTENT_SUSPEND where the machine can suspend, or 0. */
uint64_t virtio_mem_suspend_feature(void);

/* --- life --- */

/* Boot, find the device, negotiate, DRIVER_OK.  NULL means all defaults. */
VirtioMemGuest *virtio_mem_guest_start(const VirtioMemOptions *opts);
void virtio_mem_guest_stop(VirtioMemGuest *vm);
/*
 * As if just started: requested size 0, system reset, all guest memory free
 * again, driver up, no interrupt or event left over.  Default options only.
 */
void virtio_mem_guest_recycle(VirtioMemGuest *vm);
/*
 * A device that came later (device_add) or a second one: find it at @devfn
 * in the machine of @vm and bring its driver up.  The result knows interrupts,
 * requests and config space like any other; _stop leaves the machine alone.
 */
VirtioMemGuest *virtio_mem_guest_attach(VirtioMemGuest *vm, const char *id,
                                        int devfn);
/* The command line _start would use; caller frees.  For -incoming and such. */
char *virtio_mem_guest_command(const VirtioMemOptions *opts);

/*
 * The driver's way up, in one step and in its parts.  @accept are the features
 * the driver wants; only offered ones are written.  Returns whether FEATURES_OK
 * stuck; if not, the device is left at that point.
 */
bool virtio_mem_driver_up(VirtioMemGuest *vm, uint64_t accept);
uint64_t virtio_mem_offered_features(VirtioMemGuest *vm);
uint64_t virtio_mem_default_features(VirtioMemGuest *vm);
bool virtio_mem_negotiate(VirtioMemGuest *vm, uint64_t accept);
void virtio_mem_write_features(VirtioMemGuest *vm, uint64_t features);
void virtio_mem_queue_up(VirtioMemGuest *vm, uint16_t size); /* 0: maximum */
void virtio_mem_driver_ok(VirtioMemGuest *vm);

uint8_t virtio_mem_status(VirtioMemGuest *vm);
void vm_set_status(VirtioMemGuest *vm, uint8_t status);

/* Resets.  _device_reset: status 0, waits until it reads 0. */
void virtio_mem_device_reset(VirtioMemGuest *vm);
/* Machine reset, then PCI (and vIOMMU) set up again; driver not up. */
void virtio_mem_system_reset(VirtioMemGuest *vm);
/* Function level reset, then PCI set up again; needs opts.pcie. */
void virtio_mem_flr(VirtioMemGuest *vm);
/* Enable the device, BARs, MSI-X after something cleared PCI config space. */
void virtio_mem_pci_up(VirtioMemGuest *vm);
/* device_reset or system_reset, then driver_up with the default features. */
void virtio_mem_restart_driver(VirtioMemGuest *vm);

/*
 * Another modern virtio device, in @slot: its driver, with no feature but
 * VIRTIO_F_VERSION_1, up to where it sets queues up; then to its end, with
 * queue 0 at the addresses in @vq.
 */
QVirtioPCIDevice *virtio_mem_neighbour_start(VirtioMemGuest *vm, int slot);
void virtio_mem_neighbour_go(QVirtioPCIDevice *dev, QVirtQueue *vq);
void virtio_mem_neighbour_free(QVirtioPCIDevice *dev);

/* --- requests --- */

/* One request; name what matters, leave the rest zero. */
typedef struct VmRequest {
    uint16_t type;          /* VIRTIO_MEM_REQ_* or anything */
    uint64_t addr;          /* guest address, as on the wire */
    uint16_t nb_blocks;
    uint8_t junk;           /* fills the padding bytes */
    uint64_t req_gpa;       /* where to put the request; vm->req_gpa */
    uint64_t resp_gpa;      /* where to get the response; vm->resp_gpa */
    bool may_notify;        /* a config interrupt is not a mistake */
} VmRequest;

typedef struct VmAnswer {
    uint16_t type;          /* VIRTIO_MEM_RESP_* */
    uint16_t state;         /* VIRTIO_MEM_STATE_*, after an ACKed STATE */
} VmAnswer;

/* Send, wait for the answer, check its form.  Fails the test on BROKEN. */
VmAnswer virtio_mem_request(VirtioMemGuest *vm,
                            const VmRequest *req);
#define virtio_mem_req(vm, ...) \
    virtio_mem_request(vm, &(VmRequest){ __VA_ARGS__ })

/* The two halves: add without kick, and take an answer that must be there. */
uint16_t virtio_mem_queue_request(VirtioMemGuest *vm,
                                  const VmRequest *req);
VmAnswer virtio_mem_read_answer(VirtioMemGuest *vm, uint64_t resp_gpa);
/* Wait for one used entry. */
VirtioMemUsed virtio_mem_wait_used(VirtioMemGuest *vm);
/* Ring the doorbell if the device wants it; _force always does. */
void virtio_mem_kick(VirtioMemGuest *vm);
void virtio_mem_kick_force(VirtioMemGuest *vm);
/*
 * For chains of one's own: publish @segments the variant's way, direct or
 * indirect, and write a request's 24 bytes anywhere.
 */
uint16_t virtio_mem_add_chain(VirtioMemGuest *vm,
                              const VirtioMemSegment *segments, unsigned nb);
void virtio_mem_format_request(uint8_t bytes[24], const VmRequest *req);
void virtio_mem_write_request(VirtioMemGuest *vm, uint64_t gpa,
                              const VmRequest *req);
/* A device address for a guest physical one. */
uint64_t virtio_mem_dma(VirtioMemGuest *vm, uint64_t gpa);

/* blk(i): the guest address of block @i.  Any 64-bit number will do. */
uint64_t virtio_mem_block_gpa(VirtioMemGuest *vm, uint64_t index);
/* The verbs, by block number; they return the response type. */
uint16_t vm_plug(VirtioMemGuest *vm, uint64_t first, uint16_t nb);
uint16_t vm_unplug(VirtioMemGuest *vm, uint64_t first, uint16_t nb);
uint16_t vm_unplug_all(VirtioMemGuest *vm);
VmAnswer vm_state(VirtioMemGuest *vm, uint64_t first,
                  uint16_t nb);

/* Assertions that print what was asked and what came. */
#define vm_assert_plug(vm, first, nb, resp) \
    g_assert_cmpuint(vm_plug(vm, first, nb), ==, \
                     VIRTIO_MEM_RESP_##resp)
#define vm_assert_unplug(vm, first, nb, resp) \
    g_assert_cmpuint(vm_unplug(vm, first, nb), ==, \
                     VIRTIO_MEM_RESP_##resp)
#define vm_assert_unplug_all(vm, resp) \
    g_assert_cmpuint(vm_unplug_all(vm), ==, VIRTIO_MEM_RESP_##resp)
#define vm_assert_state(vm, first, nb, is) do { \
        VmAnswer a_ = vm_state(vm, first, nb); \
        g_assert_cmpuint(a_.type, ==, VIRTIO_MEM_RESP_ACK); \
        g_assert_cmpuint(a_.state, ==, VIRTIO_MEM_STATE_##is); \
    } while (0)
/* P in blocks. */
#define vm_assert_plugged(vm, nb) \
    g_assert_cmpuint(vm_plugged_size(vm), ==, (nb) * (vm)->block_size)

/* --- what can be seen --- */

/* Config space; @offset is offsetof(struct virtio_mem_config, member). */
uint64_t virtio_mem_config_read(VirtioMemGuest *vm, unsigned offset,
                                unsigned width);
void virtio_mem_config_write(VirtioMemGuest *vm, unsigned offset,
                             unsigned width, uint64_t value);
uint8_t virtio_mem_config_generation(VirtioMemGuest *vm);
uint64_t virtio_mem_usable_size(VirtioMemGuest *vm);
uint64_t vm_plugged_size(VirtioMemGuest *vm);
uint64_t virtio_mem_requested_size(VirtioMemGuest *vm);
/* Number of usable blocks and of requested blocks. */
uint64_t virtio_mem_usable_blocks(VirtioMemGuest *vm);
uint64_t virtio_mem_requested_blocks(VirtioMemGuest *vm);

/* Virtio common config registers, by offset in virtio_pci_common_cfg. */
uint64_t virtio_mem_common_read(VirtioMemGuest *vm, unsigned offset,
                                unsigned width);
void virtio_mem_common_write(VirtioMemGuest *vm, unsigned offset,
                             unsigned width, uint64_t value);

/*
 * Interrupts, MSI-X or INTx: was there one since last asked?  Events that
 * share a register (the ISR) do not swallow each other.
 */
bool virtio_mem_take_config_irq(VirtioMemGuest *vm);
bool virtio_mem_take_queue_irq(VirtioMemGuest *vm);

/* Guest memory. */
void virtio_mem_fill(VirtioMemGuest *vm, uint64_t gpa, uint8_t byte,
                     uint64_t size);
bool virtio_mem_is_filled(VirtioMemGuest *vm, uint64_t gpa, uint8_t byte,
                          uint64_t size);
/* A pattern that depends on the address, at both ends and in the middle. */
void virtio_mem_write_pattern(VirtioMemGuest *vm, uint64_t first, uint64_t nb,
                              uint8_t seed);
bool virtio_mem_check_pattern(VirtioMemGuest *vm, uint64_t first, uint64_t nb,
                              uint8_t seed);

/* --- the host's side --- */

/*
 * Set requested-size by QMP; must succeed.  With DRIVER_OK one config
 * interrupt must follow and is taken.
 */
void virtio_mem_set_requested(VirtioMemGuest *vm, uint64_t size);
/* The same, any QMP value (JSON text); true on success; error text if asked. */
bool virtio_mem_try_requested(VirtioMemGuest *vm, const char *json,
                              char **error);
/* The text of the error in a QMP response, or NULL; unrefs the response. */
char *virtio_mem_take_error(QDict *response);
/* What query-jobs says of a job, or NULL if there is none; caller unrefs. */
QDict *virtio_mem_find_job(VirtioMemGuest *vm, const char *id);
/* A device property by QMP (on the proxy); virtio-mem's @id is "vm0". */
uint64_t virtio_mem_qom_get(VirtioMemGuest *vm, const char *property);
/* query-memory-devices' entry for the device; caller unrefs. */
QDict *virtio_mem_query(VirtioMemGuest *vm);
/* What it says of the resize; @reason is NULL if there must be none. */
void virtio_mem_assert_resize(VirtioMemGuest *vm, const char *status,
                              const char *reason);
/* Whether unplugged memory is out of reach, by query-memory-devices. */
bool virtio_mem_is_protected(VirtioMemGuest *vm);
/*
 * What QEMU would do about what was done so far is done then, but for host
 * work: the main loop serves all that waits before it serves the monitor, and
 * what it finds to do meanwhile the next time.
 */
void virtio_mem_let_main_loop_turn(VirtioMemGuest *vm);
/*
 * MEMORY_DEVICE_SIZE_CHANGE events since last asked, after letting the
 * rate limit pass; @size gets the last one's size (may be NULL).
 */
unsigned virtio_mem_take_size_events(VirtioMemGuest *vm, uint64_t *size);
/*
 * BUSY: start an outgoing migration that cannot end by itself, and cancel it.
 * _end_busy returns when the migration is over.
 */
void virtio_mem_begin_busy(VirtioMemGuest *vm);
void virtio_mem_end_busy(VirtioMemGuest *vm);
/* device_add that must fail; returns the error's text; caller frees. */
char *virtio_mem_device_add_error(QTestState *qts, const char *fmt, ...)
    G_GNUC_PRINTF(2, 3);

/* --- checks --- */

/* What holds between any two steps (3.0); walks the bitmap by STATE. */
void virtio_mem_check_invariants(VirtioMemGuest *vm);
/* Bitmap by STATE, one bit per usable block; caller frees. */
unsigned long *virtio_mem_read_bitmap(VirtioMemGuest *vm, uint64_t *nb);
/*
 * BROKEN: NEEDS_RESET with a config interrupt, deaf to kicks, P unchanged at
 * @plugged bytes; then reset, driver up, and P(free block) works.
 */
void virtio_mem_check_broken(VirtioMemGuest *vm, uint64_t plugged);
bool virtio_mem_is_broken(VirtioMemGuest *vm);

/* --- the runner --- */

typedef struct VirtioMemTest {
    const char *numbers;        /* of the test plan, space separated */
    const char *path;           /* the claim: noun/what-holds */
    void (*fn)(VirtioMemGuest *vm);
    const VirtioMemOptions *options;
    bool once;                  /* ring does not matter: plain variant only */
    bool no_guest;              /* fn gets NULL and starts what it needs ... */
    bool each_variant;          /* ... once, or in each variant */
    bool fresh;                 /* fn needs, or spoils, a QEMU of its own */
    bool guard;                 /* skipped where there can be no guard */
    bool pc;                    /* skipped where the machine is no PC */
} VirtioMemTest;

/*
 * Register @tests as /virtio-mem/PATH, and as /virtio-mem/VARIANT/PATH for the
 * other variants.  Each gets a guest as if just booted, checked by
 * _check_invariants at its end.  To save time, tests with neither options nor
 * .fresh share one QEMU per variant, recycled by a system reset in between.
 * A row is { "T032", "plug/beyond-requested-size-is-nack", fn },
 * optionally followed by .options and others.
 * A test that names a machine in its options is about a PC, too.
 */
void virtio_mem_add_tests(const VirtioMemTest *tests, size_t nb);

#endif
