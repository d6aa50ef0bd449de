// SPDX-License-Identifier: GPL-2.0
/*
 * For the outer machine of the nested mode: leaves a guest right after an interrupt was injected into it.
 *
 * QEMU's emulated VMRUN delivers the interrupt, but leaves its vector in CPUState::exception_index
 * (target/i386/tcg/system/svm_helper.c, helper_vmrun). Whoever asks the processor's loop to end before
 * something else is delivered, such as the thread that serves timers, has the vector delivered once more
 * (accel/tcg/cpu-exec.c, cpu_handle_interrupt and cpu_handle_exception): in the middle of the handler,
 * though interrupts are off there. Guests then hang or corrupt themselves.
 *
 * An exit clears that index. So whenever KVM has injected an interrupt, an interrupt of the outer
 * machine's own is made to wait when it enters the guest: the emulated processor delivers the injected
 * one, and then leaves at once.
 */
#include <linux/bitmap.h>
#include <linux/irq_work.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/sched.h>

/* As many as there are threads in a machine with less than 1,024 processors. */
#define THREADS 32768

/* Whether a thread has injected an interrupt and not entered its guest since. */
static DECLARE_BITMAP(injected, THREADS);

static void nothing(struct irq_work *work)
{
}

static DEFINE_PER_CPU(struct irq_work, interrupt) = IRQ_WORK_INIT_HARD(nothing);

/* Preemptible. */
static int at_injection(struct kprobe *probe, struct pt_regs *regs)
{
	set_bit(current->pid % THREADS, injected);
	return 0;
}

/* Interrupts are off, until the guest is entered. */
static int at_entry(struct kprobe *probe, struct pt_regs *regs)
{
	if (test_and_clear_bit(current->pid % THREADS, injected))
		irq_work_queue(this_cpu_ptr(&interrupt));
	return 0;
}

static struct kprobe injection = {
	.symbol_name = "svm_inject_irq",
	.pre_handler = at_injection,
};

static struct kprobe entry = {
	.symbol_name = "svm_vcpu_run",
	.pre_handler = at_entry,
};

static struct kprobe *probes[] = { &injection, &entry };

static int __init leave_after_injection_init(void)
{
	return register_kprobes(probes, ARRAY_SIZE(probes));
}

static void __exit leave_after_injection_exit(void)
{
	unregister_kprobes(probes, ARRAY_SIZE(probes));
}

module_init(leave_after_injection_init);
module_exit(leave_after_injection_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Leaves a guest right after an interrupt was injected into it");
