/*
 * Pages that a guard lends to whoever touches memory out of reach.
 *
 * They are accounted for by lots: areas of the size that one page table maps,
 * or huge pages.  What is lent in a lot is taken back at once, the lots one
 * after the other in the order in which the first page was lent there.  That
 * returns page tables, too, and needs one system call for many pages.
 *
 * No lock: that of the guard.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_GUARD_LEND_H
#define HW_VIRTIO_MEM_GUARD_LEND_H

#define VIRTIO_MEM_GUARD_MAX_LENT 96

typedef struct VirtIOMEMGuardLot {
    uint64_t offset;
    uint64_t nb_pages;
} VirtIOMEMGuardLot;

typedef struct VirtIOMEMGuardLend {
    int uffd;
    const VirtIOMEMGuardArea *area;
    uint64_t table_size;        /* what one page table maps */
    uint64_t lot_size;
    uint64_t max_lent;          /* pages */
    uint64_t nb_lent;           /* pages */
    unsigned int nb_lots;
    VirtIOMEMGuardLot lots[VIRTIO_MEM_GUARD_MAX_LENT];      /* oldest first */
    void *zeros;                /* one huge page of them */
    uint64_t next;              /* where somebody who reads on would fault */
    uint64_t window;            /* bytes lent at once to those */
} VirtIOMEMGuardLend;

/* False with errno set.  @area stays the caller's and must live as long. */
bool virtio_mem_guard_lend_init(VirtIOMEMGuardLend *lend, int uffd,
                                const VirtIOMEMGuardArea *area);
void virtio_mem_guard_lend_cleanup(VirtIOMEMGuardLend *lend);

/*
 * Answer the fault at @offset, which is out of reach, with a page of zeros.
 * False if the host has none: whoever waits there has to be told to retry.
 */
bool virtio_mem_guard_lend_page(VirtIOMEMGuardLend *lend, uint64_t offset);

/* The same for a page that is within reach, and stays. */
bool virtio_mem_guard_lend_for_good(VirtIOMEMGuardLend *lend, uint64_t offset);

/* Take back all that is lent in a range, or everywhere. */
void virtio_mem_guard_lend_take_back(VirtIOMEMGuardLend *lend,
                                     uint64_t offset, uint64_t size);
void virtio_mem_guard_lend_take_back_all(VirtIOMEMGuardLend *lend);

#endif
