/*
 * A virtio-mem device in a model, and what stands for the rest of QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VIRTIO_MEM_MODEL_DEVICE_H
#define VIRTIO_MEM_MODEL_DEVICE_H

#include "migration/misc.h"
#include "virtio-mem-model-host.h"

#define MODEL_ADDR (4 * GiB)

typedef struct ModelDevice {
    bool prealloc;
    bool snapshot;              /* a migration is one, in the background */
    unsigned plugged;           /* before: a bit for each block */
} ModelDevice;

/* What the device did to the world, and the world to it. */
typedef struct ModelWorld {
    bool migrating;
    bool postcopy;              /* incoming: the guest runs already */
    bool must_wake;             /* the guest heard BUSY */
    uint64_t told;              /* the size */
} ModelWorld;

extern VirtIOMEM model_vmem;
extern ModelWorld model_world;

/* Once. */
void model_device_register(void);
void model_device_begin(const ModelDevice *what);
void model_device_end(void);

/* What is plugged, a bit for each block. */
unsigned model_plugged(void);

/* Events: of the machine, of migration, and of a load. */
void model_device_reset(void);
void model_device_notify(MigrationEventType type);
void model_device_load_setup(void);
void model_device_load_cleanup(void);

/* @is_whole: no load has done half of its work. */
void model_device_check(bool is_whole);

/* A timer of the device's. */
bool model_timer_is_pending(void);
void model_timer_expire(void);

#endif
