/*
 * The driver of a balloon's statistics.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "standard-headers/linux/virtio_balloon.h"
#include "virtio-mem-balloon.h"

#define BALLOON_SLOT 6
#define BALLOON_STATS_QUEUE 2

struct VirtioMemBalloon {
    VirtioMemGuest *vm;
    QVirtioPCIDevice *pci;
    QVirtQueue *vq;
    uint64_t buffer;
    bool asked;                 /* the buffer is ours */
    int64_t nb_reports;
};

VirtioMemBalloon *virtio_mem_balloon_start(VirtioMemGuest *vm)
{
    QPCIAddress address = { .devfn = QPCI_DEVFN(BALLOON_SLOT, 0) };
    VirtioMemBalloon *balloon = g_new0(VirtioMemBalloon, 1);

    balloon->vm = vm;
    balloon->pci = virtio_pci_new(vm->qs->pcibus, &address);
    g_assert_nonnull(balloon->pci);
    qvirtio_pci_device_enable(balloon->pci);
    qvirtio_start_device(&balloon->pci->vdev);
    qvirtio_set_features(&balloon->pci->vdev,
                         VM_BIT(VIRTIO_F_VERSION_1) |
                         VM_BIT(VIRTIO_BALLOON_F_STATS_VQ));
    balloon->vq = qvirtqueue_setup(&balloon->pci->vdev, &vm->qs->alloc,
                                   BALLOON_STATS_QUEUE);
    qvirtio_set_driver_ok(&balloon->pci->vdev);
    balloon->buffer = guest_alloc(&vm->qs->alloc, 4096);
    balloon->asked = true;
    return balloon;
}

void virtio_mem_balloon_free(VirtioMemBalloon *balloon)
{
    qvirtqueue_cleanup(balloon->pci->vdev.bus, balloon->vq,
                       &balloon->vm->qs->alloc);
    qvirtio_pci_destructor(&balloon->pci->obj);
    g_free(balloon->pci);
    g_free(balloon);
}

int64_t virtio_mem_balloon_stat(VirtioMemBalloon *balloon, const char *name)
{
    QDict *response = qtest_qmp(balloon->vm->qts, "{ 'execute': 'qom-get',"
                                " 'arguments': { 'property': 'guest-stats',"
                                " 'path': '/machine/peripheral/balloon0' } }");
    QDict *stats = qdict_get_qdict(qdict_get_qdict(response, "return"),
                                   "stats");
    const int64_t value = qdict_get_int(stats, name);

    qobject_unref(response);
    return value;
}

/* Each report has another number, so that QEMU shows which it has. */
static void balloon_send(VirtioMemBalloon *balloon,
                         const struct virtio_balloon_stat *stats, size_t nb)
{
    const struct virtio_balloon_stat number = {
        cpu_to_le16(VIRTIO_BALLOON_S_SWAP_IN),
        cpu_to_le64(++balloon->nb_reports),
    };
    QTestState *qts = balloon->vm->qts;
    uint32_t head;

    g_assert_true(virtio_mem_balloon_is_asked(balloon));
    balloon->asked = false;
    qtest_memwrite(qts, balloon->buffer, &number, sizeof(number));
    if (nb) {
        qtest_memwrite(qts, balloon->buffer + sizeof(number), stats,
                       nb * sizeof(number));
    }
    head = qvirtqueue_add(qts, balloon->vq, balloon->buffer,
                          (nb + 1) * sizeof(number), false, false);
    qvirtqueue_kick(qts, &balloon->pci->vdev, balloon->vq, head);
    vm_wait_until(virtio_mem_balloon_stat(balloon, "stat-swap-in") ==
                  balloon->nb_reports);
}

void virtio_mem_balloon_report(VirtioMemBalloon *balloon, uint64_t total,
                               uint64_t available)
{
    const struct virtio_balloon_stat stats[] = {
        { cpu_to_le16(VIRTIO_BALLOON_S_MEMTOT), cpu_to_le64(total) },
        { cpu_to_le16(VIRTIO_BALLOON_S_AVAIL), cpu_to_le64(available) },
    };

    balloon_send(balloon, stats, ARRAY_SIZE(stats));
}

void virtio_mem_balloon_report_nothing(VirtioMemBalloon *balloon)
{
    balloon_send(balloon, NULL, 0);
}

void virtio_mem_balloon_report_all(VirtioMemBalloon *balloon,
                                   const VirtioMemReport *report)
{
    const struct virtio_balloon_stat stats[] = {
        { cpu_to_le16(VIRTIO_BALLOON_S_MEMTOT), cpu_to_le64(report->total) },
        { cpu_to_le16(VIRTIO_BALLOON_S_AVAIL),
          cpu_to_le64(report->available) },
        { cpu_to_le16(VIRTIO_BALLOON_S_SWAP_OUT),
          cpu_to_le64(report->swap_out) },
        { cpu_to_le16(VIRTIO_BALLOON_S_OOM_KILL),
          cpu_to_le64(report->oom_kills) },
        { cpu_to_le16(VIRTIO_BALLOON_S_ALLOC_STALL),
          cpu_to_le64(report->alloc_stalls) },
    };

    balloon_send(balloon, stats, ARRAY_SIZE(stats));
}

bool virtio_mem_balloon_is_asked(VirtioMemBalloon *balloon)
{
    uint32_t head;

    if (!balloon->asked) {
        balloon->asked = qvirtqueue_get_buf(balloon->vm->qts, balloon->vq,
                                            &head, NULL);
    }
    return balloon->asked;
}
