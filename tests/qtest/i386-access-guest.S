/*
 * A guest of a few instructions, in place of the firmware, whose accesses cross
 * from one page into another; see i386-access-test.c.
 *
 * i386-access-guest.h has its bytes:
 *
 *   gcc -m32 -nostdlib -static -Wl,-Ttext=0 -o guest.elf i386-access-guest.S
 *   objcopy -O binary guest.elf guest
 *   xxd -i < guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define ROM 0xf0000             /* where the ROM of 64 KiB is seen */
#define RESULTS 0x500
#define SPLIT 0x10ffc           /* the last bytes of a page */
#define NEXT 0x21000            /* where the page behind them is */
#define HOLE 0xa0000            /* where RAM ends and nothing is */

        .code16
        .globl _start
_start:
        cli
        movw $(ROM >> 4), %ax
        movw %ax, %ds
        lgdtl gdtr
        movl %cr0, %eax
        orl $1, %eax
        movl %eax, %cr0
        ljmpl $8, $ROM + protected

        .code32
protected:
        movl $16, %eax
        movl %eax, %ds
        movl %eax, %es

        /* 4 MiB as they are, but for one page */
        movl $0x2000, %edi
        movl $3, %eax
1:      stosl
        addl $0x1000, %eax
        cmpl $0x3000, %edi
        jne 1b
        movl $(NEXT + 3), 0x2000 + (SPLIT >> 12) * 4 + 4
        movl $0x2003, 0x1000
        movl $0x1000, %eax
        movl %eax, %cr3
        movl %cr0, %eax
        orl $0x80000000, %eax
        movl %eax, %cr0

        /* across into RAM that does not follow, and back */
        fninit
        fldl2e
        fldl2e
        fstpt RESULTS + 0x10
        fstpt SPLIT
        fldt SPLIT
        fstpt RESULTS + 0x20

        /* across into nothing, and back */
        fnsave HOLE - 64
        frstor HOLE - 64
        fxsave HOLE - 256
        fninit
        fldl2e
        fstpt HOLE - 4
        fldt HOLE - 4

        movl $1, RESULTS
2:      hlt
        jmp 2b

        .balign 8
gdt:    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr:   .word gdtr - gdt - 1
        .long ROM + gdt
