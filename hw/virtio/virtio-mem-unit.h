/*
 * The unit in which a Linux guest adds memory.
 *
 * Linux adds and removes memory in units that it calls memory blocks.  It uses
 * only those aligned, whole units that lie in the usable region, and plugs the
 * device's blocks inside them.  How large a unit is, is the guest's choice and
 * not on the wire; what follows is how Linux chooses.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_UNIT_H
#define HW_VIRTIO_MEM_UNIT_H

/*
 * The unit of a Linux guest in this machine, in bytes: a power of two.  Where
 * it depends on how the guest's kernel was built: the smallest.  To be called
 * when the machine's boot memory has its place.
 */
uint64_t virtio_mem_unit_of_guest(void);

/*
 * By how many bytes the usable region exceeds the requested size: twice the
 * largest unit that a guest of this machine may have, so that a guest that
 * cannot use the ends of the region reaches the requested size.  Called as
 * above.
 */
uint64_t virtio_mem_unit_usable_extent(void);

#endif /* HW_VIRTIO_MEM_UNIT_H */
