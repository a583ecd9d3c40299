/*
 * The host memory behind a virtio-mem region: populate it, give it back, and
 * the facts about it that decide how.
 *
 * This layer knows the memory backend and offsets into it, in bytes; it knows
 * neither blocks nor guest addresses.  All blocks are populated and discarded
 * here; only for the pages that it lends, the guard calls the host itself.
 * Offsets and sizes are multiples of the backend's page size.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_BACKING_H
#define HW_VIRTIO_MEM_BACKING_H

#include "qemu/units.h"
#include "hw/virtio/virtio-mem-state.h"
#include "system/hostmem.h"

/* virtio-mem blocks are never smaller, whatever the backend. */
#define VIRTIO_MEM_MIN_BLOCK_SIZE (1 * MiB)

/*
 * The block size to prefer for @memdev, in bytes: what lets the host use its
 * largest pages.  Without a usable @memdev (NULL, or no RAM yet), the size of
 * a transparent huge page.
 */
uint64_t virtio_mem_backing_default_block_size(HostMemoryBackend *memdev);

/*
 * Whether reading memory that was never written costs nothing, because all
 * such pages share one page of zeros: private anonymous memory in pages of
 * the host's base page size.
 */
bool virtio_mem_backing_has_shared_zeropage(HostMemoryBackend *memdev);

/* Whether migration leaves the content of @memdev alone.  BQL. */
bool virtio_mem_backing_is_ignored(HostMemoryBackend *memdev);

/*
 * Whether @memdev is a private mapping of a file that has a name.  Its content
 * shows through where the guest has written nothing, and is never changed: the
 * file may be the memory of other virtual machines.  Needs no lock.
 */
bool virtio_mem_backing_is_private_copy(HostMemoryBackend *memdev);

/*
 * A device begins and ends to use its memdev.  Between them, the file of a
 * private copy gets rid of pages that only this process's accesses have added.
 * False with an error if the host has no memory for the table that this needs.
 * BQL, no discard under way.
 */
bool virtio_mem_backing_realize(VirtIOMEM *vmem, Error **errp);
void virtio_mem_backing_unrealize(VirtIOMEM *vmem);

/*
 * Give @size bytes at @offset back to the host; they read as zero afterwards,
 * those of a private copy as the file.  Returns 0, or a negative value; part of
 * it may be given back then.  Needs no lock.
 */
int virtio_mem_backing_discard(const VirtIOMEM *vmem, uint64_t offset,
                               uint64_t size);

/*
 * Whether there is certainly no memory in @size bytes at @offset, so that they
 * need not be discarded.  Only for private memory without a file, and by Linux
 * 6.7 and newer, which takes no time to tell.  Needs no lock.
 */
bool virtio_mem_backing_is_empty(const VirtIOMEM *vmem, uint64_t offset,
                                 uint64_t size);

/*
 * Whether virtio_mem_backing_map() works for @memdev, and is of use: where the
 * host may lack memory before a block is plugged.
 */
bool virtio_mem_backing_can_map(HostMemoryBackend *memdev);

/*
 * Whether the mapping of @memdev has pages of its own, which it loses when
 * other memory is mapped over it.
 */
bool virtio_mem_backing_has_reserve(HostMemoryBackend *memdev);

/*
 * Map the file of @memdev where other memory was mapped over it: @size bytes at
 * @offset.  Returns 0; or a negative errno, and other memory is there still.
 * Needs no lock.
 */
int virtio_mem_backing_map(HostMemoryBackend *memdev, uint64_t offset,
                           uint64_t size);

/*
 * Have the host provide memory for @size bytes at @offset now; content that is
 * there already stays.  Returns 0, or -ENOMEM with an error: part of the range
 * may be populated then.  Needs no lock.
 */
int virtio_mem_backing_populate(const VirtIOMEM *vmem, uint64_t offset,
                                uint64_t size, Error **errp);

#endif
