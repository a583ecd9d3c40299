/*
 * The unit in which a Linux guest adds memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/units.h"
#include "hw/boards.h"
#if defined(TARGET_X86_64) || defined(TARGET_I386)
#include "hw/i386/x86.h"
#endif
#include "virtio-mem-unit.h"

#define UNIT_MIN (128 * MiB)

#if defined(TARGET_X86_64) || defined(TARGET_I386)

/* Linux on x86 takes larger units when its boot memory ends there or beyond. */
#define UNIT_LARGE_BOOT_END (64 * GiB)
#define UNIT_MAX (2 * GiB)

static uint64_t unit_boot_end(void)
{
    const X86MachineState *x86ms = X86_MACHINE(qdev_get_machine());

    return x86ms->above_4g_mem_size ?
           x86ms->above_4g_mem_start + x86ms->above_4g_mem_size :
           x86ms->below_4g_mem_size;
}

/* The largest unit that the end of boot memory is aligned to. */
uint64_t virtio_mem_unit_of_guest(void)
{
    const uint64_t end = unit_boot_end();

    if (end < UNIT_LARGE_BOOT_END) {
        return UNIT_MIN;
    }
    return MAX(UNIT_MIN, MIN(UNIT_MAX, 1ULL << ctz64(end)));
}

/*
 * Some guests take the largest unit whatever the end is aligned to.  Smaller
 * machines keep the usable region that they always had.
 */
uint64_t virtio_mem_unit_usable_extent(void)
{
    return 2 * (unit_boot_end() < UNIT_LARGE_BOOT_END ? UNIT_MIN : UNIT_MAX);
}

#else

uint64_t virtio_mem_unit_of_guest(void)
{
    return UNIT_MIN;
}

uint64_t virtio_mem_unit_usable_extent(void)
{
#if defined(TARGET_ARM)
    /* With pages of 64 KiB. */
    return 2 * (512 * MiB);
#elif defined(TARGET_S390X)
    return 2 * UNIT_MIN;
#else
#error how large the usable region is has not been decided for this target
#endif
}

#endif
