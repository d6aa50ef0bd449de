// SPDX-License-Identifier: Apache-2.0 OR MIT

//! By which lines of its log the kernel is known to have found something wrong with itself. They are in
//! `splats.txt`.

const PATTERNS: &str = include_str!("splats.txt");

/// Whether a line of the kernel log, without time and level, tells of a fault.
pub fn is_splat(line: &str) -> bool {
    patterns().any(|pattern| matches(pattern, line))
}

fn patterns() -> impl Iterator<Item = &'static str> {
    PATTERNS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Whether the line begins with what is before the pattern's first `*`, and has what is between the
/// others, in this order.
fn matches(pattern: &str, line: &str) -> bool {
    let (start, others) = pattern.split_once('*').unwrap_or((pattern, ""));
    let Some(mut rest) = line.strip_prefix(start) else {
        return false;
    };
    others.split('*').all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_beginning_and_what_follows_in_its_order() {
        for (pattern, line, expected) in [
            ("BUG: *", "BUG: KASAN", true),
            ("BUG: *", "a BUG: KASAN", false),
            ("BUG", "BUGS", true),
            ("*: BUG: *", "watchdog: BUG: soft lockup", true),
            ("a *c*e", "a bcde", true),
            ("a *c*e", "a edc", false),
            ("a *c*e", "b a bcde", false),
        ] {
            assert_eq!(matches(pattern, line), expected, "{pattern:?} {line:?}");
        }
    }

    /// One of a kind for each pattern, as the kernel prints it.
    const SPLATS: &[&str] = &[
        "BUG: KASAN: slab-use-after-free in evgen_read+0x12/0x40 [evgen]",
        "BUG: KFENCE: use-after-free read in evgen_read+0x12/0x40 [evgen]",
        "BUG: KCSAN: data-race in evgen_read / evgen_handler",
        "BUG: scheduling while atomic: stress/98/0x00000002",
        "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580",
        "BUG: using smp_processor_id() in preemptible [00000000] code: stress/98",
        "BUG: spinlock bad magic on CPU#1, stress/98",
        "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 33s!",
        "BUG: workqueue leaked atomic, lock or RCU: kworker/0:1[9]",
        "BUG: Bad page state in process stress  pfn:01234",
        "BUG: MAX_LOCK_DEPTH too low!",
        "BUG: MAX_LOCKDEP_CHAINS too low!",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [stress:98]",
        "BUG kmalloc-64 (Tainted: G           O      ): Poison overwritten",
        "BUG evgen_node (Tainted: G           O      ): Objects remaining on __kmem_cache_shutdown()",
        "UBSAN: array-index-out-of-bounds in a.c:1:2",
        "[ BUG: Invalid wait context ]",
        "WARNING: possible circular locking dependency detected",
        "WARNING: possible recursive locking detected",
        "WARNING: possible irq lock inversion dependency detected",
        "WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected",
        "WARNING: inconsistent lock state",
        "WARNING: Nested lock was not taken",
        "WARNING: bad unlock balance detected!",
        "WARNING: bad contention detected!",
        "WARNING: chain_key collision",
        "WARNING: held lock freed!",
        "WARNING: stress/98 still has locks held!",
        "WARNING: lock held when returning to user space!",
        "WARNING: suspicious RCU usage",
        "INFO: trying to register non-static key.",
        "turning off the locking correctness validator.",
        "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
        "kmemleak: Cannot insert 0xffff888001234000 into the object search tree (overlaps existing)",
        "kmemleak: Kernel memory leak detector disabled",
        "ODEBUG: Out of memory. ODEBUG disabled",
        "DMA-API: debugging out of memory - disabling",
        "SLUB kmalloc-64: 2 partial slabs counted but counter=3",
        "SLUB: kmalloc-64 2 slabs counted but counter=3",
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: {",
        "INFO: rcu_tasks detected stalls on tasks:",
        "INFO: task stress:98 blocked for more than 120 seconds.",
        "INFO: task stress:98 blocked in I/O wait for more than 120 seconds.",
        "irq 25: nobody cared (try booting with the \"irqpoll\" option)",
        "irq event 25: bogus return value ffffffff",
        "watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 0",
        "genirq: exiting task \"irq/25-evgen\" (98) is an active IRQ thread (irq 25)",
        "softirq: huh, entered softirq 1 TIMER 00000000 with preempt_count 00000100, exited with 00000101?",
        "sysfs: cannot create duplicate filename '/bus/pci/drivers/evgen'",
        "debugfs: 'evgen' already exists in '/'",
        "resource: Trying to free nonexistent resource <00000000e0000000-00000000e0000fff>",
    ];

    /// What a kernel logs that is well, or whose allocations are made to fail.
    const NO_SPLATS: &[&str] = &[
        "Kernel command line: console=ttyS0 lockstorm.run=\"dmesg | grep -c 'BUG: '\"",
        "evgen: loading out-of-tree module taints kernel.",
        "evgen 0000:00:01.0: ring 0 is in the error state",
        "RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable",
        "WARNING: BIOS bug: CPU MTRRs don't cover all of memory",
        "ENERGY_PERF_BIAS: Set to 'normal', was 'performance'",
        "[Firmware Bug]: TSC doesn't count with P0 frequency!",
        "Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
        "... MAX_LOCK_DEPTH:          48",
        "rcu: \tRCU lockdep checking is enabled.",
        "kasan: KernelAddressSanitizer initialized (generic)",
        "kmemleak: Kernel memory leak detector initialized (mem pool available: 31000)",
        "kmemleak: Cannot allocate a scan area, scanning the full object",
        "ODEBUG: selftest passed",
        "DMA-API: preallocated 65536 debug entries",
        "DMA-API: debugging enabled by kernel config",
        "workqueue: evgen_work [evgen] hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND",
        "FAULT_INJECTION: forcing a failure.",
        "stress: page allocation failure: order:0, mode:0x40cc0(GFP_KERNEL|__GFP_COMP)",
        "SLUB: Unable to allocate memory on CPU 0 (of node 0) on node -1, gfp=0xcc0(GFP_KERNEL)",
    ];

    #[test]
    fn splats_are_told_from_what_is_normal() {
        for line in SPLATS {
            assert!(is_splat(line), "{line}");
        }
        for line in NO_SPLATS {
            assert!(!is_splat(line), "{line}");
        }
    }

    #[test]
    fn each_pattern_has_its_splat() {
        for pattern in patterns() {
            assert!(
                SPLATS.iter().any(|line| matches(pattern, line)),
                "{pattern:?}"
            );
        }
    }
}
