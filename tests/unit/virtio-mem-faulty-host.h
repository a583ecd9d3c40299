/*
 * A host that refuses what virtio-mem's guard asks of it.
 *
 * The program's system calls of the kinds below go through this file, which
 * lets them fail as a test wants it.  In any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VIRTIO_MEM_FAULTY_HOST_H
#define VIRTIO_MEM_FAULTY_HOST_H

typedef enum FaultyCall {
    FAULTY_UFFD_API,            /* open and query userfaultfd */
    FAULTY_REGISTER,            /* with ENOMEM, half of it is done */
    FAULTY_UNREGISTER,          /* the same */
    FAULTY_ZEROPAGE,
    FAULTY_COPY,
    FAULTY_MMAP_ZEROS,          /* the source of a page of zeros */
    FAULTY_MMAP_FIXED,          /* in place of other memory */
    FAULTY_POPULATE,
    FAULTY_EVENTFD,
    FAULTY_THREAD,
    FAULTY_POLL,                /* without an error: what is polled is gone */
    FAULTY_OPEN_MAX_MAP_COUNT,
    FAULTY_OPEN_MAPS,
    FAULTY_CALL__MAX,
} FaultyCall;

#define FAULTY_FOR_EVER INT_MAX

/* After @skip calls of that kind, @nb of them fail with @error. */
void faulty_host_refuse(FaultyCall call, int skip, int nb, int error);
/* One of @in fails, at random. */
void faulty_host_refuse_some(FaultyCall call, int in, int error);
/* All is well again. */
void faulty_host_recover(void);

/* How many calls of that kind were refused since then. */
int faulty_host_count(FaultyCall call);

#endif
