/*
 * virtio-mem: DMA of devices without virtio that names unplugged memory
 *
 * It is QEMU that reads and writes the guest's memory then, with the BQL held.
 * What it writes there is lost, and costs no memory; the request ends as if all
 * were well.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "block/nvme.h"
#include "standard-headers/linux/qemu_fw_cfg.h"
#include "virtio-mem-host-memory.h"

/* So many blocks that lending a page or its table in each would show. */
#define DMA_BLOCKS 512

/* --- fw_cfg --- */

#define FW_CFG_DMA_PORT 0x514

/* More than the guard lends at a time. */
#define FW_CFG_SIZE (1 * MiB)

/* Behind the signature there are zeros. */
static void fw_cfg_read(VirtioMemGuest *vm, uint64_t control, uint64_t gpa)
{
    const struct fw_cfg_dma_access access = {
        .control = cpu_to_be32(FW_CFG_DMA_CTL_SELECT | FW_CFG_DMA_CTL_READ |
                               FW_CFG_SIGNATURE << 16),
        .length = cpu_to_be32(FW_CFG_SIZE),
        .address = cpu_to_be64(gpa),
    };

    qtest_memwrite(vm->qts, control, &access, sizeof(access));
    qtest_outl(vm->qts, FW_CFG_DMA_PORT, bswap32(control >> 32));
    qtest_outl(vm->qts, FW_CFG_DMA_PORT + 4, bswap32(control));
    g_assert_cmphex(qtest_readl(vm->qts, control), ==, 0);
}

static void test_fw_cfg(VirtioMemGuest *vm)
{
    const uint64_t control = guest_alloc(&vm->qs->alloc, 4096);
    uint64_t before, gpa;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    fw_cfg_read(vm, control, vm->addr);
    fw_cfg_read(vm, control, virtio_mem_block_gpa(vm, 1));

    before = virtio_mem_host_memory(vm);
    for (uint64_t i = 1; i < DMA_BLOCKS; i++) {
        gpa = virtio_mem_block_gpa(vm, i);
        fw_cfg_read(vm, i % 2 ? control : gpa + FW_CFG_SIZE, gpa);
    }
    virtio_mem_assert_gain(vm, before, 1 * MiB);
    g_assert_true(virtio_mem_is_filled(vm, virtio_mem_block_gpa(vm, 1), 0,
                                       FW_CFG_SIZE));
    g_assert_cmphex(qtest_readl(vm->qts, vm->addr), ==, ldl_le_p("QEMU"));
}

/* --- NVMe --- */

#define NVME_ENTRIES 64
#define NVME_DOORBELL 0x1000

typedef struct Nvme {
    VirtioMemGuest *vm;
    QPCIDevice *pci;
    QPCIBar bar;
    uint64_t submissions;       /* the administrator's queue */
    uint64_t completions;
    unsigned int nb_done;
} Nvme;

static void nvme_up(Nvme *nvme)
{
    VirtioMemGuest *vm = nvme->vm;

    nvme->pci = qpci_device_find(vm->qs->pcibus, QPCI_DEVFN(5, 0));
    g_assert_nonnull(nvme->pci);
    qpci_device_enable(nvme->pci);
    nvme->bar = qpci_iomap(nvme->pci, 0, NULL);
    nvme->submissions = guest_alloc(&vm->qs->alloc, 4096);
    nvme->completions = guest_alloc(&vm->qs->alloc, 4096);
    qtest_memset(vm->qts, nvme->completions, 0, 4096);

    qpci_io_writel(nvme->pci, nvme->bar, NVME_REG_AQA,
                   (NVME_ENTRIES - 1) << 16 | (NVME_ENTRIES - 1));
    qpci_io_writeq(nvme->pci, nvme->bar, NVME_REG_ASQ, nvme->submissions);
    qpci_io_writeq(nvme->pci, nvme->bar, NVME_REG_ACQ, nvme->completions);
    qpci_io_writel(nvme->pci, nvme->bar, NVME_REG_CC, 1 << CC_EN_SHIFT);
    vm_wait_until(qpci_io_readl(nvme->pci, nvme->bar, NVME_REG_CSTS) &
                  NVME_CSTS_READY);
}

/* Whether the entry is there, which a bit tells that flips in each round. */
static bool nvme_is_done(const Nvme *nvme, uint64_t entry)
{
    const bool phase = !(nvme->nb_done / NVME_ENTRIES % 2);

    return (qtest_readw(nvme->vm->qts, entry + offsetof(NvmeCqe, status)) & 1)
           == phase;
}

static void nvme_identify(Nvme *nvme, uint64_t gpa)
{
    const unsigned int i = nvme->nb_done % NVME_ENTRIES;
    const unsigned int next = (i + 1) % NVME_ENTRIES;
    const uint64_t entry = nvme->completions + i * sizeof(NvmeCqe);
    const NvmeIdentify command = {
        .opcode = NVME_ADM_CMD_IDENTIFY,
        .prp1 = cpu_to_le64(gpa),
        .cns = NVME_ID_CNS_CTRL,
    };
    QTestState *qts = nvme->vm->qts;

    qtest_memwrite(qts, nvme->submissions + i * sizeof(command), &command,
                   sizeof(command));
    qpci_io_writel(nvme->pci, nvme->bar, NVME_DOORBELL, next);
    vm_wait_until(nvme_is_done(nvme, entry));
    g_assert_cmphex(qtest_readw(qts, entry + offsetof(NvmeCqe, status)) >> 1,
                    ==, NVME_SUCCESS);
    qpci_io_writel(nvme->pci, nvme->bar, NVME_DOORBELL + 4, next);
    nvme->nb_done++;
}

static bool nvme_is_identified(VirtioMemGuest *vm, uint64_t gpa)
{
    char serial[5];

    qtest_memread(vm->qts, gpa + offsetof(NvmeIdCtrl, sn), serial,
                  sizeof(serial));
    return !memcmp(serial, "12345", sizeof(serial));
}

static void test_nvme(VirtioMemGuest *unused)
{
    static const VirtioMemOptions opts = {
        .device = "protect-unplugged=on",
        .args = "-device nvme,serial=12345,addr=05.0",
    };
    Nvme nvme = {};
    uint64_t before;

    if (!qtest_has_device("nvme")) {
        g_test_skip("no nvme");
        return;
    }
    nvme.vm = virtio_mem_guest_start(&opts);
    nvme_up(&nvme);
    virtio_mem_set_requested(nvme.vm, VM_REQUESTED);
    vm_assert_plug(nvme.vm, 0, 1, ACK);
    nvme_identify(&nvme, nvme.vm->addr);
    nvme_identify(&nvme, virtio_mem_block_gpa(nvme.vm, 1));

    before = virtio_mem_host_memory(nvme.vm);
    for (uint64_t i = 1; i < DMA_BLOCKS; i++) {
        nvme_identify(&nvme, virtio_mem_block_gpa(nvme.vm, i));
    }
    virtio_mem_assert_gain(nvme.vm, before, 1 * MiB);
    g_assert_true(nvme_is_identified(nvme.vm, nvme.vm->addr));
    g_assert_false(nvme_is_identified(nvme.vm,
                                      virtio_mem_block_gpa(nvme.vm, 1)));
    g_free(nvme.pci);
    virtio_mem_check_invariants(nvme.vm);
    virtio_mem_guest_stop(nvme.vm);
}

static const VirtioMemOptions on = { .device = "protect-unplugged=on" };

static const VirtioMemTest tests[] = {
    { "T226 T227 T228", "guard/fw-cfg-and-unplugged-memory", test_fw_cfg, &on,
      .once = true, .guard = true, .pc = true },
    { "T226 T227 T228", "guard/nvme-and-unplugged-memory", test_nvme,
      .no_guest = true, .guard = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
