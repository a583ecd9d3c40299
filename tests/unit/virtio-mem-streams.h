/*
 * Migration streams, true and false ones, and an opinion on each
 *
 * A stream is here what of a real one concerns the device: the early section
 * and the device's part of the late one, each with its footer; or the late one
 * alone, in the format without an early section.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VIRTIO_MEM_STREAMS_H
#define VIRTIO_MEM_STREAMS_H

#include "virtio-mem-fake-host.h"

#define STREAM_MAX      128
#define STREAM_FOOTER   0x7e        /* QEMU_VM_SECTION_FOOTER */

/* The device that can take them. */
#define STREAM_ADDR     (4 * GiB)
#define STREAM_NODE     1
#define STREAM_REGION   (FAKE_BLOCKS * FAKE_BLOCK_SIZE)

typedef enum StreamField {
    F_ADDR, F_REGION, F_BLOCK, F_NODE, F_SIZE, F_BITMAP, F_USABLE,
    F_REQUESTED, NB_FIELDS
} StreamField;

typedef struct StreamValues {
    uint64_t value[NB_FIELDS];
} StreamValues;

typedef struct Stream {
    uint8_t bytes[STREAM_MAX];
    size_t len;
} Stream;

typedef enum StreamVerdict {
    TAKEN,
    REFUSED_BY_DEVICE,
    REFUSED_BY_READER,      /* it ends too early, or goes on too long */
    NB_VERDICTS
} StreamVerdict;

/* What a second, simple reading of the bytes says that must happen. */
typedef struct StreamOpinion {
    StreamVerdict verdict;
    StreamValues values;
    bool blocks_loaded;     /* and perhaps what came after was refused */
    bool unclear;           /* how far that gets before it is refused */
} StreamOpinion;

/* Any stream that must be taken. */
void stream_make_true(Stream *stream, bool early);

/* The same, changed in one of many ways; few are still true then. */
void stream_make_changed(Stream *stream, bool early);

void stream_form_opinion(StreamOpinion *opinion, const Stream *stream,
                         bool early);

#endif
