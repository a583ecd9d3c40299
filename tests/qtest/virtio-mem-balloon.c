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
static void balloon_send(VirtioMemBalloon *balloon, uint64_t total,
                         uint64_t available)
{
    const struct virtio_balloon_stat stats[] = {
        { cpu_to_le16(VIRTIO_BALLOON_S_SWAP_IN),
          cpu_to_le64(++balloon->nb_reports) },
        { cpu_to_le16(VIRTIO_BALLOON_S_MEMTOT), cpu_to_le64(total) },
        { cpu_to_le16(VIRTIO_BALLOON_S_AVAIL), cpu_to_le64(available) },
    };
    const size_t nb = total ? ARRAY_SIZE(stats) : 1;
    QTestState *qts = balloon->vm->qts;
    uint32_t head;

    g_assert_true(virtio_mem_balloon_is_asked(balloon));
    balloon->asked = false;
    qtest_memwrite(qts, balloon->buffer, stats, nb * sizeof(stats[0]));
    head = qvirtqueue_add(qts, balloon->vq, balloon->buffer,
                          nb * sizeof(stats[0]), false, false);
    qvirtqueue_kick(qts, &balloon->pci->vdev, balloon->vq, head);
    vm_wait_until(virtio_mem_balloon_stat(balloon, "stat-swap-in") ==
                  balloon->nb_reports);
}

void virtio_mem_balloon_report(VirtioMemBalloon *balloon, uint64_t total,
                               uint64_t available)
{
    g_assert_cmpuint(total, >, 0);
    balloon_send(balloon, total, available);
}

void virtio_mem_balloon_report_nothing(VirtioMemBalloon *balloon)
{
    balloon_send(balloon, 0, 0);
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
