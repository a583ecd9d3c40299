/*
 * A guest of a few instructions, in place of the firmware, whose processors
 * write to memory above 4 GiB without asking; see p14_longest_wait.py.
 *
 * Each counts what it does.  While FLAG is 0, it does nothing else; then it
 * writes to the first byte of a random one of the first 16 pages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define FLAG 0x7000
#define COUNTS 0x7100           /* 64 bits for each processor */
#define WINDOW 0x40000000       /* the linear address of 4 GiB */
#define APIC 0x80000000         /* and of the local APICs */
#define NB_ENTRIES 512
#define PAGE_SHIFT 21
#define HERE 0xf0000            /* where the ROM of 64 KiB is seen */

        /* where the first processor comes from its reset, others from here */
        .code16
        .globl _start
_start:
        cli
        cld
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        movl $0x1b, %ecx
        rdmsr
        testw $0x100, %ax
        jz 2f

        /* page tables, once: 2 MiB from 0 on, and the windows */
        movw $0x1000, %di
        movw $0x1800, %cx
        xorl %eax, %eax
        rep stosl
        movl $0x2007, 0x1000
        movl $0x3007, 0x2000
        movl $0x4007, 0x2008
        movl $0x5007, 0x2010
        movl $0xe7, 0x3000
        movl $0xfee000f7, 0x5000
        movw $0x4000, %di
        movw $NB_ENTRIES, %cx
        movl $0xe7, %eax
1:      movl %eax, (%di)
        movl $1, 4(%di)
        addl $(1 << PAGE_SHIFT), %eax
        addw $8, %di
        loop 1b

        /* PAE, page tables, EFER.LME, paging and protection */
2:      lgdtl %cs:gdtr
        movl $0x20, %eax
        movl %eax, %cr4
        movl $0x1000, %eax
        movl %eax, %cr3
        movl $0xc0000080, %ecx
        rdmsr
        orw $0x100, %ax
        wrmsr
        movl %cr0, %eax
        orl $0x80000001, %eax
        movl %eax, %cr0
        ljmpl $8, $(HERE + main)

        .code64
main:
        movw $16, %ax
        movw %ax, %ds
        movl $1, %eax
        cpuid
        movl %ebx, %esi
        shrl $24, %esi
        jnz 1f

        /* the first one starts the others */
        movl $APIC, %edi
        movl $(0xc4600 + (HERE >> 12)), 0x300(%rdi)

1:      leal 1(%rsi), %eax
2:      incq COUNTS(, %rsi, 8)
        cmpb $0, FLAG
        je 2b
        imull $1664525, %eax
        addl $1013904223, %eax
        movl %eax, %edi
        shrl $28, %edi
        shll $PAGE_SHIFT, %edi
        movb $1, WINDOW(%rdi)
        jmp 2b

        .balign 8
gdt:    .quad 0
        .quad 0x00af9b000000ffff
        .quad 0x00cf93000000ffff
gdtr:   .word gdtr - gdt - 1
        .long HERE + gdt

        /* where the processor begins */
        .org 0xfff0
        .code16
        ljmpw $0xf000, $_start
        .org 0x10000
