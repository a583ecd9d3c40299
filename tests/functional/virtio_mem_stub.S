/*
 * A guest of a few instructions, in place of the firmware, that uses memory
 * above 4 GiB without asking.
 *
 * It writes a word to each 2 MiB of the GiB from 4 GiB on, says "W" on the
 * serial port, and for the first and the last of these words "1" if it is still
 * there and "0" if not.  Then it halts.
 *
 * Long mode, because that is what a KVM without hardware support runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define WORD 0xdeadbeef
#define WINDOW 0x40000000       /* the linear address of 4 GiB */
#define STEP 0x200000
#define COUNT 512
#define PORT 0x3f8
#define HERE 0xf0000            /* where the ROM of 64 KiB is seen */

        .code16
        .globl _start
_start:
        cli
        cld
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es

        /* page tables: 2 MiB from 0 on, and the window */
        movw $0x1000, %di
        movw $0x1000, %cx
        xorl %eax, %eax
        rep stosl
        movl $0x2007, 0x1000
        movl $0x3007, 0x2000
        movl $0x4007, 0x2008
        movl $0xe7, 0x3000
        movw $0x4000, %di
        movw $COUNT, %cx
        movl $0xe7, %eax
1:      movl %eax, (%di)
        movl $1, 4(%di)
        addl $STEP, %eax
        addw $8, %di
        loop 1b

        /* PAE, page tables, EFER.LME, paging and protection */
        lgdtl %cs:gdtr
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
        movl $WINDOW, %edi
        movl $COUNT, %ecx
1:      movl $WORD, (%rdi)
        addl $STEP, %edi
        decl %ecx
        jnz 1b
        movw $PORT, %dx
        movb $'W', %al
        outb %al, %dx

        .macro tell address
        movl $\address, %edi
        cmpl $WORD, (%rdi)
        sete %al
        addb $'0', %al
        outb %al, %dx
        .endm
        tell WINDOW
        tell WINDOW+(COUNT-1)*STEP
1:      hlt
        jmp 1b

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
