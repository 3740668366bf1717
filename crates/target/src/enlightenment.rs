//! Interfaces of Hyper-V that QEMU and KVM offer a guest ("Hyper-V Enlightenments", docs/system/i386/hyperv.rst of QEMU), and which of
//! them need which.
//!
//! All that are recommended there, but not those for hypervisors in the guest (`evmcs`, `reenlightenment`), `avic`, which is for
//! processors that have it, and `reset`, which Windows makes no use of. KVM alone has them: no domain without it gets any.

use machine::HypervInterfaces;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enlightenment {
    /// Element of libvirt's `<hyperv>`; none for the clock, which is a timer there.
    pub(crate) element: Option<&'static str>,
    /// Flag of QEMU's processors.
    pub flag: &'static str,
    /// Flags of those that must be there as well.
    pub needs: &'static [&'static str],
}

/// Tries after which a waiting processor tells the hypervisor of a lock: what the documentation names for hosts with more
/// processors promised than there are, and the least that libvirt takes.
pub(crate) const SPINLOCK_TRIES: &str = "4095";

/// The clock, for which libvirt has a timer.
pub(crate) const CLOCK: &str = "hv-time";

const fn one(element: &'static str, flag: &'static str, needs: &'static [&'static str]) -> Enlightenment {
    Enlightenment { element: Some(element), flag, needs }
}

/// The basic ones first.
const ALL: [Enlightenment; 11] = [
    one("relaxed", "hv-relaxed", &[]),
    one("vapic", "hv-vapic", &[]),
    one("spinlocks", "hv-spinlocks=4095", &[]),
    Enlightenment { element: None, flag: CLOCK, needs: &[] },
    one("vpindex", "hv-vpindex", &[]),
    one("runtime", "hv-runtime", &[]),
    one("synic", "hv-synic", &["hv-vpindex"]),
    one("stimer", "hv-stimer", &["hv-vpindex", "hv-synic", CLOCK]),
    one("frequencies", "hv-frequencies", &[]),
    one("tlbflush", "hv-tlbflush", &["hv-vpindex"]),
    one("ipi", "hv-ipi", &["hv-vpindex"]),
];

/// How many of [`ALL`] are basic.
const BASIC: usize = 4;

/// What a guest is offered that makes use of these interfaces.
pub fn enlightenments(interfaces: HypervInterfaces) -> &'static [Enlightenment] {
    match interfaces {
        HypervInterfaces::None => &[],
        HypervInterfaces::Basic => &ALL[..BASIC],
        HypervInterfaces::Full => &ALL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_what_it_needs() {
        for interfaces in [HypervInterfaces::Basic, HypervInterfaces::Full] {
            let offered = enlightenments(interfaces);
            for one in offered {
                let missing: Vec<_> =
                    one.needs.iter().filter(|flag| !offered.iter().any(|o| o.flag == **flag)).collect();
                assert!(missing.is_empty(), "{interfaces:?}: {} needs {missing:?}", one.flag);
            }
        }
        assert!(enlightenments(HypervInterfaces::None).is_empty());
        assert!(ALL.iter().any(|one| one.flag == format!("hv-spinlocks={SPINLOCK_TRIES}")));
    }
}
