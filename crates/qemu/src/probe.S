# Boot sector of the accelerator probe (see accelerator.rs); probe.bin is made of it by
#   as --64 probe.S -o probe.o && ld -m elf_x86_64 -Ttext 0x7c00 --oformat binary probe.o -o probe.bin
# Enters long mode, executes CPUID 10 000 times, adds 33 million numbers to memory, takes five timer interrupts, writes 0x31 to
# port 0xf4. The sum is for hosts whose KVM interprets a guest's long mode instruction by instruction (kvm-pvm without the guest's
# help): a few instructions work there, and a kernel takes minutes to unpack itself.

.code16
.globl _start
_start:
  cli
  cld
  xorw %ax,%ax
  movw %ax,%ds
  movw %ax,%es
  movw %ax,%ss
  movw $0x7c00,%sp
  # page tables at 0x1000 (PML4), 0x2000 (PDPT), 0x3000 (PD): one 2 MiB identity page
  movw $0x1000,%di
  movw $0x1800,%cx
  rep stosw
  movw $0x2003,0x1000
  movw $0x3003,0x2000
  movw $0x0083,0x3000
  movl $0x1000,%eax
  movl %eax,%cr3
  movl %cr4,%eax
  orb $0x20,%al
  movl %eax,%cr4
  movl $0xc0000080,%ecx
  rdmsr
  orb $1,%ah
  wrmsr
  movl %cr0,%eax
  orl $0x80000001,%eax
  lgdtw gdtr
  movl %eax,%cr0
  ljmpw $8,$long
.code64
long:
  movl $10000,%r8d
1: xorl %eax,%eax
  cpuid
  decl %r8d
  jnz 1b
  movl $256,%r8d
4: movl $0x100000,%edi
5: addl %edi,(%rdi)
  addl $4,%edi
  cmpl $0x180000,%edi
  jb 5b
  decl %r8d
  jnz 4b
  # PIT interrupt in long mode through the PIC
  lidt idtr(%rip)
  movl $0x4000,%edi
  movl $0x200,%ecx   
  xorl %eax,%eax
  rep stosl
  movl $tick,%eax
  movw %ax,0x4000+16*0x20
  movw $8,0x4002+16*0x20
  movb $0x8e,0x4005+16*0x20
  movb $0x11,%al
  outb %al,$0x20
  movb $0x20,%al
  outb %al,$0x21
  movb $4,%al
  outb %al,$0x21
  movb $1,%al
  outb %al,$0x21
  movb $0xfe,%al
  outb %al,$0x21
  xorl %ebx,%ebx
  sti
2: hlt
  cmpl $5,%ebx
  jb 2b
  movb $0x31,%al
  outb %al,$0xf4
3: hlt
  jmp 3b
tick:
  pushq %rax
  incl %ebx
  movb $0x20,%al
  outb %al,$0x20
  popq %rax
  iretq
.align 8
gdt: .quad 0
     .quad 0x00af9a000000ffff
gdtr: .word 15
      .long gdt
idtr: .word 0xfff
      .quad 0x4000
.org 510
.word 0xaa55
