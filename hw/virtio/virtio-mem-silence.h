/*
 * Why the guest of a virtio-mem device does not change its size although it
 * could, as far as its balloon driver tells: by what that said when the resize
 * began, and by what it says now.
 *
 * All functions are called with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_SILENCE_H
#define HW_VIRTIO_MEM_SILENCE_H

#include "hw/virtio/virtio-mem-state.h"

/* While the device is realized.  @bh is scheduled when there is more to say. */
void virtio_mem_silence_realize(VirtIOMEM *vmem, QEMUBH *bh);
void virtio_mem_silence_unrealize(VirtIOMEM *vmem);

/*
 * A resize begins: ask for what is compared with later.  @reserve bytes should
 * stay available to the guest; 0: by its size.
 */
void virtio_mem_silence_prepare(VirtIOMEM *vmem, uint64_t reserve);

/* The guest has fallen silent: ask why; and it is not silent any more. */
void virtio_mem_silence_begin(VirtIOMEM *vmem);
void virtio_mem_silence_end(VirtIOMEM *vmem);

/* While the guest is silent; GUEST_SILENT: not known, or not yet. */
VirtioMEMResizeReason virtio_mem_silence_reason(const VirtIOMEM *vmem);

#endif
