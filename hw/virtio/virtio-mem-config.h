/*
 * What the guest reads in the config space of a virtio-mem device, and the only
 * place where the sizes that it is asked for change.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_CONFIG_H
#define HW_VIRTIO_MEM_CONFIG_H

#include "hw/virtio/virtio-mem-state.h"

/* Fill @data with a struct virtio_mem_config. */
void virtio_mem_config_get(VirtIODevice *vdev, uint8_t *data);

/*
 * A config field changed and the driver need not be interrupted: have the
 * config generation tell, as it MUST (virtio 1.4: Device Configuration Space).
 */
void virtio_mem_config_bump_generation(VirtIOMEM *vmem);

/*
 * Make the usable region as large as the asked size needs: some more than
 * that, so that the guest has a choice.  It may shrink by that, and MUST NOT at
 * other times (spec: Device configuration layout).  So only with no block
 * plugged: during UNPLUG ALL and system resets.
 */
void virtio_mem_config_fit_usable_size(VirtIOMEM *vmem);

/*
 * Ask the guest for another size, of @size bytes: a multiple of the block size,
 * at most that of the region.  The usable region may grow by that.  Tells the
 * guest, which MUST get a config notification when the requested or the usable
 * size changes (spec: Device configuration layout).
 */
void virtio_mem_config_set_asked_size(VirtIOMEM *vmem, uint64_t size);

/*
 * Sizes in bytes, checked before, that came with a migration or a snapshot:
 * what the guest was asked for there is also what is wished for here.  The
 * driver needs no notification: it saw these on the source.
 */
void virtio_mem_config_load(VirtIOMEM *vmem, uint64_t usable_region_size,
                            uint64_t asked_size);

#endif
