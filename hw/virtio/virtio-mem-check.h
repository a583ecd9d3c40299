/*
 * All that can be wrong with the properties of a virtio-mem device.
 *
 * A message names the property, the value and the limit.  Management tools
 * match some of the words, which are those of QEMU since 5.1.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_CHECK_H
#define HW_VIRTIO_MEM_CHECK_H

#include "hw/virtio/virtio-mem-state.h"

/*
 * All that can be wrong with the properties, and the memdev; settles those
 * that the user left to us.  At the start of realize.
 */
bool virtio_mem_check_properties(VirtIOMEM *vmem, Error **errp);

/*
 * Whether the guest may be asked for @size bytes; @name is that of the property
 * or argument.
 */
bool virtio_mem_check_requested_size(const VirtIOMEM *vmem, const char *name,
                                     uint64_t size, Error **errp);

/*
 * Whether the device stays: one that is being removed takes no other @name, the
 * property or argument.
 */
bool virtio_mem_check_stays(const VirtIOMEM *vmem, const char *name,
                            Error **errp);

/*
 * Whether @reserve bytes may have to stay available to the guest; @name is that
 * of the property or argument.
 */
bool virtio_mem_check_reserve(const char *name, uint64_t reserve,
                              Error **errp);

/*
 * Whether @mode is possible in this machine as it is now; @name is that of the
 * property or argument.
 */
bool virtio_mem_check_mode(const char *name, MemoryDeviceResizeMode mode,
                           Error **errp);

#endif
