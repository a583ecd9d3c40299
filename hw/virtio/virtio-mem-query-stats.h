/*
 * Statistics of virtio-mem devices, for "query-stats" and "info stats".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_QUERY_STATS_H
#define HW_VIRTIO_MEM_QUERY_STATS_H

/*
 * Answer for all devices, from now on.  Once, when the type is initialized;
 * there may be no device yet.
 */
void virtio_mem_query_stats_register(void);

#endif
